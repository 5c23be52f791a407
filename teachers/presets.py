"""Named sets of settings, which options override as they do any other default."""

from collections.abc import Mapping
from typing import Any

from teachers.runs.errors import InputError

# The table of hyper-parameters of Wang et al. (arXiv 2503.14858) and the defaults of their code. They used the same for
# every task, with 50 to 100 million steps. Their shallow networks (depth 4) had a batch of 256.
_PAPER: Mapping[str, Any] = {
    **{f"{network}.depth": 64 for network in ("actor", "phi", "psi")},
    **{f"{network}.width": 256 for network in ("actor", "phi", "psi")},
    **{f"{network}.residual": "published" for network in ("actor", "phi", "psi")},
    "steps": 100_000_000,
    "embedding": 64,
    "rollout.environments": 512,
    "rollout.steps": 62,
    "rollout.replay_steps": 10_000,
    "rollout.prefill_steps": 1000,
    "rollout.deterministic": 0.0,
    "rollout.noise_steps": 1,
    "rollout.random": 0.0,
    "rollout.best_of": 1,
    "learning.gradient_steps": 800,
    "learning.batch": 512,
    "learning.learning_rate": 3e-4,
    "learning.discount": 0.99,
    "learning.logsumexp_penalty": 0.1,
    "learning.initial_temperature": 1.0,
    "learning.target_entropy": -0.5,
    "learning.entropy_fall": 0.0,
    "learning.rate_fall": 0.0,
    "learning.random_goals": 0.0,
    "commanded_critic": False,
    "logging.episodes": 128,
    "logging.evaluate_every": 32,
    "logging.checkpoint_every": 128,
}

PRESETS: Mapping[str, Mapping[str, Any]] = {"paper": _PAPER}


def preset_settings(name: str) -> Mapping[str, Any]:
    """Returns the settings of a preset, by dotted key.

    Raises:
        InputError: there is no preset of this name.
    """
    if name not in PRESETS:
        raise InputError(f"unknown preset {name!r}; choose from {', '.join(PRESETS)}")
    return PRESETS[name]
