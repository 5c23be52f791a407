"""The log of a run: its configuration, metrics.jsonl and TensorBoard events.

Logs grow line by line, which storage in a cloud does not support. The log of a run in a cloud grows in a local folder,
which is copied to the cloud at every checkpoint.
"""

import json
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from etils import epath
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from teachers.runs.configuration import Config
from teachers.runs.errors import RESUME_ADVICE, InputError, SaveError
from teachers.runs.layout import CONFIG, METRICS
from teachers.runs.lock import lock_is_lost
from teachers.runs.metadata import replace_non_finite
from teachers.runs.outputs import write_atomically
from teachers.runs.paths import is_local, translate_storage_errors


class RunLog:
    """Appends metrics to a run's folder. Use it as a context manager."""

    def __init__(self, out: epath.PathLike, config: Config, resume_at: int | None = None) -> None:
        """Opens the log of a run in `out`.

        Args:
            out: the run's folder.
            config: the run's configuration, which is written to `config.toml`.
            resume_at: control step of the checkpoint from which the run is resumed; later lines are dropped.
        """
        self._out = epath.Path(out)
        self._local = Path(out) if is_local(out) else Path(tempfile.mkdtemp())
        rows = [] if resume_at is None else _rows_until(self._out, resume_at)
        write_atomically(self._out / CONFIG, config.to_toml())
        write_atomically(self._local / METRICS, "".join(json.dumps(row) + "\n" for row in rows))
        self._file = (self._local / METRICS).open("a", encoding="utf-8")
        # Events are written in this thread. The library's own thread would end at a full disk, and the run would then
        # wait for it without end.
        self._events = EventsWriter(str(self._local / "events"))
        if resume_at is not None:  # TensorBoard is told to drop the events after the checkpoint
            self._events.write_event(
                Event(step=resume_at + 1, session_log=SessionLog(status=SessionLog.START))
            )

    def write(self, step: int, figures: Mapping[str, Any]) -> None:
        """Writes one line of `metrics.jsonl`, and its numbers as TensorBoard scalars.

        Args:
            step: control steps done.
            figures: JSON values by name.
        """
        with self._name_file_in_errors():
            self._file.write(json.dumps({"step": step, **replace_non_finite(figures)}) + "\n")
            self._file.flush()
            values = [
                Summary.Value(tag=name, simple_value=value)
                for name, value in figures.items()
                if isinstance(value, int | float)
            ]
            if values:
                self._events.write_event(
                    Event(step=step, wall_time=time.time(), summary=Summary(value=values))
                )

    def sync(self) -> None:
        """Writes everything logged so far to the run's folder.

        Raises:
            SaveError: the folder cannot be written.
        """
        if lock_is_lost(self._out):  # the next checkpoint ends the run
            return
        with self._name_file_in_errors():
            self._events.flush()
        if is_local(self._out):
            return
        try:
            for file in self._local.iterdir():
                write_atomically(self._out / file.name, file.read_bytes())
        except InputError as error:  # not bad input, as the run could write before
            raise SaveError(f"{error}; {RESUME_ADVICE} (the checkpoints are intact)") from error

    @contextmanager
    def _name_file_in_errors(self) -> Iterator[None]:
        """Adds the file to errors of a full disk, in which Python leaves it out."""
        try:
            yield
        except OSError as error:
            file = error.filename or str(self._local / METRICS)
            raise OSError(error.errno, error.strerror, file) from None

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            # An error that ended the run says more than a second one that the log cannot be written either.
            with suppress(OSError, SaveError) if error else nullcontext():
                self.sync()
        finally:
            for file in (self._file, self._events):
                with suppress(OSError):
                    file.close()
            if not is_local(self._out):
                shutil.rmtree(self._local)


def read_metrics(run: epath.PathLike) -> list[dict[str, Any]]:
    """Returns the lines of a run's `metrics.jsonl`, oldest first.

    An incomplete last line is left out; so are damaged lines before it, with a warning.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: the run lies in a cloud that cannot be reached.
    """
    file = epath.Path(run) / METRICS
    with translate_storage_errors(run):
        lines = file.read_bytes().decode(errors="replace").splitlines()
    rows, damaged = [], []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        if isinstance(row, dict) and "step" in row:
            rows.append(row)
        elif number < len(lines):
            damaged.append(number)
    if damaged:
        warnings.warn(
            f"{file}: line {damaged[0]} is damaged and left out", UserWarning, stacklevel=2
        )
    return rows


def _rows_until(run: epath.Path, step: int) -> list[dict[str, Any]]:
    """Returns the lines of a run's `metrics.jsonl` up to a control step; an empty list if there is no such file."""
    if not (run / METRICS).exists():
        return []
    return [row for row in read_metrics(run) if row["step"] <= step]
