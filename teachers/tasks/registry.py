"""Finds tasks by name or file: those of this project, of installed packages, and of the user's files."""

import difflib
import warnings
from collections.abc import Mapping
from functools import cache
from typing import Any

from etils import epath

from teachers.process import in_32_bits
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
    NAME_FILE_HINT,
    REFERENCE_FORMAT,
    describe_origin,
    find_installed_tasks,
    is_file_reference,
    load_file,
    load_installed,
    portable_reference,
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


@in_32_bits
def get_task(reference: str) -> Task:
    """Returns the task of this name or in this file; a process builds each task once.

    Args:
        reference: a name of `TASKS`; the name of an entry point of group `crl_distill.tasks` of an installed
            package; or `path/to/file.py:Class`, which runs the file.

    Raises:
        InputError: there is no such task, or it cannot be built.
    """
    if is_file_reference(reference):
        return _require_unique_name(load_file(reference))
    return _build_named(reference)


@in_32_bits
def reopen_task(name: str, source: str, digest: str = "") -> Task:
    """Returns the task that an artefact names; its file runs only if the user has named that very file before.

    Args:
        name: the task's name.
        source: the file and class that it comes from; empty where the name is enough.
        digest: SHA-256 of the file.

    Raises:
        InputError: there is no such task, its file is not one that the user has named, or it cannot be built.
    """
    if not source:
        return _build_named(name)
    try:
        return _require_unique_name(reload_file(source, digest))
    except InputError as error:
        raise InputError(f"task {name!r}: {error}") from None


def task_names() -> list[str]:
    """Returns the names that `get_task` takes: those of this project, then those of installed packages."""
    return [*TASKS, *(name for name in sorted(find_installed_tasks()) if name not in TASKS)]


@cache
def _build_named(name: str) -> Task:
    if name in TASKS:
        return TASKS[name]()
    names = task_names()
    if name in names:
        return load_installed(name)
    similar = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {similar[0]!r}?" if similar else f"choose one of: {', '.join(names)}"
    raise InputError(f"unknown task {name!r}; {hint} (a task of your own: {REFERENCE_FORMAT})")


def _require_unique_name(task: Task) -> Task:
    if task.name in task_names():
        raise InputError(
            f"{task.source}: name = {task.name!r} is the name of another task; choose another, or give "
            "that name alone for the task that has it"
        )
    return task


def open_task(metadata: Metadata, task: Task | None, source: str) -> tuple[Task, Metadata]:
    """Returns the task of an artefact, and the artefact's metadata with the file that the task came from.

    It warns if that file has changed since the artefact was made, unless `task` is given.

    Args:
        metadata: of the artefact.
        task: to use instead of the one that it names.
        source: the path of the artefact, for messages.

    Raises:
        InputError: its task cannot be loaded (see `teachers.tasks.reopen_task`), or `task` is another task.
    """
    if task is None:
        try:
            task = reopen_task(metadata.task, metadata.task_source, metadata.task_digest)
        except InputError as error:
            raise InputError(f"{source}: {error}") from None
        if metadata.task_digest not in ("", task.source_digest):
            file = task.source.rpartition(":")[0]
            warnings.warn(
                f"{file} has changed since {source} was made with it; it is used as it is now",
                stacklevel=2,
            )
    if task.name != metadata.task:
        raise InputError(
            f"{source} is of task {metadata.task!r}, not {task.name!r}; {NAME_FILE_HINT}, whose `name` is "
            f"{metadata.task!r}"
        )
    if metadata.sizes and metadata.sizes != task.sizes:
        raise InputError(
            f"{source} was made for {_format_sizes(metadata.sizes)}, but task {task.name!r} has "
            f"{_format_sizes(task.sizes)}; give the file as it was with --task, or train again"
        )
    return task, metadata.model_copy(update=_updated_origin(metadata, task))


def require_same_task_file(metadata: Metadata, task: Task, run: epath.PathLike) -> None:
    """Raises an error if a run was made with another file of its task, or with other content of that file.

    Early versions did not note the content, so that their runs pass.

    Raises:
        InputError: it was.
    """
    if metadata.task_digest not in ("", task.source_digest):
        raise InputError(
            f"{run} was made with another file of task {metadata.task!r}, or the file has changed since; give the file as "
            "it was, or choose another --out"
        )


def _updated_origin(metadata: Metadata, task: Task) -> dict[str, Any]:
    """Returns those fields of an artefact's metadata that say where its task comes from, as a new artefact states them."""
    fields: dict[str, Any] = {"task_source": portable_reference(metadata.task_source)}
    if task.source:
        fields = {**describe_origin(task)}
    if fields["task_source"] and "task" in metadata.config:
        fields["config"] = {**metadata.config, "task": fields["task_source"]}
    return fields


def _format_sizes(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {size}" for name, size in sizes.items())
