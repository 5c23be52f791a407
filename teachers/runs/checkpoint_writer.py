"""Writing checkpoints in the background; each is complete or absent, and a full disk leaves the earlier ones intact."""

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

from teachers.runs.checkpoint_choice import best_step, checkpoint_score
from teachers.runs.checkpoint_files import remove_unfinished_checkpoints
from teachers.runs.checkpoints import json_digest, read_metadata
from teachers.runs.errors import RESUME_ADVICE, SaveError
from teachers.runs.fingerprint import fingerprint
from teachers.runs.layout import checkpoints_folder
from teachers.runs.lock import lock_is_lost, require_lock
from teachers.runs.metadata import Metadata

DISK_FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class CheckpointWriter:
    """Saves checkpoints of a run, each atomically.

    Use it as a context manager: at the end of the block it waits for the last save.
    """

    def __init__(self, run: epath.PathLike, keep: int = 1, *, keep_best: bool = False) -> None:
        """Opens a run's folder for writing.

        Args:
            run: the folder.
            keep: how many of the newest checkpoints to keep.
            keep_best: whether to keep also the one with the highest time at goal, of those that were evaluated at their
                own step.

        Raises:
            SaveError: the folder cannot be written.
        """
        self._run = epath.Path(run)
        best = best_step(run) if keep_best else None
        self._best_score = None if best is None else checkpoint_score(read_metadata(run, best))
        self._policy = _NewestAndBest(keep, best)
        self._keep_best = keep_best
        options = ocp.CheckpointManagerOptions(preservation_policy=self._policy)
        with _translate_write_errors(self._run):
            self._manager = ocp.CheckpointManager(checkpoints_folder(run), options=options)

    def save(self, step: int, metadata: Metadata, items: Mapping[str, Any]) -> None:
        """Starts writing a checkpoint; the arrays may be donated once this returns.

        Args:
            step: control steps.
            metadata: the checkpoint's description.
            items: pytrees by name, `params` among them.

        Raises:
            SaveError: this checkpoint, or the one before it, cannot be written, or another process has taken the run over.
        """
        require_lock(self._run)
        description = metadata.model_dump()
        checksums = {name: fingerprint(tree) for name, tree in items.items()}
        checksums["metadata"] = json_digest(description)
        args = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        args |= {
            "metadata": ocp.args.JsonSave(description),
            "checksums": ocp.args.JsonSave(checksums),
        }
        self.check_for_errors()
        score = checkpoint_score(metadata)
        if score is not None and self._is_best(score):
            self._best_score, self._policy.best = score, step
        with _delay_interrupts(), _translate_write_errors(self._run):
            self._manager.save(step, args=ocp.args.Composite(**args))

    def is_saving(self) -> bool:
        """Returns whether a save is still running in the background."""
        return bool(self._manager.is_saving_in_progress())

    def check_for_errors(self) -> None:
        """Raises the error of a save that has failed in the background.

        Raises:
            SaveError: the checkpoint could not be written.
        """
        # While a save is running, asking for errors would hide them from the thread that removes old checkpoints next.
        if not self.is_saving():
            with _translate_write_errors(self._run):
                self._manager.wait_until_finished()

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with _delay_interrupts():
            try:
                with _translate_write_errors(self._run):
                    self._manager.wait_until_finished()
            except SaveError as failed:
                if error is None:
                    raise
                error.add_note(str(failed))  # the error that ended the run stays the first
            finally:
                with suppress(Exception):  # the same error was raised above
                    self._manager.close()

    def _is_best(self, score: float) -> bool:
        return self._keep_best and (self._best_score is None or score >= self._best_score)


class _NewestAndBest(ocp.checkpoint_managers.PreservationPolicy):
    """Preserves the newest of a run's checkpoints, and the best one."""

    def __init__(self, newest: int, best: int | None) -> None:
        self.newest, self.best = newest, best

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        """Returns for each checkpoint whether it is preserved."""
        steps = [checkpoint.step for checkpoint in checkpoints]
        newest = sorted(steps)[-self.newest :]
        return [step in newest or step == self.best for step in steps]


@contextmanager
def _translate_write_errors(run: epath.Path) -> Iterator[None]:
    """Turns errors of Orbax into a `SaveError` of one line, and removes what the failed save left half-written."""
    try:
        yield
    except Exception as error:  # each kind of storage raises errors of its own
        if not lock_is_lost(run):  # else they are another process's
            with suppress(Exception):  # the storage may be out of reach
                remove_unfinished_checkpoints(run)
        reason = (
            "the disk is full" if means_full_disk(error) else str(error).strip().partition("\n")[0]
        )
        raise SaveError(
            f"cannot write a checkpoint in {run}: {reason}; make room there; {RESUME_ADVICE} "
            "(the checkpoints before it are intact)"
        ) from error


def means_full_disk(error: BaseException) -> bool:
    """Returns whether an error, or one that caused it, says that the disk or the user's quota is full."""
    if isinstance(error, OSError) and error.errno:
        return error.errno in DISK_FULL_ERRORS
    # TensorStore gives the reason in words alone.
    if any(os.strerror(number) in str(error) for number in DISK_FULL_ERRORS):
        return True
    cause = error.__cause__ or error.__context__
    return cause is not None and means_full_disk(cause)


@contextmanager
def _delay_interrupts() -> Iterator[None]:
    """Delays Ctrl-C until the block is done, because it would leave a save half-written."""
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
