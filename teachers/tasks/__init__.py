"""The goal-reaching tasks, on MJX, by name."""

import difflib
from functools import cache

from teachers.tasks.base import Camera, Field, GoalSet, Physics, State, Task, slices
from teachers.tasks.errors import InputError
from teachers.tasks.point_maze import PointUMaze
from teachers.tasks.reacher import Reacher

TASKS: dict[str, type[Task]] = {task.name: task for task in (Reacher, PointUMaze)}


@cache
def get_task(name: str) -> Task:
    """The task of this name, built once a process.

    Raises:
        InputError: there is no such task.
    """
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of: {', '.join(TASKS)}"
        raise InputError(f"unknown task {name!r}; {hint}")
    return TASKS[name]()


__all__ = [
    "TASKS",
    "Camera",
    "Field",
    "GoalSet",
    "InputError",
    "Physics",
    "State",
    "Task",
    "get_task",
    "slices",
]
