"""A task whose episodes can end early."""

from teachers.tasks.reacher import Reacher


class FallingReacher(Reacher):
    """Reacher whose episode is terminated when the fingertip is on the left."""

    episode_steps = 20

    def terminated(self, observation):
        return observation[..., 6] < -0.15
