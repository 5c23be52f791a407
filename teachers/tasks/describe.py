"""Describes tasks and their fields as JSON values."""

from typing import Any

from teachers.tasks.base import Task
from teachers.tasks.declaration import Field, Sensor, slices


def describe_task(task: Task) -> dict[str, Any]:
    """Returns a task's declaration as JSON values."""
    return {
        "name": task.name,
        "summary": task.summary,
        "observation": describe_fields(task.observation),
        "goal": describe_fields(task.goal),
        "action": describe_fields(task.action),
        "control_period": task.control_period,
        "episode_steps": task.episode_steps,
        "success_radius": task.success_radius,
        "hard_radius": task.hard_radius,
        "goal_sets": list(task.goal_sets),
        "training": dict(task.training),
        "distillation": dict(task.distillation),
    }


def describe_fields(fields: tuple[Field | Sensor, ...]) -> list[dict[str, Any]]:
    """Returns the fields of an array in order, each with its indices `[start, stop)` in the array."""
    indices = slices(fields)
    return [
        {**field._asdict(), "start": indices[field.name].start, "stop": indices[field.name].stop}
        for field in fields
    ]
