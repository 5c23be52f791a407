"""Settings of `train-teacher` and `distill` by kind of task, for `Task.training` and `Task.distillation`.

They are those with which tasks of this project were learned: benchmarks/notes/learned-tasks.md.
"""

from collections.abc import Mapping
from typing import Any

# Bringing a hand to a place, with which `arm_reach` learned.
REACHING: Mapping[str, Any] = {"steps": 1_000_000}

# Flying to a place and staying there, for which the horizon has to be long: with a discount of 0.97 a drone flies through its goals.
FLYING: Mapping[str, Any] = {
    "steps": 1_000_000,
    "learning.discount": 0.99,
    "learning.rate_fall": 0.95,
}

# Walking to a place, with which ants and the cheetah learned to walk to their goals (benchmarks/notes/learned-tasks.md), for episodes
# of 1,000 steps: a longer horizon, a learning rate that falls, and fewer of the long evaluations.
WALKING: Mapping[str, Any] = {
    **{f"{network}.depth": 8 for network in ("actor", "phi", "psi")},
    **{f"{network}.width": 128 for network in ("actor", "phi", "psi")},
    "steps": 8_000_000,
    "rollout.replay_steps": 4000,
    "rollout.deterministic": 0.5,
    "learning.discount": 0.99,
    "learning.initial_temperature": 0.3,
    "learning.gradient_steps": 96,
    "learning.learning_rate": 5e-4,
    "learning.rate_fall": 0.95,
    "learning.random_goals": 0.5,
    "logging.evaluate_every": 60,
    "logging.episodes": 128,
}

# And the settings of their students. How a walker moves its legs is much for two layers of 64 units, which then stand still where the teacher
# walks, and other goals than its own cost a student more than they help (benchmarks/notes/learned-tasks.md).
WALKING_DISTILLATION: Mapping[str, Any] = {
    "student.policy.width": 256,
    "collect.goals_per_state": 1,
    "collect.hindsight_share": 0.0,
}

# Bringing a loose object to a place by hand, tried on `arm_push_easy`, `arm_push_hard` and `arm_grasp`, and not one by one.
PUSHING: Mapping[str, Any] = {
    **{f"{network}.depth": 8 for network in ("actor", "phi", "psi")},
    **{f"{network}.width": 128 for network in ("actor", "phi", "psi")},
    "steps": 12_000_000,
    "rollout.noise_steps": 5,
    "rollout.random": 0.2,
    "rollout.replay_steps": 4000,
    "learning.random_goals": 0.5,
    "learning.initial_temperature": 1.0,
    "learning.discount": 0.97,
    "learning.gradient_steps": 96,
    "learning.learning_rate": 5e-4,
    "learning.rate_fall": 0.95,
    "logging.evaluate_every": 32,
    "logging.checkpoint_every": 64,
}
