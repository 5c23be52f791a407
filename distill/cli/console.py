"""What commands show: results on stdout, progress and warnings on stderr, and Ctrl-C that is never lost."""

import json
import logging
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from distill.cli.tables import figures_table
from distill.cli.terminal import TextConsole, print_line, print_message, show_controls

if TYPE_CHECKING:  # these imports are slow, and help should answer at once
    from teachers.runs import progress
    from teachers.runs.metadata import Metadata

SECONDS_BEFORE_FIRST_LINE = 3.0  # a call that is shorter prints nothing
SECONDS_BETWEEN_LINES = 5.0  # where stderr is no terminal


def prepare_process(*, computes: bool = True) -> None:
    """Keeps compiled programs between commands, silences the logs of libraries, and prints warnings as one line.

    Args:
        computes: whether the command needs JAX's devices from the start.

    Raises:
        InputError: the command needs them and there are none; see `require_backend`.
    """
    from teachers.process import use_compilation_cache
    from teachers.runs.devices import require_backend

    for library in ("huggingface_hub", "google", "matplotlib"):
        logging.getLogger(library).setLevel(logging.ERROR)
    # These log errors with a traceback before they raise them; Orbax does so under the name of absl.
    for library in ("absl", "gcsfs", "s3fs", "fsspec"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    warnings.showwarning = _print_warning
    # JAX warns of every fork. Ours, such as the encoder of videos, start another program at once, which is safe.
    warnings.filterwarnings("ignore", r"os\.fork\(\)", RuntimeWarning)
    warnings.filterwarnings("ignore", 'Mesh ".*" has a coplanar face')  # `tasks --check` says it
    problem = use_compilation_cache()
    if problem:
        print_message(
            f"warning: compiled programs are not kept for the next command ({problem}); to keep them, set "
            "XDG_CACHE_HOME or JAX_COMPILATION_CACHE_DIR to a folder that can be written"
        )
    if computes:
        require_backend()


def print_result(result: Any, as_json: bool, make_table: Callable[[], RenderableType]) -> None:
    """Prints a result on stdout: as one JSON value, or as the table that `make_table` returns."""
    if as_json:
        print_json(result)
    else:
        TextConsole().print(make_table())


def print_json(result: Any) -> None:
    """Prints one JSON value on stdout, with null for numbers that are not finite."""
    from teachers.runs.metadata import replace_non_finite

    # DEL is the one control character that JSON leaves as it is.
    print_line(json.dumps(replace_non_finite(result)).replace("\x7f", r"\u007f"))


def print_run(folder: str, metadata: "Metadata", as_json: bool) -> None:
    """Prints where a run lies and the metrics of its newest checkpoint."""
    result = {"out": folder, "task": metadata.task, "kind": metadata.kind, **metadata.metrics}
    print_result(result, as_json, lambda: figures_table(folder, result))


@contextmanager
def catch_interruptions() -> Iterator[Callable[[], None]]:
    """Raises KeyboardInterrupt for every Ctrl-C inside the block.

    Python drops exceptions that are raised inside a callback of the garbage collector, and JAX has such a callback. A
    Ctrl-C that arrives there is remembered, and raised by the next call of the yielded function or at the end of the block.

    Yields:
        A function that raises KeyboardInterrupt where one is remembered.
    """
    pending: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if frame is None or frame.f_code.co_name != "_xla_gc_callback":
            raise KeyboardInterrupt
        pending.append(number)

    def raise_pending() -> None:
        if pending:
            pending.clear()
            raise KeyboardInterrupt

    previous = signal.getsignal(signal.SIGINT)
    # Only the main thread can catch signals, and a script's background processes ignore Ctrl-C.
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield raise_pending
        return
    signal.signal(signal.SIGINT, handle)
    try:
        yield raise_pending
        raise_pending()
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def show_progress(title: str) -> Iterator["progress.Progress"]:
    """Shows progress with rate and time left: a bar on a terminal, plain lines elsewhere.

    Yields:
        `(done, total, figures)`, to be called as work advances; `figures` may hold `time_at_goal`.
    """
    console, rate = TextConsole(stderr=True), _Rate()
    has_cursor = console.on_terminal and not console.is_dumb_terminal
    display = _show_bar(console, title, rate) if has_cursor else _print_lines(title, rate)
    with catch_interruptions() as raise_pending, display as update:

        def report(done: int, total: int, figures: Mapping[str, Any]) -> None:
            raise_pending()
            update(done, total, figures)

        yield report


class _Rate:
    """The rate of work since the first report, before which JAX compiles."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None  # time and work done

    def measure(self, done: int) -> float | None:
        """Returns the work per second, or None where it is not known yet."""
        now = time.monotonic()
        if self._first is None:
            self._first = (now, done)
            return None
        per_second = (done - self._first[1]) / (now - self._first[0])
        return per_second if per_second > 0 else None


@contextmanager
def _show_bar(console: TextConsole, title: str, rate: _Rate) -> Iterator["progress.Progress"]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    # While the bar is drawn, what is printed on the same terminal has to go above it.
    with Progress(*columns, console=console, redirect_stdout=sys.stdout.isatty()) as bar:
        job = bar.add_task(show_controls(title), total=None, rate="", note="compiling")

        def update(done: int, total: int, figures: Mapping[str, Any]) -> None:
            per_second = rate.measure(done)
            bar.update(
                job,
                completed=done,
                total=total,
                rate="" if per_second is None else f"{per_second:,.0f} steps/s",
                note=_describe_time_at_goal(figures),
            )

        yield update


@contextmanager
def _print_lines(title: str, rate: _Rate) -> Iterator["progress.Progress"]:
    start = time.monotonic()
    last = start + SECONDS_BEFORE_FIRST_LINE - SECONDS_BETWEEN_LINES

    def update(done: int, total: int, figures: Mapping[str, Any]) -> None:
        nonlocal last
        now, per_second = time.monotonic(), rate.measure(done)
        finished = done == total and now - start > SECONDS_BEFORE_FIRST_LINE
        if now - last < SECONDS_BETWEEN_LINES and not finished:
            return
        last = now
        speed = (
            f"compiled in {now - start:.0f} s"
            if per_second is None
            else f"{per_second:,.0f} steps/s, {(total - done) / per_second:.0f} s left"
        )
        line = f"{title}: {done:,}/{total:,} steps, {speed}, {_describe_time_at_goal(figures)}"
        print_message(line.removesuffix(", "))

    yield update


def _describe_time_at_goal(figures: Mapping[str, Any]) -> str:
    time_at_goal = figures.get("time_at_goal", figures.get("rollout_time_at_goal"))
    return "" if time_at_goal is None else f"time at goal {time_at_goal:.2f}"


def _print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print_message(f"warning: {message}")
    # JAX warns for every program that it cannot keep, as on a disk that has become full.
    subject = "persistent compilation cache"
    if subject in str(message):
        warnings.filterwarnings("ignore", f".*{subject}")
