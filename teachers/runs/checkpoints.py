"""Reading Orbax checkpoints that describe themselves, and telling damaged ones.

Reading an artefact touches its items `metadata`, `checksums` and `params` alone; see `teachers.runs.checkpoint_files`.
"""

import gc
import hashlib
import json
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from teachers.runs.checkpoint_files import has_item, require_checkpoints
from teachers.runs.checkpoint_readable import UnreadableError, require_readable
from teachers.runs.devices import replicated, require_backend
from teachers.runs.errors import InputError
from teachers.runs.fingerprint import fingerprint
from teachers.runs.layout import checkpoints_folder
from teachers.runs.metadata import Metadata, parse_metadata
from teachers.runs.paths import require_utf8

CHECKSUMS_SINCE = 4  # the first format version with checksums


class DamagedError(InputError):
    """A checkpoint cannot be read, or differs from what was saved."""


class CheckpointWarning(UserWarning):
    """A checkpoint is passed over, or holds less than usual."""


def warn_on_main_process(message: str) -> None:
    """Issues a `CheckpointWarning`; where several processes train together, the first one does so alone."""
    if jax.process_index() == 0:
        warnings.warn(message, CheckpointWarning, stacklevel=3)


def read_metadata(run: epath.PathLike, step: int | None = None) -> Metadata:
    """Returns the description in a run's checkpoint of control step `step`, by default the newest.

    Raises:
        InputError: `run` is not the folder of a run, or of a newer format.
        DamagedError: the checkpoint is damaged.
    """
    step = require_checkpoints(run)[-1] if step is None else step
    raw = _restore_items(run, step, {"metadata": ocp.args.JsonRestore()})["metadata"]
    if has_item(run, step, "checksums"):
        # Before the format is looked at, so that damage is not taken for a newer format.
        _require_checksum(run, step, "metadata", json_digest(raw))
    metadata = parse_metadata(raw, str(run))
    if metadata.format_version >= CHECKSUMS_SINCE and not has_item(run, step, "checksums"):
        raise DamagedError(f"checkpoint {step} in {run} is damaged: it lacks checksums")
    return metadata


def require_kind(run: epath.PathLike, kind: str, step: int | None = None) -> Metadata:
    """Returns the description of a checkpoint that must be of the given kind.

    Args:
        run: the run's folder.
        kind: teacher or student.
        step: control step of the checkpoint, by default the newest.

    Raises:
        InputError: it is of another kind, or no artefact at all.
        DamagedError: the checkpoint is damaged.
    """
    metadata = read_metadata(run, step)
    if metadata.kind != kind:
        raise InputError(
            f"{run} holds a {metadata.kind}, not a {kind}; give the folder of a {kind}"
        )
    return metadata


def read_items(
    run: epath.PathLike, step: int, like: Mapping[str, Any], metadata: Metadata
) -> dict[str, Any]:
    """Reads items of a run's checkpoint, and compares each with its checksum.

    Args:
        run: the run's folder.
        step: control step of the checkpoint.
        like: by the item's name, a pytree of `jax.ShapeDtypeStruct` with the item's structure; arrays are placed on
            devices as their `sharding` says, by default on every device.
        metadata: the checkpoint's description.

    Returns:
        The items by name.

    Raises:
        DamagedError: the checkpoint lacks an item, or an item differs from what was saved.
        UnreadableError: it cannot be read now, or holds 64-bit numbers.
    """
    args = {name: ocp.args.StandardRestore(_with_sharding(tree)) for name, tree in like.items()}
    items = _restore_items(run, step, args)
    if metadata.format_version >= CHECKSUMS_SINCE:
        for name, tree in items.items():
            try:
                _require_checksum(run, step, name, fingerprint(tree))
            except DamagedError:
                _require_32_bits(run, step, name)
                raise
    return items


def read_params(run: epath.PathLike, step: int, like: Any, metadata: Metadata) -> Any:
    """Reads the parameters in a run's checkpoint onto every device.

    Args:
        run: the run's folder.
        step: control step of the checkpoint.
        like: pytree of the parameters' shapes.
        metadata: the checkpoint's description.

    Raises:
        DamagedError: the checkpoint lacks them, or they differ from what was saved.
    """
    return read_items(run, step, {"params": like}, metadata)["params"]


def saved_item_names(run: epath.PathLike, step: int) -> set[str]:
    """Returns the names of the items that a checkpoint was saved with, whether or not they are still there.

    Raises:
        DamagedError: the list cannot be read.
    """
    return set(_read_checksums(run, step))


def was_saved_with(run: epath.PathLike, step: int, item: str, path: Sequence[str]) -> bool:
    """Returns whether an item of a checkpoint was saved with a part that checkpoints of early versions lack.

    Args:
        run: the run's folder.
        step: control step of the checkpoint.
        item: the item's name.
        path: the names that lead to the part in the item's pytree.

    Returns:
        True also where the item is damaged and cannot say what it holds; reading it then tells so.

    Raises:
        UnreadableError: the item cannot be read now, and need not be damaged.
    """
    handled = sys.exc_info()[1]
    try:
        node = _read_structure(run, step, item)
    except Exception as error:  # Orbax raises errors of many types
        require_readable(run, step, [item], error, handled)
        return True
    for name in path:
        if not isinstance(node, Mapping):
            return True
        if name not in node:
            return False
        node = node[name]
    return True


def json_digest(value: Any) -> str:
    """Returns sixteen hexadecimal digits of the SHA-256 of a JSON value, such as metadata."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _read_checksums(run: epath.PathLike, step: int) -> dict[str, Any]:
    """Returns the checksum of each item, by its name, as written when the checkpoint was saved."""
    saved = _restore_items(run, step, {"checksums": ocp.args.JsonRestore()})["checksums"]
    return saved if isinstance(saved, dict) else {}


def _require_checksum(run: epath.PathLike, step: int, item: str, found: str) -> None:
    if _read_checksums(run, step).get(item) != found:
        raise DamagedError(f"checkpoint {step} in {run} is damaged: {item} are not those saved")


def _require_32_bits(run: epath.PathLike, step: int, item: str) -> None:
    """Raises an error if the arrays of an item were saved with 64 bits, which reading them with 32 bits changes.

    Raises:
        UnreadableError: they were.
    """
    types: set[str] = set()
    # What is damaged may have no readable types.
    with suppress(Exception):
        types = {str(leaf.dtype) for leaf in jax.tree.leaves(_read_structure(run, step, item))}
    if types & {"float64", "int64", "uint64"}:
        raise UnreadableError(
            f"checkpoint {step} in {run} holds 64-bit numbers: it was made under JAX_ENABLE_X64 by an older crl-distill, which "
            "alone can read it; train it again"
        )


def _read_structure(run: epath.PathLike, step: int, item: str) -> Any:
    """Returns the pytree of an item, with the shape and type of each array in its place."""
    folder = checkpoints_folder(run) / str(step) / item
    return ocp.StandardCheckpointHandler().metadata(folder).tree


def _restore_items(run: epath.PathLike, step: int, args: Mapping[str, Any]) -> dict[str, Any]:
    """Reads items of a checkpoint with Orbax, and tells damage from all else that can keep it from being read.

    A checkpoint is damaged if all its files can be read and Orbax, tried twice, cannot make sense of what they hold.
    """
    require_backend()
    require_utf8(run)
    handled = sys.exc_info()[1]
    for is_last in (False, True):
        try:
            items = _read_with_orbax(run, step, args)
            break
        except (MemoryError, jax.errors.JaxRuntimeError):  # too little memory is not damage
            raise
        except Exception as error:  # Orbax and TensorStore raise errors of many types
            require_readable(run, step, args, error, handled)
            if is_last:
                raise DamagedError(
                    f"checkpoint {step} in {run} is damaged: cannot read {', '.join(args)}"
                ) from error
    if missing := [name for name, item in items.items() if item is None]:
        raise DamagedError(f"checkpoint {step} in {run} is damaged: it lacks {', '.join(missing)}")
    return items


def _read_with_orbax(run: epath.PathLike, step: int, args: Mapping[str, Any]) -> dict[str, Any]:
    with _mute_asyncio_log(), ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        restored = checkpointer.restore(
            checkpoints_folder(run) / str(step), args=ocp.args.Composite(**args)
        )
        return {name: restored[name] for name in args}


@contextmanager
def _mute_asyncio_log() -> Iterator[None]:
    """Drops asyncio's log records: for one damaged file, Orbax logs pages about all arrays that it was reading."""

    def drop(_: logging.LogRecord) -> bool:
        return False

    log = logging.getLogger("asyncio")
    log.addFilter(drop)
    try:
        yield
    except Exception:
        gc.collect()  # the unfinished reads log their errors when they are collected
        raise
    finally:
        log.removeFilter(drop)


def _with_sharding(like: Any) -> Any:
    """Returns the same shapes, with arrays that have no sharding placed on every device."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or replicated()), like
    )
