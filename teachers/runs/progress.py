"""The type of the functions by which long calls report their progress."""

from collections.abc import Callable, Mapping
from typing import Any

# Takes the control steps done, the control steps in all, and the newest figures by name.
Progress = Callable[[int, int, Mapping[str, Any]], None]


def ignore_progress(done: int, total: int, figures: Mapping[str, Any]) -> None:
    """Does nothing; the default `Progress` of all long calls."""
