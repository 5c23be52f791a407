"""What a model's actuators are sent for an action in [-1, 1]."""

import mujoco
import numpy as np
from jaxtyping import Float, Int

from teachers.runs.errors import InputError
from teachers.tasks.declaration import Field


def control_limits(
    model: mujoco.MjModel, ids: Int[np.ndarray, "act"], action: tuple[Field, ...], task_name: str
) -> tuple[Float[np.ndarray, "act"], Float[np.ndarray, "act"]]:
    """Returns what -1 and 1 stand for in some actuators: the ends of their control ranges, or of their numbers' fields.

    Args:
        model: which has the actuators.
        ids: the actuator of each number of the action.
        action: the fields of the action.
        task_name: for messages.

    Raises:
        InputError: an actuator has no range, and its field no limits.
    """
    fields = [field for field in action for _ in range(field.size)]
    limits = model.actuator_ctrlrange[ids].astype(np.float32)
    has_no_range = limits[:, 0] == limits[:, 1]
    for i in np.flatnonzero(has_no_range):
        low, high = fields[i].low, fields[i].high
        if low is None or high is None:
            raise InputError(
                f"task {task_name}: actuator {model.actuator(ids[i]).name or int(ids[i])!r} has no ctrlrange, and action field "
                f"{fields[i].name!r} no low and high; declare them, or override `control`"
            )
        limits[i] = low, high
    return limits[:, 0], limits[:, 1]
