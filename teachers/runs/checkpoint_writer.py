"""Writing checkpoints: in the background, each atomically, old ones removed, a full disk survived."""

import errno
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

import orbax.checkpoint as ocp
from etils import epath

from teachers.runs.checkpoints import (
    best_step,
    checksum,
    folder_of,
    read_metadata,
    remove_unfinished,
    score,
)
from teachers.runs.errors import SaveError
from teachers.runs.fingerprint import fingerprint
from teachers.runs.metadata import Metadata

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class CheckpointWriter:
    """Saves checkpoints of a run, each atomically. Use it as a context manager: leaving it waits for the last."""

    def __init__(self, run: epath.PathLike, keep: int = 1, *, keep_best: bool = False) -> None:
        """Opens a run's folder for writing.

        Args:
            run: the folder.
            keep: newest checkpoints to keep.
            keep_best: keep also the one with the highest time at goal, of those evaluated at their own step.
        """
        self._run = epath.Path(run)
        best = best_step(run) if keep_best else None
        self._best = None if best is None else score(read_metadata(run, best))
        self._kept = _Kept(keep, best)
        self._keep_best = keep_best
        options = ocp.CheckpointManagerOptions(preservation_policy=self._kept)
        with _explained(self._run):
            self._manager = ocp.CheckpointManager(folder_of(run), options=options)

    def save(self, step: int, metadata: Metadata, items: Mapping[str, Any]) -> None:
        """Starts writing a checkpoint; the arrays may be donated once this returns.

        Args:
            step: control steps.
            metadata: what it is.
            items: pytrees by name, `params` among them.

        Raises:
            SaveError: this one, or the one before it, cannot be written.
        """
        described = metadata.model_dump()
        checksums = {name: fingerprint(tree) for name, tree in items.items()}
        checksums["metadata"] = checksum(described)
        args = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        args |= {
            "metadata": ocp.args.JsonSave(described),
            "checksums": ocp.args.JsonSave(checksums),
        }
        self.check()
        own = score(metadata)
        if self._keep_best and own is not None and (self._best is None or own >= self._best):
            self._best, self._kept.best = own, step
        with _uninterrupted(), _explained(self._run):
            self._manager.save(step, args=ocp.args.Composite(**args))

    def check(self) -> None:
        """Raises what went wrong while a checkpoint was written in the background.

        Raises:
            SaveError: it could not be written.
        """
        # Asking the manager for errors would take them from the thread that then removes old checkpoints.
        if not self._manager.is_saving_in_progress():
            with _explained(self._run):
                self._manager.wait_until_finished()

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with _uninterrupted():
            try:
                with _explained(self._run):
                    self._manager.wait_until_finished()
            except SaveError as failed:
                if error is None:
                    raise
                error.add_note(str(failed))  # what ended the run is said first
            finally:
                with suppress(Exception):  # said above
                    self._manager.close()


class _Kept(ocp.checkpoint_managers.PreservationPolicy):
    """Of a run's checkpoints, the newest and the best one."""

    def __init__(self, newest: int, best: int | None) -> None:
        self.newest, self.best = newest, best

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        """Which of the checkpoints are kept."""
        newest = sorted(each.step for each in checkpoints)[-self.newest :]
        return [each.step in newest or each.step == self.best for each in checkpoints]


@contextmanager
def _explained(run: epath.Path) -> Iterator[None]:
    """Turns what Orbax raises while it writes into one clear line, and removes what it left half written."""
    try:
        yield
    except Exception as error:  # whatever the storage behind the path raises
        with suppress(Exception):  # whose storage may be out of reach
            remove_unfinished(run)
        reason = "the disk is full" if is_full(error) else str(error).strip().partition("\n")[0]
        raise SaveError(
            f"cannot write a checkpoint in {run}: {reason}; make room there and go on with --resume "
            "(the checkpoints before it are intact)"
        ) from error


def is_full(error: BaseException) -> bool:
    """Whether something could not be written for want of room."""
    if isinstance(error, OSError) and error.errno:
        return error.errno in FULL
    if any(os.strerror(number) in str(error) for number in FULL):  # as TensorStore says it
        return True
    inner = error.__cause__ or error.__context__
    return inner is not None and is_full(inner)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Lets Ctrl-C wait until the block is done: inside a save it would leave it half written."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: arrived.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if arrived:
        raise KeyboardInterrupt
