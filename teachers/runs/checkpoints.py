"""Orbax checkpoints that describe themselves: what they hold, and how they are opened.

A run's folder holds `checkpoints/STEP/` with the items `metadata` and `checksums` (JSON), `params` (the networks) and,
for runs that can be resumed, `training` (all else of the training state) and `replay`. Reading an artefact touches the
first three alone.
"""

import gc
import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import jax
import orbax.checkpoint as ocp
from etils import epath

from teachers.runs.devices import replicated
from teachers.runs.errors import InputError
from teachers.runs.fingerprint import fingerprint
from teachers.runs.metadata import Metadata, parse_metadata
from teachers.runs.paths import absolute, reaching, require_reachable
from teachers.runs.run_log import FOLDER

CHECKSUMS_SINCE = 4  # format version
UNFINISHED = "*.orbax-checkpoint-tmp*"
FINISHED = (
    "commit_success.txt"  # in place of a rename, where Orbax finds no rename in one: on gs://
)
BEST_BY = "time_at_goal"

Which = (
    int | Literal["newest", "best"]
)  # of a run's checkpoints, a number being that of control steps
Result = TypeVar("Result")


class DamagedError(InputError):
    """A checkpoint cannot be read, or is no longer what was saved."""


class CheckpointWarning(UserWarning):
    """A checkpoint is passed over, or holds less than usual."""


def checkpoint_steps(run: epath.PathLike) -> list[int]:
    """Control steps of a run's finished checkpoints, oldest first; empty where there is none."""
    folder = folder_of(run)
    if not folder.is_dir():
        return []
    found = [entry for entry in folder.iterdir() if entry.name.isdecimal()]
    return sorted(int(entry.name) for entry in found if ocp.utils.is_checkpoint_finalized(entry))


def require_steps(run: epath.PathLike) -> list[int]:
    """`checkpoint_steps` of a run that has some.

    Raises:
        InputError: `run` does not exist or holds no checkpoint.
    """
    require_reachable(run)
    with reaching(run):
        if not epath.Path(run).exists():
            raise InputError(
                f"{run} does not exist; give the folder of a teacher's or student's run"
            )
        steps = checkpoint_steps(run)
        if not steps and (unmarked := _unmarked(run)):
            raise InputError(
                f"{run} holds no finished checkpoint: {unmarked[-1]} was interrupted, or copied there from another "
                "kind of storage, which `crl-distill share pack` and `unpack` do well"
            )
    if not steps:
        raise InputError(
            f"{run} holds no checkpoint; give the folder of a teacher's or student's run"
        )
    return steps


def best_step(run: epath.PathLike) -> int | None:
    """Control step of the checkpoint with the highest time at goal; None where none was evaluated at its own step."""
    return next(reversed(_by_score(run)), None)


def _by_score(run: epath.PathLike) -> list[int]:
    """Control steps of the checkpoints that were evaluated at their own step, the best last."""
    scored = [(_score(run, step), step) for step in checkpoint_steps(run)]
    return [step for _, step in sorted((own, step) for own, step in scored if own is not None)]


def _score(run: epath.PathLike, step: int) -> float | None:
    try:
        return score(read_metadata(run, step))
    except InputError:  # damaged, or not ours
        return None


def score(metadata: Metadata) -> float | None:
    """The time at goal of a checkpoint; None where it was not evaluated at its own step."""
    figures = metadata.metrics
    # Between evaluations the figures are those of an earlier step.
    if figures.get("evaluated_at", figures.get("steps")) != figures.get("steps"):
        return None
    return figures.get(BEST_BY)


def newest_readable(run: epath.PathLike, read: Callable[[int], Result], which: Which) -> Result:
    """What `read` makes of one of a run's checkpoints; a damaged newest or best one is passed over with a warning.

    Args:
        run: the run's folder.
        read: from a checkpoint's control step.
        which: of the checkpoints.

    Raises:
        InputError: there is no such checkpoint.
        DamagedError: it is damaged; where the newest or best was asked for, all are.
    """
    steps = require_steps(run)
    if which == "best":
        steps = _by_score(run)
        if not steps:
            raise InputError(
                f"no checkpoint in {run} was evaluated at its own step; choose another than 'best'"
            )
    elif which != "newest":
        if which not in steps:
            known = ", ".join(map(str, steps))
            raise InputError(f"{run} has no checkpoint {which}; it has {known}")
        return read(which)
    for step, before in zip(steps[::-1], steps[-2::-1], strict=False):
        try:
            return read(step)
        except DamagedError as error:
            warn(f"{error}; using {before}")
    return read(steps[0])


def warn(message: str) -> None:
    """Says what a user should know of a checkpoint; of several processes the first one does."""
    if jax.process_index() == 0:
        warnings.warn(message, CheckpointWarning, stacklevel=3)


def set_aside(run: epath.PathLike, step: int) -> None:
    """Takes a damaged checkpoint out of the way of new ones, without removing it."""
    place = folder_of(run) / str(step)
    aside = place.with_name(f"{step}.damaged")
    if aside.exists():
        aside.rmtree()
    place.rename(aside)


def drop_later(run: epath.PathLike, step: int) -> None:
    """Removes the checkpoints of a run that were made after control step `step`."""
    for later in checkpoint_steps(run):
        if later > step:
            (folder_of(run) / str(later)).rmtree()


def remove_unfinished(run: epath.PathLike) -> list[str]:
    """Removes what a killed or failed save left half written, and gives its names."""
    if jax.process_index() or not folder_of(run).is_dir():
        return []
    found = [*folder_of(run).glob(UNFINISHED), *_unmarked(run)]
    for each in found:
        each.rmtree(missing_ok=True)
    return sorted(each.name for each in found)


def _unmarked(run: epath.PathLike) -> list[epath.Path]:
    """Checkpoints that lack the mark of being finished, where it is by a mark that they are."""
    folder = folder_of(run)
    if not ocp.utils.is_gcs_path(folder) or not folder.is_dir():
        return []
    found = [entry for entry in folder.iterdir() if entry.name.isdecimal()]
    return sorted(entry for entry in found if not (entry / FINISHED).exists())


def mark_finished(run: epath.PathLike) -> None:
    """Marks all checkpoints of a run as finished, where they have come from storage that needs no mark."""
    for place in _unmarked(run):
        (place / FINISHED).write_text("")


def forget_training(run: epath.PathLike) -> None:
    """Removes from a run's checkpoints the state to resume from, which is most of them; the agent stays."""
    for step in checkpoint_steps(run):
        for item in ("training", "replay"):
            (folder_of(run) / str(step) / item).rmtree(missing_ok=True)


def has_item(run: epath.PathLike, step: int, item: str) -> bool:
    """Whether a run's checkpoint of control step `step` holds an item."""
    return bool((folder_of(run) / str(step) / item).is_dir())


def saved_parts(run: epath.PathLike, step: int) -> set[str]:
    """The items that a run's checkpoint of control step `step` was saved with.

    Raises:
        DamagedError: that cannot be read.
    """
    return set(_checksums(run, step))


def read_metadata(run: epath.PathLike, step: int | None = None) -> Metadata:
    """The description in a run's checkpoint of control step `step`, by default the newest.

    Raises:
        InputError: `run` is not the folder of a run, or of a newer format.
        DamagedError: the checkpoint is damaged.
    """
    step = require_steps(run)[-1] if step is None else step
    raw = _restore(run, step, {"metadata": ocp.args.JsonRestore()})["metadata"]
    if has_item(run, step, "checksums"):
        # First of all, so that damage is not taken for a format of the future.
        _compare(run, step, "metadata", checksum(raw))
    metadata = parse_metadata(raw, str(run))
    if metadata.format_version >= CHECKSUMS_SINCE and not has_item(run, step, "checksums"):
        raise DamagedError(f"checkpoint {step} in {run} is damaged: it lacks checksums")
    return metadata


def read_items(
    run: epath.PathLike, step: int, like: Mapping[str, Any], metadata: Metadata
) -> dict[str, Any]:
    """Items of a run's checkpoint, each checked against what was saved.

    Args:
        run: the run's folder.
        step: control step of the checkpoint.
        like: by the item's name, a pytree of the same structure, of `jax.ShapeDtypeStruct`; arrays are placed as their
            `sharding` says, by default on every device.
        metadata: the checkpoint's.

    Raises:
        DamagedError: the checkpoint does not hold them, or not as they were saved.
    """
    args = {name: ocp.args.StandardRestore(_placed(tree)) for name, tree in like.items()}
    items = _restore(run, step, args)
    for name, tree in items.items():
        if metadata.format_version >= CHECKSUMS_SINCE:
            _compare(run, step, name, fingerprint(tree))
    return items


def read_params(run: epath.PathLike, step: int, like: Any, metadata: Metadata) -> Any:
    """The parameters in a run's checkpoint, on every device.

    Args:
        run: the run's folder.
        step: control step of the checkpoint.
        like: the shapes of the parameters.
        metadata: the checkpoint's.

    Raises:
        DamagedError: the checkpoint does not hold them, or not as they were saved.
    """
    return read_items(run, step, {"params": like}, metadata)["params"]


def require_kind(run: epath.PathLike, kind: str, step: int | None = None) -> Metadata:
    """The description of an artefact that has to be of this kind, in its checkpoint of `step` or the newest.

    Raises:
        InputError: it is of another, or no artefact at all.
    """
    metadata = read_metadata(run, step)
    if metadata.kind != kind:
        raise InputError(
            f"{run} holds a {metadata.kind}, not a {kind}; give the folder of a {kind}"
        )
    return metadata


def folder_of(run: epath.PathLike) -> epath.Path:
    """Where a run's checkpoints lie."""
    return absolute(run) / FOLDER  # Orbax wants it so


def checksum(described: Any) -> str:
    """Of JSON values, such as metadata."""
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def _checksums(run: epath.PathLike, step: int) -> dict[str, Any]:
    """What was written of each item when it was saved."""
    saved = _restore(run, step, {"checksums": ocp.args.JsonRestore()})["checksums"]
    return saved if isinstance(saved, dict) else {}


def _compare(run: epath.PathLike, step: int, item: str, found: str) -> None:
    if _checksums(run, step).get(item) != found:
        raise DamagedError(f"checkpoint {step} in {run} is damaged: {item} are not those saved")


def _restore(run: epath.PathLike, step: int, args: Mapping[str, Any]) -> dict[str, Any]:
    try:
        with _quiet(), ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            restored = checkpointer.restore(
                folder_of(run) / str(step), args=ocp.args.Composite(**args)
            )
            items = {name: restored[name] for name in args}
    except (MemoryError, jax.errors.JaxRuntimeError):  # too little memory is no damage
        raise
    except Exception as error:  # damaged files make Orbax and TensorStore raise about anything
        raise DamagedError(
            f"checkpoint {step} in {run} is damaged: cannot read {', '.join(args)}"
        ) from error
    if missing := [name for name, item in items.items() if item is None]:
        raise DamagedError(f"checkpoint {step} in {run} is damaged: it lacks {', '.join(missing)}")
    return items


@contextmanager
def _quiet() -> Iterator[None]:
    """Without asyncio's log: of one damaged file, Orbax leaves there pages about all the arrays that it was reading."""

    def nothing(_: logging.LogRecord) -> bool:
        return False

    log = logging.getLogger("asyncio")
    log.addFilter(nothing)
    try:
        yield
    except Exception:
        gc.collect()  # what is left of those reads speaks up when it is collected
        raise
    finally:
        log.removeFilter(nothing)


def _placed(like: Any) -> Any:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or replicated()), like
    )
