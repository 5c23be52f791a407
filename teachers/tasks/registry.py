"""Tasks by name: those of this project, of installed packages, and of files of the user's own."""

import difflib
from collections.abc import Mapping
from functools import cache

from teachers.runs.errors import InputError
from teachers.runs.metadata import Metadata
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
from teachers.tasks.base import Task
from teachers.tasks.cheetah import Cheetah
from teachers.tasks.humanoid import (
    Humanoid,
    HumanoidBigMaze,
    HumanoidHardestMaze,
    HumanoidUMaze,
)
from teachers.tasks.load import (
    FORM,
    REMEDY,
    installed_tasks,
    is_file_reference,
    load_file,
    load_installed,
    reload_file,
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


def get_task(reference: str) -> Task:
    """The task of this name or in this file, built once a process.

    Args:
        reference: a name of `TASKS`; the name of an entry point of group `crl_distill.tasks` of an installed
            package; or `path/to/file.py:Class`, which runs the file.

    Raises:
        InputError: there is no such task, or it cannot be built.
    """
    if is_file_reference(reference):
        return _unambiguous(load_file(reference))
    return _named(reference)


def reopen_task(name: str, source: str) -> Task:
    """The task that an artefact names. Its file runs only if the user has named that very file before.

    Args:
        name: the task's name.
        source: the file and class that it comes from; empty where its name says it all.

    Raises:
        InputError: there is no such task, its file is not one that the user has named, or it cannot be built.
    """
    if not source:
        return _named(name)
    try:
        return _unambiguous(reload_file(source))
    except InputError as error:
        raise InputError(f"task {name!r}: {error}") from None


def task_names() -> list[str]:
    """The names that `get_task` takes: ours, then those of installed packages."""
    return [*TASKS, *(name for name in sorted(installed_tasks()) if name not in TASKS)]


@cache
def _named(name: str) -> Task:
    if name in TASKS:
        return TASKS[name]()
    names = task_names()
    if name in names:
        return load_installed(name)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose one of: {', '.join(names)}"
    raise InputError(f"unknown task {name!r}; {hint} (your own: {FORM})")


def _unambiguous(task: Task) -> Task:
    if task.name in task_names():
        raise InputError(
            f"{task.source}: name = {task.name!r} is the name of another task; choose one of its own, or give "
            "that name alone for the task that has it"
        )
    return task


def open_task(metadata: Metadata, task: Task | None, source: str) -> tuple[Task, Metadata]:
    """The task of an artefact, and its description with the place where the task was found.

    Args:
        metadata: the artefact's.
        task: to use in place of the one that it names.
        source: where the artefact is.

    Raises:
        InputError: its task cannot be opened (see `teachers.tasks.reopen_task`), or `task` is not that task.
    """
    if task is None:
        try:
            task = reopen_task(metadata.task, metadata.task_source)
        except InputError as error:
            raise InputError(f"{source}: {error}") from None
    if task.name != metadata.task:
        raise InputError(
            f"{source} is of task {metadata.task!r}, not {task.name!r}; {REMEDY}, whose `name` is "
            f"{metadata.task!r}"
        )
    if metadata.sizes and metadata.sizes != task.sizes:
        raise InputError(
            f"{source} was made for {_counted(metadata.sizes)}, but task {task.name!r} has "
            f"{_counted(task.sizes)}; give the file as it was with --task, or train again"
        )
    return task, metadata.model_copy(update={"task_source": task.source or metadata.task_source})


def _counted(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {size}" for name, size in sizes.items())
