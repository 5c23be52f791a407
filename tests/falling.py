"""A task whose episodes end early, for the tests of what follows from that."""

from teachers.tasks.reacher import Reacher


class FallingReacher(Reacher):
    """Ends an episode when the fingertip is on the left."""

    episode_steps = 20

    def terminated(self, observation):
        return observation[..., 6] < -0.15
