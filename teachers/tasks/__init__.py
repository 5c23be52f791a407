"""The goal-reaching tasks, on MJX, by name."""

import difflib
from functools import cache

from teachers.tasks.ant import (
    Ant,
    AntBall,
    AntBigMaze,
    AntHardestMaze,
    AntPush,
    AntU4Maze,
    AntU5Maze,
    AntUMaze,
)
from teachers.tasks.arm import (
    ArmBinpickEasy,
    ArmBinpickHard,
    ArmGrasp,
    ArmPushEasy,
    ArmPushHard,
    ArmReach,
)
from teachers.tasks.base import Camera, Field, GoalSet, Physics, State, Task, slices
from teachers.tasks.cheetah import Cheetah
from teachers.tasks.errors import InputError
from teachers.tasks.humanoid import (
    Humanoid,
    HumanoidBigMaze,
    HumanoidHardestMaze,
    HumanoidUMaze,
)
from teachers.tasks.point_maze import PointBigMaze, PointHardestMaze, PointUMaze
from teachers.tasks.pusher import PusherEasy, PusherHard
from teachers.tasks.reacher import Reacher

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        Reacher,
        PusherEasy,
        PusherHard,
        PointUMaze,
        PointBigMaze,
        PointHardestMaze,
        Ant,
        AntUMaze,
        AntU4Maze,
        AntU5Maze,
        AntBigMaze,
        AntHardestMaze,
        AntBall,
        AntPush,
        Humanoid,
        HumanoidUMaze,
        HumanoidBigMaze,
        HumanoidHardestMaze,
        ArmReach,
        ArmPushEasy,
        ArmPushHard,
        ArmBinpickEasy,
        ArmBinpickHard,
        ArmGrasp,
        Cheetah,
    )
}


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
