import gc
import importlib
import json
import math
import signal

import pytest

from distill.cli import console


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

        def monotonic(self) -> float:
            return self.now

    fake = Clock()
    monkeypatch.setattr(console, "time", fake)
    return fake


def test_a_short_call_prints_nothing(clock, capsys) -> None:
    with console.progress("train") as report:
        clock.now += 1
        report(50, 100, {})
        clock.now += 1
        report(100, 100, {})
    assert capsys.readouterr() == ("", "")


def test_a_long_call_prints_lines_with_rate_and_time_left(clock, capsys) -> None:
    with console.progress("train") as report:
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


def test_json_has_no_nan(capsys) -> None:
    console.show({"a": math.nan, "b": [1.0, math.inf], "c": "x"}, True, lambda: "")
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [1.0, None], "c": "x"}


def test_a_figure_carries_its_interval() -> None:
    assert console.figure({"x": 0.5, "x_ci95": (0.4, 0.6)}, "x") == "0.500 [0.400, 0.600]"
    assert console.figure({}, "x") == "-"


@pytest.mark.parametrize("reports", [1, 0])
def test_an_interruption_while_xla_collects_garbage_is_not_lost(capfd, reports) -> None:
    reached = []

    def _xla_gc_callback(phase, info) -> None:
        if phase == "stop":
            signal.raise_signal(signal.SIGINT)
            reached.append("the callback's end")

    def work() -> None:
        with console.progress("train") as report:
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


def test_xlas_callback_is_the_one_that_is_spared() -> None:
    importlib.import_module("jax")
    assert "_xla_gc_callback" in [getattr(each, "__name__", "") for each in gc.callbacks]


def test_an_interruption_elsewhere_ends_at_once_and_the_old_handler_returns() -> None:
    before = signal.getsignal(signal.SIGINT)
    with console.interruptions(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_where_interruptions_are_ignored_they_stay_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with console.progress("train") as report:
            signal.raise_signal(signal.SIGINT)
            report(1, 1, {})
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_figures_are_read_with_their_intervals() -> None:
    figures = {"x": 0.5, "x_ci95": (0.4, 0.6), "inner": {"y": 1.0, "y_ci95": None}, "z_ci95": 2}
    assert console.text(figures) == "x 0.500 [0.400, 0.600], inner (y 1.000), z_ci95 2"
