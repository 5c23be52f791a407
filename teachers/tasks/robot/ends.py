"""When an episode ends early: a body is too low, too high, or tilted too far."""

import math
from collections.abc import Callable
from typing import NamedTuple

import mujoco

from teachers.tasks.declaration import Field
from teachers.tasks.names import find
from teachers.tasks.robot.parts import Part


class End(NamedTuple):
    """A number that is observed, and outside of which limits the episode ends."""

    part: Part  # of one number
    low: float
    high: float


EndOf = Callable[[mujoco.MjModel], End]


def height_outside(body: str, low: float, high: float = math.inf) -> EndOf:
    """Ends the episode where a body is lower than `low` or higher than `high` (m)."""

    def make(model: mujoco.MjModel) -> End:
        number = find(model, "body", body)
        field = Field(f"{body}_height", 1, "m", f"height of {body}", 0.5)
        return End(Part((field,), lambda data: data.xpos[number, 2:]), low, high)

    return make


def tilted_beyond(body: str, angle: float) -> EndOf:
    """Ends the episode where a body's z axis is more than `angle` (rad) away from the vertical."""

    def make(model: mujoco.MjModel) -> End:
        number = find(model, "body", body)
        field = Field(f"{body}_upright", 1, "1", f"cosine of the angle by which {body} is tilted")
        return End(
            Part((field,), lambda data: data.xmat[number].reshape(9)[8:]),
            math.cos(angle),
            math.inf,
        )

    return make
