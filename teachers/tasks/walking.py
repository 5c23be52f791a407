"""What the tasks of walking robots have in common."""

from typing import Any


def is_outside(height: Any, limits: tuple[float, float]) -> Any:
    """Returns whether a height `[*batch]` is below the lower or above the upper limit (m)."""
    return (height < limits[0]) | (height > limits[1])
