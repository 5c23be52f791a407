"""Tables for reading, and how they write figures, intervals and nested values."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table


def pair_table(title: str, rows: Mapping[str, Any]) -> Table:
    """Returns a table of names and values, in which figures carry their 95% intervals."""
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in _format_rows(rows):
        table.add_row(name, value)
    return table


def figures_table(title: str, figures: Mapping[str, Any]) -> Table:
    """Returns the table of a policy's figures, without those of each episode."""
    return pair_table(
        title, {name: value for name, value in figures.items() if name != "by_episode"}
    )


def format_figure(figures: Mapping[str, Any], name: str) -> str:
    """Returns a figure as text, with its 95% interval where there is one."""
    if figures.get(name) is None:
        return "-"
    interval = figures.get(f"{name}_ci95")
    return f"{figures[name]:.3f}" + (
        " [" + ", ".join("-" if end is None else f"{end:.3f}" for end in interval) + "]"
        if interval
        else ""
    )


def format_value(value: Any) -> str:
    """Returns any JSON value as text for reading."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        nested = {name for name, item in value.items() if isinstance(item, Mapping)}
        pairs = [
            f"{name} ({item})" if name in nested else f"{name} {item}"
            for name, item in _format_rows(value)
        ]
        return ", ".join(pairs) or "-"
    if isinstance(value, list | tuple):
        return ", ".join(format_value(item) for item in value)
    return str(value)


def _format_rows(rows: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in rows.items():
        if name.endswith("_ci95") and name.removesuffix("_ci95") in rows:
            continue  # it stands beside its figure
        with_interval = f"{name}_ci95" in rows
        yield name, format_figure(rows, name) if with_interval else format_value(value)
