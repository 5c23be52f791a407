"""What the commands share: progress on stderr, results on stdout, errors in one line."""

import json
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:  # the import is slow, and help should answer at once
    from teachers.runs.checkpoint_choice import CheckpointChoice
    from teachers.runs.progress import Progress as Report

Checkpoint = Annotated[
    str,
    typer.Option(help="Of a run's checkpoints: newest, best (most time at goal), or its step."),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON value on stdout and nothing else there.")
]
SHOW_AFTER = 3.0  # seconds before anything is shown
LINE_EVERY = 5.0  # seconds between lines where stderr is no terminal


@contextmanager
def interruptions() -> Iterator[Callable[[], None]]:
    """Lets no Ctrl-C be lost: Python drops exceptions inside a callback of the garbage collector, and JAX has one.

    One that could not be raised at once is raised at the end of the block.

    Yields:
        A function that raises it earlier, to be called now and then.
    """
    arrived: list[int] = []

    def arrive(number: int, frame: FrameType | None) -> None:
        if frame is None or frame.f_code.co_name != "_xla_gc_callback":
            raise KeyboardInterrupt
        arrived.append(number)

    def check() -> None:
        if arrived:
            arrived.clear()
            raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    # Only the main thread can catch signals; and in the background of a script Ctrl-C is ignored.
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield check
        return
    signal.signal(signal.SIGINT, arrive)
    try:
        yield check
        check()
    finally:
        signal.signal(signal.SIGINT, handler)


@contextmanager
def progress(what: str) -> Iterator["Report"]:
    """A progress report with rate and time left: a bar on a terminal, plain lines elsewhere.

    Yields:
        `(done, total, figures)`, to be called as work advances; `figures` may hold `time_at_goal`.
    """
    with interruptions() as check, _display(what) as display:

        def report(done: int, total: int, figures: Mapping[str, Any]) -> None:
            check()
            display(done, total, figures)

        yield report


@contextmanager
def _display(what: str) -> Iterator["Report"]:
    begun = time.monotonic()
    first: tuple[float, int] | None = (
        None  # time and work of the first report, before which JAX compiles
    )

    def rate(done: int) -> float | None:
        nonlocal first
        now = time.monotonic()
        if first is None:
            first = (now, done)
            return None
        per_second = (done - first[1]) / (now - first[0])
        return per_second if per_second > 0 else None

    if sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            job = bar.add_task(what, total=None, rate="", note="compiling")

            def draw(done: int, total: int, figures: Mapping[str, Any]) -> None:
                per_second = rate(done)
                bar.update(
                    job,
                    completed=done,
                    total=total,
                    rate="" if per_second is None else f"{per_second:,.0f} steps/s",
                    note=_note(figures),
                )

            yield draw
        return

    last = begun + SHOW_AFTER - LINE_EVERY

    def line(done: int, total: int, figures: Mapping[str, Any]) -> None:
        nonlocal last
        now, per_second = time.monotonic(), rate(done)
        if now - last < LINE_EVERY and not (done == total and now - begun > SHOW_AFTER):
            return
        last = now
        speed = (
            f"compiled in {now - begun:.0f} s"
            if per_second is None
            else f"{per_second:,.0f} steps/s, {(total - done) / per_second:.0f} s left"
        )
        say(f"{what}: {done:,}/{total:,} steps, {speed}, {_note(figures)}".removesuffix(", "))

    yield line


def say(message: str) -> None:
    """One line on stderr."""
    print(message.rstrip(), file=sys.stderr, flush=True)


def show(result: Any, as_json: bool, table: Callable[[], RenderableType]) -> None:
    """The result on stdout: one JSON value, or a table made for reading."""
    if as_json:
        print_json(result)
    else:
        Console().print(table())


def print_json(result: Any) -> None:
    """One JSON value on stdout."""
    from teachers.runs.metadata import replace_non_finite

    print(json.dumps(replace_non_finite(result)))


def pair_table(title: str, rows: Mapping[str, Any]) -> Table:
    """A table of names and values, figures with their 95% intervals."""
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in _readable(rows):
        table.add_row(name, value)
    return table


def figure(figures: Mapping[str, Any], name: str) -> str:
    """A figure with its 95% interval, as text."""
    if figures.get(name) is None:
        return "-"
    interval = figures.get(f"{name}_ci95")
    return f"{figures[name]:.3f}" + (
        " [" + ", ".join("-" if end is None else f"{end:.3f}" for end in interval) + "]"
        if interval
        else ""
    )


def text(value: Any) -> str:
    """Any JSON value for reading."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        nested = {name for name, item in value.items() if isinstance(item, Mapping)}
        return (
            ", ".join(
                f"{name} ({item})" if name in nested else f"{name} {item}"
                for name, item in _readable(value)
            )
            or "-"
        )
    if isinstance(value, list | tuple):
        return ", ".join(text(item) for item in value)
    return str(value)


def _readable(rows: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in rows.items():
        if not (name.endswith("_ci95") and name.removesuffix("_ci95") in rows):
            yield name, figure(rows, name) if f"{name}_ci95" in rows else text(value)


def _note(figures: Mapping[str, Any]) -> str:
    at_goal = figures.get("time_at_goal", figures.get("rollout_time_at_goal"))
    return "" if at_goal is None else f"time at goal {at_goal:.2f}"


def which(checkpoint: str) -> "CheckpointChoice":
    """What `--checkpoint` names.

    Raises:
        InputError: no checkpoint is called so.
    """
    from teachers.runs.errors import InputError

    if checkpoint.isdecimal():
        return int(checkpoint)
    if checkpoint in ("newest", "best"):
        return cast("CheckpointChoice", checkpoint)
    raise InputError(f"--checkpoint {checkpoint!r}: give newest, best, or the control step of one")


def prepare() -> None:
    """Sets up JAX for a command: compiled programs are kept between runs, and libraries log errors alone."""
    import logging

    from teachers.process import use_compilation_cache

    for library in ("huggingface_hub", "google"):
        logging.getLogger(library).setLevel(logging.ERROR)
    # These log errors with a traceback before they raise them; Orbax under absl's name.
    for library in ("absl", "gcsfs", "s3fs", "fsspec"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    warnings.showwarning = _one_line
    # JAX warns of every fork; ours, such as an encoder of videos, are other programs at once.
    warnings.filterwarnings("ignore", r"os\.fork\(\)", RuntimeWarning)
    use_compilation_cache()


def _one_line(message: Warning | str, *_: Any, **__: Any) -> None:
    say(f"warning: {message}")
