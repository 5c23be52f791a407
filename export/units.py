"""Actions in [-1, 1], as networks and tasks have them, and in the units of their fields, as actuators do."""

from typing import Any

import numpy as np

from teachers.runs.errors import InputError
from teachers.tasks import Task
from teachers.tasks.base import namespace


def in_task_units(task: Task, action: Any) -> Any:
    """What actions `[*batch, act]` in [-1, 1] stand for, clipped to the limits of their fields.

    Raises:
        InputError: a field of the task's action does not say what -1 and 1 stand for.
    """
    low, high = limits(task)
    xp = namespace(action)
    inside = low + (action + 1.0) * (0.5 * (high - low))
    # Rounding would let it pass a limit by a last digit.
    return xp.clip(inside, np.minimum(low, high), np.maximum(low, high))


def normalized(task: Task, action: Any) -> Any:
    """The inverse of `in_task_units`; errors as there."""
    low, high = limits(task)
    return (action - low) * (2.0 / (high - low)) - 1.0


def limits(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """What -1 and 1 stand for, in each number of the action; errors as of `in_task_units`."""
    for field in task.action:
        if field.low is None or field.high is None:
            raise InputError(
                f"action field {field.name!r} of task {task.name!r} does not say what -1 and 1 stand for; declare its "
                "low and high, or export with --normalized"
            )
    low, high = (
        np.concatenate([np.full(field.size, getattr(field, end)) for field in task.action])
        for end in ("low", "high")
    )
    return low.astype(np.float32), high.astype(np.float32)
