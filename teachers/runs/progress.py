"""How long calls say how far they have come."""

from collections.abc import Callable, Mapping
from typing import Any

# Called with the control steps done, those in all, and the newest figures.
Progress = Callable[[int, int, Mapping[str, Any]], None]


def silent(done: int, total: int, figures: Mapping[str, Any]) -> None:
    """A `Progress` that says nothing."""
