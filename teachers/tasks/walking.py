"""What the tasks of walking robots have in common."""

from collections.abc import Mapping
from typing import Any

# Teacher settings with which ants and the cheetah learned to walk to their goals (benchmarks/notes/learned-tasks.md), for episodes
# of 1,000 steps: a longer horizon, and fewer of the long evaluations.
TRAINING: Mapping[str, Any] = {
    **{f"{network}.depth": 8 for network in ("actor", "phi", "psi")},
    **{f"{network}.width": 128 for network in ("actor", "phi", "psi")},
    "steps": 8_000_000,
    "rollout.replay_steps": 4000,
    "rollout.deterministic": 0.5,
    "learning.discount": 0.99,
    "learning.initial_temperature": 0.3,
    "learning.gradient_steps": 96,
    "learning.learning_rate": 5e-4,
    "learning.random_goals": 0.5,
    "logging.evaluate_every": 60,
    "logging.episodes": 128,
}

# Distillation settings. How a walker moves its legs is much for two layers of 64 units, which then stand still where the teacher
# walks, and other goals than its own cost a student more than they help (benchmarks/notes/learned-tasks.md).
DISTILLATION: Mapping[str, Any] = {
    "student.policy.width": 256,
    "collect.goals_per_state": 1,
    "collect.hindsight_share": 0.0,
}


def is_outside(height: Any, limits: tuple[float, float]) -> Any:
    """Returns whether a height `[*batch]` is below the lower or above the upper limit (m)."""
    return (height < limits[0]) | (height > limits[1])
