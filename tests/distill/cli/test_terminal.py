"""What reaches stdout and stderr: on terminals, in pipes, in other encodings, and where nobody reads."""

import ast
import contextlib
import io
import os
import re
import sys
from pathlib import Path

import pytest
from rich.console import Group
from rich.text import Text

from distill.cli import terminal
from distill.cli.tables import Card, TextTable, pair_table

LONG = "runs/" + "x" * 300 + "-end"
HOSTILE = "a\x1b[2J\x9b2Jb\u202ec\rd\x07[/red]:smile:"
HARMLESS = r"a\x1b[2J\x9b2Jb\u202ec\rd\x07[/red]:smile:"
STYLES = re.compile(r"\x1b\[[0-9;]*m")  # colours and weights


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True

    def show(self, table) -> str:
        """Prints a table, and returns what the terminal shows, without colours and weights."""
        with contextlib.redirect_stdout(self):
            terminal.TextConsole().print(table)
        return STYLES.sub("", self.getvalue())


@pytest.fixture
def screen(monkeypatch) -> Screen:
    """A terminal of 40 columns."""
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    return Screen()


@pytest.fixture
def unread_pipe():
    """A stream into a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    stream = open(writing, "w", encoding="utf-8")  # noqa: SIM115
    yield stream
    terminal.discard(stream)
    stream.close()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (HOSTILE, HARMLESS),
        ("\x00\x7f\x85\u2028\u2066\u200f\ufeff\U000e0041", r"\x00\x7f\x85\u2028\u2066\u200f\ufeff\U000e0041"),
        ("Ge\u0142\u0105b \u5173\u8282 \U0001f916 \u00b5s\t[rad]\n", "Ge\u0142\u0105b \u5173\u8282 \U0001f916 \u00b5s\t[rad]\n"),
    ],
)  # fmt: skip
def test_show_controls_writes_only_controls_as_python_does(text, shown) -> None:
    assert terminal.show_controls(text) == shown


def test_print_line_and_print_error_print_one_line(capsys) -> None:
    terminal.print_line("ok     parity\n  FAILED  \x1b[1mlatency ")
    terminal.print_error("a  b.onnx:\n\tcannot be read\r")
    assert capsys.readouterr() == (
        "ok     parity FAILED  \\x1b[1mlatency\n",
        "error: a  b.onnx: cannot be read\n",
    )


def test_print_traceback_shows_controls_of_message(capsys) -> None:
    try:
        raise ValueError("node \x1b[2J")
    except ValueError as error:
        terminal.print_traceback(type(error), error, error.__traceback__)
    printed = capsys.readouterr().err
    assert printed.startswith("Traceback (most recent call last):\n")
    assert printed.endswith("ValueError: node \\x1b[2J\n")


def make_page() -> Group:
    table = TextTable("field [m]", "unit", heading=f"{HOSTILE} [m/s]")
    table.add_row("shoulder angle [rad]", HOSTILE)
    return Group(
        table, pair_table("[b]", {"[/b]": ["[red]"]}), Text(HOSTILE), "last [line] \x1b]0;title\x07"
    )


def test_text_console_prints_text_as_text(capsys) -> None:
    terminal.TextConsole().print(make_page())
    printed = capsys.readouterr().out
    for text in (f"{HARMLESS} [m/s]", "field [m]", "shoulder angle [rad]", "[/b]", "[red]"):
        assert text in printed
    assert printed.count(HARMLESS) == 2
    assert (
        HARMLESS.replace(r"\r", "").replace(r"\x07", "") in printed
    )  # which rich's texts leave out
    assert printed.splitlines()[-1] == r"last [line] \x1b]0;title\x07"


def test_text_console_prints_text_as_text_on_terminal(screen, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    printed = screen.show(make_page())
    assert printed != screen.getvalue()
    assert terminal.show_controls(printed) == printed
    assert "shoulder angle [rad]" in printed


@pytest.mark.parametrize("variables", [{}, {"COLUMNS": "20"}, {"FORCE_COLOR": "1", "TERM": "dumb"}])
def test_text_console_prints_whole_lines_in_pipe(capsys, monkeypatch, variables) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    table = pair_table(LONG, {"name": LONG, "note": "two words " * 40})
    terminal.TextConsole().print(table)
    lines = capsys.readouterr().out.splitlines()
    assert sum(LONG in line for line in lines) == 2
    assert sum("two words " * 39 in line for line in lines) == 1


@pytest.mark.parametrize("columns", ["40", "1", "0"])
def test_text_console_folds_on_terminal(screen, monkeypatch, columns) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    lines = screen.show(pair_table(LONG, {"digest": LONG})).splitlines()
    assert max(map(len, lines)) <= max(int(columns), terminal.NARROWEST)
    first_row = next(
        i for i, line in enumerate(lines) if line.startswith("\u250f") or line.startswith("\u250c")
    )
    assert "".join(line.strip() for line in lines[:first_row]) == LONG
    cells = [line.strip("\u2502").split("\u2502") for line in lines if line.startswith("\u2502")]
    assert "".join(name.strip() for name, _ in cells) == "digest"
    assert "".join(value.strip() for _, value in cells) == LONG


@pytest.mark.parametrize("variables", [{"TERM": "dumb"}, {"NO_COLOR": "1", "TERM": "dumb"}])
def test_text_console_writes_no_styles_on_dumb_terminal(screen, monkeypatch, variables) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    screen.show(make_page())
    assert "\x1b" not in screen.getvalue()


CARD = (
    f"# A [card]\n\n| file | link |\n| --- | --- |\n| {LONG} | [here\x1b](https://example.org) |\n"
)


def test_card_is_markdown_in_pipe(capsys) -> None:
    terminal.TextConsole().print(Card(CARD))
    assert capsys.readouterr().out == CARD.replace("\x1b", r"\x1b")


def test_card_is_laid_out_and_folded_on_terminal(screen) -> None:
    printed = screen.show(Card(CARD))
    assert "A [card]" in printed
    assert "| ---" not in printed
    assert "\u2026" not in printed
    assert printed.count("x") == LONG.count("x") + 2  # of the escape, and of the address
    assert terminal.show_controls(printed) == printed


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_prepare_streams_replaces_characters_that_encoding_lacks(monkeypatch, encoding) -> None:
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    terminal.prepare_streams()
    text = "12 \u00b5s caf\udce9 \u03c0"
    terminal.print_line(text)
    terminal.print_message(text)
    terminal.TextConsole().print(pair_table(text, {"name": text}))
    expected = text.encode(encoding, "replace")
    for stream in streams:
        stream.flush()
        assert stream.buffer.getvalue().startswith(expected + b"\n")
    assert streams[0].buffer.getvalue().count(expected) == 3


def test_prepare_streams_opens_closed_ones(monkeypatch) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    terminal.prepare_streams()
    terminal.print_line("nobody")
    terminal.print_message("reads this")
    assert sys.stdin.read() == ""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.close()


def test_print_message_is_dropped_where_nobody_reads(monkeypatch, unread_pipe) -> None:
    monkeypatch.setattr(sys, "stderr", unread_pipe)
    terminal.print_message("one")
    terminal.print_message("two")
    sys.stderr.flush()
    assert sys.stderr is unread_pipe  # it stays what the program was given


def test_is_closed_tells_whether_somebody_reads(unread_pipe, tmp_path) -> None:
    assert terminal.is_closed(unread_pipe)
    reading, writing = os.pipe()
    with open(reading, "rb"), open(writing, "w", encoding="utf-8") as stream:
        assert not terminal.is_closed(stream)
    with (tmp_path / "file").open("w", encoding="utf-8") as stream:
        assert not terminal.is_closed(stream)
    assert not terminal.is_closed(io.StringIO())


def test_only_one_module_prints() -> None:
    for file in Path(terminal.__file__).parent.glob("*.py"):
        calls = [
            node
            for node in ast.walk(ast.parse(file.read_text("utf-8")))
            if isinstance(node, ast.Call)
        ]
        printing = {ast.unparse(call.func) for call in calls} & {
            "print",
            "Console",
            "typer.secho",
            "sys.stdout.write",
        }
        assert not printing or file.name == "terminal.py"
