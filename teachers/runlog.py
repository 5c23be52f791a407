"""What a run writes beside its checkpoints: configuration, metrics.jsonl and TensorBoard events.

A run's folder may lie on any path that `epath` opens. Logs grow line by line, which storage in a cloud does not offer:
there they grow in a local folder, which is copied at every checkpoint.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from etils import epath
from tensorboardX import SummaryWriter

from teachers.config import Config
from teachers.metadata import finite
from teachers.paths import is_local, write_whole

METRICS = "metrics.jsonl"
EVENTS = "events.out.tfevents.*"


def remove_run(out: epath.PathLike) -> None:
    """Removes what a run leaves in its folder, and nothing else."""
    out = epath.Path(out)
    for file in (*out.glob(EVENTS), out / "config.toml", out / METRICS):
        file.unlink(missing_ok=True)
    (out / "checkpoints").rmtree(missing_ok=True)


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
        purge = None if resume_at is None else resume_at + 1
        self._events = SummaryWriter(str(self._local), purge_step=purge)

    def write(self, step: int, figures: Mapping[str, Any]) -> None:
        """One line of `metrics.jsonl`, and its numbers as TensorBoard scalars."""
        try:
            self._file.write(json.dumps({"step": step, **finite(figures)}) + "\n")
            self._file.flush()
        except OSError as error:  # a full disk; Python leaves out which file
            raise OSError(error.errno, error.strerror, str(self._local / METRICS)) from None
        for name, value in figures.items():
            if isinstance(value, int | float):
                self._events.add_scalar(name, value, step)

    def sync(self) -> None:
        """Copies what a local folder holds to a run's folder that is elsewhere."""
        if is_local(self._out):
            return
        self._events.flush()
        for file in self._local.iterdir():
            (self._out / file.name).write_bytes(file.read_bytes())

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._events.close()
        self.sync()
        if not is_local(self._out):
            shutil.rmtree(self._local)


def read_metrics(run: epath.PathLike) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`; a last line that was cut short is left out."""
    rows = []
    for line in (epath.Path(run) / METRICS).read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def _rows_until(run: epath.Path, step: int) -> list[dict[str, Any]]:
    if not (run / METRICS).exists():
        return []
    return [row for row in read_metrics(run) if row["step"] <= step]
