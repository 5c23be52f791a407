"""Finds the checkpoint from which a run, or several runs that are trained at once, can be resumed."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from etils import epath

from teachers.runs.checkpoint_files import (
    checkpoint_steps,
    remove_later_checkpoints,
    remove_unfinished_checkpoints,
    set_damaged_aside,
)
from teachers.runs.checkpoints import DamagedError, warn_on_main_process
from teachers.runs.devices import on_main_process
from teachers.runs.errors import InputError

Content = TypeVar("Content")


@dataclass(frozen=True)
class ResumePoint(Generic[Content]):
    """The newest control step at which all runs have a sound checkpoint.

    Attributes:
        step: the control step.
        contents: what was read of the checkpoint of each run.
        damaged: newer checkpoints that are damaged, as run and step.
    """

    step: int
    contents: list[Content]
    damaged: list[tuple[epath.Path, int]]


def find_resume_point(
    readers: Mapping[epath.Path, Callable[[int], Content]],
) -> ResumePoint[Content] | None:
    """Reads the newest checkpoints that are sound in all runs; damaged ones are passed over with a warning.

    Args:
        readers: for each run's folder, the function that reads its checkpoint of a control step.

    Returns:
        None if a run has no checkpoint at all, because it ended before its first.

    Raises:
        InputError: the runs have no checkpoint of the same step, or all such checkpoints are damaged.
    """
    if not all(checkpoint_steps(run) for run in readers):
        return None
    names = ", ".join(map(str, readers))
    common_steps = set.intersection(*(set(checkpoint_steps(run)) for run in readers))
    if not common_steps:
        raise InputError(f"{names} have no checkpoint of the same step; remove them to start again")
    damaged: list[tuple[epath.Path, int]] = []
    for step in sorted(common_steps, reverse=True):
        contents: list[Content] = []
        for run, read in readers.items():
            try:
                contents.append(read(step))
            except DamagedError as error:
                damaged.append((run, step))
                warn_on_main_process(f"{error}; looking for the one before it")
                break
        if len(contents) == len(readers):
            return ResumePoint(step, contents, damaged)
    raise InputError(f"all checkpoints of {names} are damaged; remove them to start again")


def prepare_folders(runs: Collection[epath.Path], point: ResumePoint[Content]) -> None:
    """Removes what the runs wrote after the checkpoint from which they are resumed, and renames damaged checkpoints."""

    def prepare() -> None:
        for run, step in point.damaged:
            set_damaged_aside(run, step)
        for run in runs:
            for name in remove_unfinished_checkpoints(run):
                warn_on_main_process(
                    f"{name} in {run} was not finished when the run ended; going on from {point.step}"
                )
            remove_later_checkpoints(run, point.step)

    on_main_process(prepare)
