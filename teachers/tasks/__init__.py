"""The goal-reaching tasks: those of this project by name, and those that users bring."""

from teachers.tasks.base import Task
from teachers.tasks.declaration import (
    Camera,
    Field,
    GoalSet,
    Physics,
    Sensor,
    State,
    namespace,
    slices,
)
from teachers.tasks.defaults import FLYING, PUSHING, REACHING, WALKING, WALKING_DISTILLATION
from teachers.tasks.disturbance import CONDITIONS, RANDOMIZED, Disturbances, Disturbed
from teachers.tasks.engines import Engine
from teachers.tasks.load import absolute_reference
from teachers.tasks.modelling import add_motor
from teachers.tasks.registry import TASKS, get_task, reopen_task, task_names

__all__ = [
    "CONDITIONS",
    "FLYING",
    "PUSHING",
    "RANDOMIZED",
    "REACHING",
    "TASKS",
    "WALKING",
    "WALKING_DISTILLATION",
    "Camera",
    "Disturbances",
    "Disturbed",
    "Engine",
    "Field",
    "GoalSet",
    "Physics",
    "Sensor",
    "State",
    "Task",
    "absolute_reference",
    "add_motor",
    "get_task",
    "namespace",
    "reopen_task",
    "slices",
    "task_names",
]
