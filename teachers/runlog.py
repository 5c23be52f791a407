"""What a run writes beside its checkpoints: configuration, metrics.jsonl and TensorBoard events."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from tensorboardX import SummaryWriter

from teachers.config import Config
from teachers.metadata import finite
from teachers.tasks import InputError

METRICS = "metrics.jsonl"


def require_new(out: Path) -> None:
    """Refuses a folder that already holds something.

    Raises:
        InputError: the folder is not empty, or is a file.
    """
    out = Path(out)
    if out.is_file():
        raise InputError(f"{out} is a file; choose a folder with --out")
    if out.is_dir() and any(out.iterdir()):
        raise InputError(
            f"{out} already holds files; choose another --out or remove it (nothing was overwritten)"
        )


@contextmanager
def new_folder(out: Path) -> Iterator[None]:
    """A new folder; if the block is interrupted before it holds a checkpoint, it is removed again.

    Raises:
        InputError: it is taken, or cannot be created or written.
    """
    require_new(out)
    make_folder(out)
    try:
        yield
    except KeyboardInterrupt:
        if not any(out.glob("checkpoints/*[0-9]")):
            shutil.rmtree(out, ignore_errors=True)
        raise


def make_folder(out: Path) -> None:
    """Creates a folder and its parents.

    Raises:
        InputError: it cannot be created or written.
    """
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot create {out}: {error.strerror}; choose another --out") from None
    if not os.access(out, os.W_OK):
        raise InputError(f"cannot write in {out}; choose another --out")


def remove_run(out: Path) -> None:
    """Removes what a run leaves in its folder, and nothing else."""
    for file in (*out.glob("events.out.tfevents.*"), out / "config.toml", out / METRICS):
        file.unlink(missing_ok=True)
    shutil.rmtree(out / "checkpoints", ignore_errors=True)


class RunLog:
    """Appends metrics to a run's folder. Use it as a context manager."""

    def __init__(self, out: Path, config: Config, resume_at: int | None = None) -> None:
        """Opens the log of a run in `out`.

        Args:
            out: the run's folder.
            config: written to `config.toml`.
            resume_at: control steps from which the run goes on; later lines are dropped.
        """
        (out / "config.toml").write_text(config.to_toml())
        if resume_at is not None:
            _truncate(out / METRICS, resume_at)
        self._file = (out / METRICS).open("a", encoding="utf-8")
        self._events = SummaryWriter(
            str(out), purge_step=None if resume_at is None else resume_at + 1
        )

    def write(self, step: int, figures: Mapping[str, Any]) -> None:
        """One line of `metrics.jsonl`, and its numbers as TensorBoard scalars."""
        self._file.write(json.dumps({"step": step, **finite(figures)}) + "\n")
        self._file.flush()
        for name, value in figures.items():
            if isinstance(value, int | float):
                self._events.add_scalar(name, value, step)

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


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`; a last line that was cut short is left out."""
    rows = []
    for line in (run / METRICS).read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def _truncate(file: Path, step: int) -> None:
    if not file.exists():
        return
    kept = [row for row in read_metrics(file.parent) if row["step"] <= step]
    fresh = file.with_suffix(".tmp")
    fresh.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    os.replace(fresh, file)
