import contextlib
import gc
import importlib
import io
import json
import math
import signal
import warnings

import pytest

from distill.cli import console
from distill.cli.terminal import print_line


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

        def monotonic(self) -> float:
            return self.now

    fake = Clock()
    monkeypatch.setattr(console, "time", fake)
    return fake


def test_show_progress_prints_nothing_for_short_call(clock, capsys) -> None:
    with console.show_progress("train") as report:
        clock.now += 1
        report(50, 100, {})
        clock.now += 1
        report(100, 100, {})
    assert capsys.readouterr() == ("", "")


def test_show_progress_prints_rate_and_time_left(clock, capsys) -> None:
    with console.show_progress("train") as report:
        clock.now += 4
        report(10, 100, {})
        clock.now += 1
        report(20, 100, {})  # too soon for another line
        clock.now += 5
        report(70, 100, {"time_at_goal": 0.5})
        clock.now += 1
        report(100, 100, {})
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "train: 10/100 steps, compiled in 4 s",
        "train: 70/100 steps, 10 steps/s, 3 s left, time at goal 0.50",
        "train: 100/100 steps, 13 steps/s, 0 s left",
    ]


def test_print_result_writes_null_for_nan(capsys) -> None:
    result = {"a": math.nan, "b": [1.0, math.inf], "c": "x\x1b\x7f\x9f\u202e\udce9"}
    console.print_result(result, True, lambda: "")
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert printed.strip().isprintable()
    assert json.loads(printed) == result | {"a": None, "b": [1.0, None]}


@pytest.mark.parametrize("reports", [1, 0])
def test_show_progress_raises_interruption_in_garbage_collection(capfd, reports) -> None:
    reached = []

    def _xla_gc_callback(phase, info) -> None:
        if phase == "stop":
            signal.raise_signal(signal.SIGINT)
            reached.append("the callback's end")

    def work() -> None:
        with console.show_progress("train") as report:
            report(1, 3, {})
            gc.callbacks.append(_xla_gc_callback)
            gc.collect()
            gc.callbacks.remove(_xla_gc_callback)
            reached.append("what comes after")
            for _ in range(reports):
                report(2, 3, {})
                reached.append("too far")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached == ["the callback's end", "what comes after"]
    assert capfd.readouterr().err == ""


def test_catch_interruptions_names_callback_of_xla() -> None:
    importlib.import_module("jax")
    assert "_xla_gc_callback" in [getattr(each, "__name__", "") for each in gc.callbacks]


def test_catch_interruptions_raises_at_once_and_restores_handler() -> None:
    before = signal.getsignal(signal.SIGINT)
    with console.catch_interruptions(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_show_progress_leaves_ignored_interruptions_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with console.show_progress("train") as report:
            signal.raise_signal(signal.SIGINT)
            report(1, 1, {})
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_show_progress_leaves_stdout_alone_while_bar_is_drawn(monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    results, screen = io.StringIO(), Terminal()
    with (
        contextlib.redirect_stdout(results),
        contextlib.redirect_stderr(screen),
        console.show_progress("[red] \x1b]0;x") as report,
    ):
        report(1, 2, {})
        print_line("ok     parity")
    assert results.getvalue() == "ok     parity\n"
    assert r"[red] \x1b]0;x" in screen.getvalue()


def test_show_progress_prints_lines_on_dumb_terminal(clock, monkeypatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    screen = Terminal()
    with contextlib.redirect_stderr(screen), console.show_progress("train") as report:
        clock.now += 4
        report(10, 100, {})
    assert screen.getvalue() == "train: 10/100 steps, compiled in 4 s\n"


def test_warnings_of_compilation_cache_are_printed_once(capsys) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = console._print_warning
        for program in ("jit_a", "jit_b"):
            warnings.warn(
                f"Error writing persistent compilation cache entry for '{program}'\n", stacklevel=1
            )
        warnings.warn("another\x1b", stacklevel=1)
    assert capsys.readouterr().err.splitlines() == [
        "warning: Error writing persistent compilation cache entry for 'jit_a'",
        r"warning: another\x1b",
    ]
