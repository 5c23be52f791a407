"""A task whose physics diverges, in MJX and in MuJoCo C alike."""

import mujoco

from teachers.tasks.declaration import namespace
from teachers.tasks.reacher import Reacher

HUGE = 1e38  # N m


class DivergingReacher(Reacher):
    """Reacher whose motors are sent a huge torque by actions over 0.9."""

    episode_steps = 20

    def build(self) -> mujoco.MjSpec:
        spec = super().build()
        for actuator in spec.actuators:
            actuator.ctrllimited = False
        return spec

    def control(self, action):
        return namespace(action).where(action > 0.9, HUGE, super().control(action))


def turn_until_it_breaks(observation, goal):
    """Turns the shoulder, and sends the huge torque where it has turned past one radian."""
    xp = namespace(observation)
    angle = xp.arctan2(observation[..., 2], observation[..., 0])
    return xp.stack([xp.where(angle > 1.0, 1.0, 0.3), xp.zeros_like(angle)], axis=-1)
