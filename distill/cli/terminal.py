"""The standard streams: text is printed as text, whole lines in a pipe, in any encoding, and for as long as somebody reads.

What is printed may come from a file of somebody else. Here alone it is decided how it reaches the terminal.
"""

import io
import os
import re
import select
import sys
import traceback
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

# What a terminal obeys and does not show: control characters but tab and newline, and marks that reorder or hide text.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
)
NARROWEST = 20  # columns, below which tables are not laid out
UNLIMITED = 1_000_000  # columns, where lines are not cut


def prepare_streams() -> None:
    """Makes the standard streams take any text.

    Characters that their encoding lacks are replaced. A stream that the caller has closed becomes the null device, so
    that no file that is opened later takes its number and receives what libraries print.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - stays open
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def show_controls(text: str) -> str:
    """Returns a text with control characters written as Python writes them, such as `\\x1b`."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def print_line(text: str) -> None:
    """Prints one line on stdout."""
    print(_to_line(text))


def print_message(message: str) -> None:
    """Prints one line on stderr."""
    try:
        print(_to_line(message), file=sys.stderr, flush=True)
    except OSError:  # nobody reads messages any more, which is no reason to end the work
        discard(sys.stderr)


def print_error(message: str) -> None:
    """Prints an error as one line on stderr."""
    print_message(f"error: {message}")


def print_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Prints the traceback of a defect on stderr, as `sys.excepthook`."""
    text = "".join(traceback.format_exception(kind, error, trace))
    print(show_controls(text), file=sys.stderr, end="")


def discard(stream: TextIO) -> None:
    """Drops what is still in a stream that cannot be written, so that Python does not fail to write it at its end."""
    with open(os.devnull, "wb") as nowhere, suppress(OSError):
        os.dup2(nowhere.fileno(), stream.fileno())


def is_closed(stream: TextIO) -> bool:
    """Returns whether a stream is a pipe that nobody reads any more."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
    except OSError:  # it is no file
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


class TextConsole(Console):
    """A console that prints text as text: no markup, no control characters, and whole lines where there is no terminal."""

    def __init__(self, *, stderr: bool = False) -> None:
        """Opens the console on stdout, or on stderr."""
        self.on_terminal = (sys.stderr if stderr else sys.stdout).isatty()
        size: dict[str, Any] = {} if self.on_terminal else {"width": UNLIMITED, "height": 1}
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False, **size)
        if self.width < NARROWEST:
            self.width = NARROWEST

    def render_str(self, text: str, **options: Any) -> Text:
        """Returns a string as text."""
        return super().render_str(show_controls(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Yields the segments of anything that can be printed."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=show_controls(segment.text))

    def on_broken_pipe(self) -> None:
        """Raises the error again that is being handled, which ends the command."""
        raise


def _to_line(text: str) -> str:
    return show_controls(re.sub(r"\s*\n\s*", " ", text.strip()))
