"""Schedules of DAgger's beta: which of the two acts during the rollouts of a distillation, teacher or student."""

from collections.abc import Callable, Mapping
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Schedule = Literal["linear", "exponential", "teacher"]
HALVINGS = 4  # of an exponential beta before it is set to 0


def compute_beta(
    round: Int[Array, ""], schedule: Schedule, decay_rounds: float
) -> Float[Array, ""]:
    """Returns the share of the environments in which the teacher acts; in the first round it is 1.

    DAgger's beta_i (Ross et al., arXiv 1011.0686, algorithm 3.1).

    Args:
        round: index of the round, from 0.
        schedule: `linear` or `exponential`, both 0 from `decay_rounds` on; `teacher` stays at 1, which is behaviour
            cloning.
        decay_rounds: number of rounds in which beta falls from 1 to 0.
    """
    return SCHEDULES[schedule](round, max(1.0, decay_rounds))


def _linear(round: Array, decay_rounds: float) -> Array:
    return jnp.clip(1.0 - round / decay_rounds, 0.0, 1.0)


def _exponential(round: Array, decay_rounds: float) -> Array:
    return jnp.where(round < decay_rounds, 0.5 ** (HALVINGS * round / decay_rounds), 0.0)


def _constant(round: Array, decay_rounds: float) -> Array:
    return jnp.ones(())


SCHEDULES: Mapping[Schedule, Callable[[Array, float], Array]] = {
    "linear": _linear,
    "exponential": _exponential,
    "teacher": _constant,
}
