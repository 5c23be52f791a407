"""Describes tasks and their fields as JSON values."""

from collections.abc import Mapping
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
        "sensors": describe_fields(task.sensors),
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


def describe_errors(sensor: Mapping[str, Any], control_period: float) -> str:
    """Returns the rate of a sensor and how it errs, in words.

    Args:
        sensor: its attributes, by name.
        control_period: of the task, s.
    """
    unit = "" if sensor["unit"] == "1" else f" {sensor['unit']}"
    parts = [
        f"{1 / (sensor['every'] * control_period):.4g} Hz",
        f"{1000 * sensor['delay'] * control_period:.4g} ms late" if sensor["delay"] else "",
        f"noise {sensor['noise']:g}{unit}" if sensor["noise"] else "",
        f"bias {sensor['bias']:g}{unit}" if sensor["bias"] else "",
        f"in steps of {sensor['resolution']:g}{unit}" if sensor["resolution"] else "",
        f"{sensor['dropout']:.3g} of the readings lost" if sensor["dropout"] else "",
        "the goal" if sensor["is_goal"] else "",
        "privileged: no robot measures it" if sensor["privileged"] else "",
    ]
    return ", ".join(filter(None, parts))
