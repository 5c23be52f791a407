"""Tables for reading, and how they write figures, intervals and nested values."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Column, Table
from rich.text import Text

from distill.cli.terminal import TextConsole, show_controls


class TextTable(Table):
    """A table whose heading and cells are folded where they do not fit, so that nothing is cut."""

    def __init__(self, *columns: str, heading: str = "", show_header: bool = True) -> None:
        """Makes an empty table.

        Args:
            columns: what stands above each column.
            heading: the line above the table.
            show_header: whether `columns` are printed.
        """
        folded = (Column(column, overflow="fold") for column in columns)
        super().__init__(*folded, show_header=show_header)
        self.heading = heading

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields the heading and the table."""
        if self.heading:
            yield Text(show_controls(self.heading), style="table.title", overflow="fold")
        yield from super().__rich_console__(console, options)


class Card:
    """A card in Markdown: laid out on a terminal, and printed as it is elsewhere."""

    def __init__(self, markdown: str) -> None:
        self.markdown = markdown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields the card."""
        assert isinstance(console, TextConsole)
        text = show_controls(self.markdown)
        yield _lay_out(text) if console.on_terminal else Text(text, end="")


def _lay_out(markdown: str) -> RenderableType:
    """Returns Markdown as it looks on a terminal, with tables whose cells are folded."""
    from rich.markdown import Markdown, TableElement  # a slow import, which help can do without

    class FoldedTable(TableElement):
        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            for table in super().__rich_console__(console, options):
                assert isinstance(table, Table)
                for column in table.columns:
                    column.overflow = "fold"
                yield table

    class FoldedMarkdown(Markdown):
        elements = {**Markdown.elements, "table_open": FoldedTable}

    return FoldedMarkdown(markdown, hyperlinks=False)


def pair_table(title: str, rows: Mapping[str, Any]) -> TextTable:
    """Returns a table of names and values, in which figures carry their 95% intervals."""
    table = TextTable("name", "value", heading=title, show_header=False)
    for name, value in _format_rows(rows):
        table.add_row(name, value)
    return table


def figures_table(title: str, figures: Mapping[str, Any]) -> TextTable:
    """Returns the table of a policy's figures, without those of each episode."""
    return pair_table(
        title, {name: value for name, value in figures.items() if name != "by_episode"}
    )


def format_figure(figures: Mapping[str, Any], name: str) -> str:
    """Returns a figure as text, with its 95% interval where there is one; what is no number is missing."""
    from teachers.measures import format_interval
    from teachers.runs.metadata import as_interval, as_number

    figure, interval = as_number(figures.get(name)), as_interval(figures.get(f"{name}_ci95"))
    if figure is None:
        return "-"
    return f"{figure:.3f}" + (f" {format_interval(interval)}" if interval else "")


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
