import json
import math

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
