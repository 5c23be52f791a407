import pytest

from distill.cli.tables import format_figure, format_value


def test_format_figure_adds_interval() -> None:
    assert format_figure({"x": 0.5, "x_ci95": (0.4, 0.6)}, "x") == "0.500 [0.400, 0.600]"
    assert format_figure({}, "x") == "-"
    assert format_figure({"x": 0.5, "x_ci95": (0.4, None)}, "x") == "0.500 [at least 0.400]"


def test_format_value_adds_intervals_to_nested_figures() -> None:
    figures = {"x": 0.5, "x_ci95": (0.4, 0.6), "inner": {"y": 1.0, "y_ci95": None}, "z_ci95": 2}
    assert format_value(figures) == "x 0.500 [0.400, 0.600], inner (y 1.000), z_ci95 2"


@pytest.mark.parametrize("figure", ["x", [1], {"a": 1}, True, 10**400])
def test_format_figure_takes_what_is_no_number_as_missing(figure) -> None:
    assert format_figure({"s": figure, "s_ci95": [0.4, 0.6]}, "s") == "-"


@pytest.mark.parametrize("interval", [3, [1], [0.4, "x"], "ab", {"a": 1}, [None, None]])
def test_format_figure_takes_what_is_no_interval_as_missing(interval) -> None:
    assert format_figure({"s": 0.5, "s_ci95": interval}, "s") == "0.500"
