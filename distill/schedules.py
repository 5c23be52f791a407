"""Who acts during the rollouts of a distillation, the teacher or the student."""

from collections.abc import Callable, Mapping
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Schedule = Literal["linear", "exponential", "teacher"]
HALVINGS = 4  # of the teacher's share before an exponential handover ends


def teacher_share(round: Int[Array, ""], schedule: Schedule, rounds: float) -> Float[Array, ""]:
    """Share of the environments in which the teacher acts: 1 in the first round.

    DAgger's beta_i (Ross et al., arXiv 1011.0686, algorithm 3.1).

    Args:
        round: from 0.
        schedule: `linear` or `exponential`, both 0 from `rounds` on; `teacher` stays at 1, which is behaviour cloning.
        rounds: over which the student takes over.
    """
    return SCHEDULES[schedule](round, max(1.0, rounds))


def _linear(round: Array, rounds: float) -> Array:
    return jnp.clip(1.0 - round / rounds, 0.0, 1.0)


def _exponential(round: Array, rounds: float) -> Array:
    return jnp.where(round < rounds, 0.5 ** (HALVINGS * round / rounds), 0.0)


def _teacher(round: Array, rounds: float) -> Array:
    return jnp.ones(())


SCHEDULES: Mapping[Schedule, Callable[[Array, float], Array]] = {
    "linear": _linear,
    "exponential": _exponential,
    "teacher": _teacher,
}
