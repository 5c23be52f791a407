"""Which of a run's checkpoints is used: the newest, the best, or one that the user names."""

from collections.abc import Callable
from typing import Literal, TypeVar

from etils import epath

from teachers.runs.checkpoint_files import checkpoint_steps, require_checkpoints
from teachers.runs.checkpoint_readable import UnreadableError
from teachers.runs.checkpoints import DamagedError, read_metadata, warn_on_main_process
from teachers.runs.errors import InputError
from teachers.runs.metadata import Metadata, as_number

SCORE = "time_at_goal"  # the figure by which the best checkpoint is chosen

CheckpointChoice = int | Literal["newest", "best"]  # a number is a control step
Result = TypeVar("Result")


def checkpoint_score(metadata: Metadata) -> float | None:
    """Returns the time at goal of a checkpoint; None if it was not evaluated at its own step."""
    figures = metadata.metrics
    # Between evaluations, the figures are those of an earlier step.
    if figures.get("evaluated_at", figures.get("steps")) != figures.get("steps"):
        return None
    return as_number(figures.get(SCORE))


def best_step(run: epath.PathLike) -> int | None:
    """Returns the control step of the checkpoint with the highest time at goal.

    Returns:
        None if no checkpoint was evaluated at its own step.
    """
    return next(reversed(_steps_by_score(run)), None)


def read_newest_sound(
    run: epath.PathLike, read: Callable[[int], Result], choice: CheckpointChoice
) -> Result:
    """Reads one of a run's checkpoints; a damaged newest or best one is passed over with a warning.

    Args:
        run: the run's folder.
        read: reads the checkpoint of a control step.
        choice: which of the checkpoints to read.

    Returns:
        What `read` returns.

    Raises:
        InputError: there is no such checkpoint.
        DamagedError: the checkpoint is damaged; if the newest or best was asked for, all are.
    """
    steps = require_checkpoints(run)
    if choice == "best":
        steps = _steps_by_score(run)
        if not steps:
            raise InputError(
                f"no checkpoint in {run} was evaluated at its own step; choose another than 'best'"
            )
    elif choice != "newest":
        if choice not in steps:
            available = ", ".join(map(str, steps))
            raise InputError(f"{run} has no checkpoint {choice}; it has {available}")
        return read(choice)
    for step, next_step in zip(steps[::-1], steps[-2::-1], strict=False):
        try:
            return read(step)
        except DamagedError as error:
            warn_on_main_process(f"{error}; using {next_step}")
    return read(steps[0])


def _steps_by_score(run: epath.PathLike) -> list[int]:
    """Returns the control steps of the checkpoints that were evaluated at their own step, the best last."""
    scored = [(_read_score(run, step), step) for step in checkpoint_steps(run)]
    return [
        step for _, step in sorted((score, step) for score, step in scored if score is not None)
    ]


def _read_score(run: epath.PathLike, step: int) -> float | None:
    try:
        return checkpoint_score(read_metadata(run, step))
    except UnreadableError:
        raise
    except InputError:  # a damaged checkpoint, or one of another program
        return None
