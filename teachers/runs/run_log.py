"""What a run writes beside its checkpoints: configuration, metrics.jsonl and TensorBoard events.

A run's folder may lie on any path that `epath` opens. Logs grow line by line, which storage in a cloud does not offer:
there they grow in a local folder, which is copied at every checkpoint.
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
from teachers.runs.errors import InputError, SaveError
from teachers.runs.metadata import finite
from teachers.runs.paths import is_local, reaching, write_whole

METRICS = "metrics.jsonl"
EVENTS = "events.out.tfevents.*"
FOLDER = "checkpoints"


def remove_run(out: epath.PathLike) -> None:
    """Removes what a run leaves in its folder before its first checkpoint, but for unfinished ones.

    Raises:
        InputError: the folder holds something else too; nothing is removed.
    """
    out = epath.Path(out)
    if not out.is_dir():
        return
    files = [out / name for each in ("config.toml", METRICS) for name in (each, f"{each}.tmp")]
    files += out.glob(EVENTS)
    checkpoints = out / FOLDER
    known = {*files, checkpoints}
    others = [entry for entry in out.iterdir() if entry not in known]
    if checkpoints.is_dir():
        others += checkpoints.iterdir()
    if others:
        raise InputError(
            f"{out} already holds files that no unfinished run leaves, such as {others[0].name}; choose another --out "
            "or remove it (nothing was overwritten)"
        )
    for file in files:
        file.unlink(missing_ok=True)
    if checkpoints.is_dir():
        checkpoints.rmtree()


class RunLog:
    """Appends metrics to a run's folder. Use it as a context manager."""

    def __init__(self, out: epath.PathLike, config: Config, resume_at: int | None = None) -> None:
        """Opens the log of a run in `out`.

        Args:
            out: the run's folder.
            config: written to `config.toml`.
            resume_at: control steps from which the run goes on; later lines are dropped.
        """
        self._out = epath.Path(out)
        self._local = Path(out) if is_local(out) else Path(tempfile.mkdtemp())
        kept = [] if resume_at is None else _rows_until(self._out, resume_at)
        write_whole(self._out / "config.toml", config.to_toml())
        write_whole(self._local / METRICS, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = (self._local / METRICS).open("a", encoding="utf-8")
        # In this thread: the library's own would die of a full disk, and the run then wait for it for ever.
        self._events = EventsWriter(str(self._local / "events"))
        if resume_at is not None:  # what an earlier process wrote from here on is to be forgotten
            self._events.write_event(
                Event(step=resume_at + 1, session_log=SessionLog(status=SessionLog.START))
            )

    def write(self, step: int, figures: Mapping[str, Any]) -> None:
        """One line of `metrics.jsonl`, and its numbers as TensorBoard scalars."""
        with self._named():
            self._file.write(json.dumps({"step": step, **finite(figures)}) + "\n")
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
        """Brings to the run's folder what has been written so far.

        Raises:
            SaveError: it cannot be written there.
        """
        with self._named():
            self._events.flush()
        if is_local(self._out):
            return
        try:
            for file in self._local.iterdir():
                write_whole(self._out / file.name, file.read_bytes())
        except InputError as error:  # nothing is wrong with what the user gave: the run has begun
            raise SaveError(f"{error}; go on with --resume (the checkpoints are intact)") from error

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Errors of a full disk, of which Python leaves out the file."""
        try:
            yield
        except OSError as error:
            where = error.filename or str(self._local / METRICS)
            raise OSError(error.errno, error.strerror, where) from None

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            # What went wrong before says more than that nothing can be written now either.
            with suppress(OSError, SaveError) if error else nullcontext():
                self.sync()
        finally:
            for file in (self._file, self._events):
                with suppress(OSError):
                    file.close()
            if not is_local(self._out):
                shutil.rmtree(self._local)


def read_metrics(run: epath.PathLike) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`.

    A last line that was cut short is left out; so are damaged ones before it, with a warning.
    """
    file = epath.Path(run) / METRICS
    with reaching(run):
        lines = file.read_text().splitlines()
    rows, broken = [], []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        if isinstance(row, dict) and "step" in row:
            rows.append(row)
        elif number < len(lines):
            broken.append(number)
    if broken:
        warnings.warn(
            f"{file}: line {broken[0]} is damaged and left out", UserWarning, stacklevel=2
        )
    return rows


def _rows_until(run: epath.Path, step: int) -> list[dict[str, Any]]:
    if not (run / METRICS).exists():
        return []
    return [row for row in read_metrics(run) if row["step"] <= step]
