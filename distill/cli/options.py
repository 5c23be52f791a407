"""Options that several commands share, and what turns their values into arguments of Python calls."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:  # these imports are slow, and help should answer at once
    from teachers.runs.checkpoint_choice import CheckpointChoice
    from teachers.tasks import Task

Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of all random numbers.")]
TrainingSeed = Annotated[int | None, typer.Option("--seed", help="Seed of all random numbers.")]
Episodes = Annotated[int, typer.Option(min=1, max=100_000, help="Number of episodes to play.")]
ConfigFile = Annotated[
    str | None,
    typer.Option("--config", metavar="PATH", help="TOML file with any field of the configuration."),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="One field, as section.key=value; may be repeated and wins over --config."
    ),
]
TaskOption = Annotated[
    str | None,
    typer.Option(
        "--task", help="FILE.py:Class or a name, to use in place of the task named in PATH."
    ),
]
Checkpoint = Annotated[
    str,
    typer.Option(
        help="Checkpoint of a run: newest, best (with the most time at goal), or its control step."
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON value on stdout and nothing else there.")
]
Force = Annotated[
    bool, typer.Option("--force", help="Distill a teacher even if it hardly ever reaches its goal.")
]
Physics = Annotated[
    str | None,
    typer.Option(
        help="Engine that simulates: c (MuJoCo C), jax or warp (MJX), or auto: c on a CPU, else jax."
    ),
]
Coordinator = Annotated[
    str | None,
    typer.Option(
        envvar="JAX_COORDINATOR_ADDRESS",
        help="HOST:PORT of the first of several processes that train together.",
    ),
]
Processes = Annotated[
    int | None,
    typer.Option(
        min=1, envvar="JAX_NUM_PROCESSES", help="Number of processes that train together."
    ),
]
Process = Annotated[
    int | None,
    typer.Option(min=0, envvar="JAX_PROCESS_ID", help="Index of this process, from 0."),
]


def drop_unset(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options that the user gave: those that are not None."""
    return {key: value for key, value in options.items() if value is not None}


def parse_checkpoint(checkpoint: str) -> "CheckpointChoice":
    """Returns the checkpoint that `--checkpoint` names, as `load_teacher` takes it.

    Raises:
        InputError: the value is neither `newest` nor `best` nor a control step.
    """
    from teachers.runs.errors import InputError

    if checkpoint.isdecimal():
        return int(checkpoint)
    if checkpoint in ("newest", "best"):
        return cast("CheckpointChoice", checkpoint)
    raise InputError(f"--checkpoint {checkpoint!r}: give newest, best, or the control step of one")


def parse_task(task: str | None) -> "Task | None":
    """Returns the task that `--task` names, or None where the option is not given."""
    from teachers.tasks.registry import get_task

    return None if task is None else get_task(task)
