"""What the tasks of walking robots have in common."""

from collections.abc import Mapping
from typing import Any

# Teacher settings for episodes of 1,000 steps: a longer horizon, and fewer of the long evaluations.
TRAINING: Mapping[str, Any] = {
    "steps": 8_000_000,
    "learning.discount": 0.99,
    "learning.initial_temperature": 0.3,
    "learning.gradient_steps": 128,
    "logging.evaluate_every": 60,
    "logging.episodes": 128,
}


def is_outside(height: Any, limits: tuple[float, float]) -> Any:
    """Returns whether a height `[*batch]` is below the lower or above the upper limit (m)."""
    return (height < limits[0]) | (height > limits[1])
