"""What a student's policy is fitted to: pure functions of arrays, all of one form."""

from collections.abc import Callable, Mapping
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

PolicyLoss = Literal["mode", "kl", "reverse_kl"]
SPREAD_WEIGHT = 0.01  # the mode is what a robot executes


def mode_loss(
    mean: Float[Array, "batch act"],
    log_std: Float[Array, "batch act"],
    teacher_mean: Float[Array, "batch act"],
    teacher_log_std: Float[Array, "batch act"],
) -> Float[Array, ""]:
    """How far the student's action distribution is from the teacher's, by its mode and its spread.

    The squared error of the squashed mean, which is the action that a deployed policy takes, and of the
    log standard deviation, each averaged over the action.

    Args:
        mean: of the student's Gaussian, before the squashing.
        log_std: of the same.
        teacher_mean: of the teacher's.
        teacher_log_std: of the same.
    """
    mode = (jnp.tanh(mean) - jnp.tanh(teacher_mean)) ** 2
    spread = (log_std - teacher_log_std) ** 2
    return jnp.mean(mode + SPREAD_WEIGHT * spread)


def kl_loss(
    mean: Float[Array, "batch act"],
    log_std: Float[Array, "batch act"],
    teacher_mean: Float[Array, "batch act"],
    teacher_log_std: Float[Array, "batch act"],
) -> Float[Array, ""]:
    """KL(teacher || student) of the Gaussians before the squashing, which does not change it.

    Rusu et al. (arXiv 1511.06295), eq. 3. Its weight of 1 / variance on the mean is spent on saturated actions too.

    Args:
        mean: see `mode_loss`.
        log_std: see `mode_loss`.
        teacher_mean: see `mode_loss`.
        teacher_log_std: see `mode_loss`.
    """
    return _gaussian_kl(teacher_mean, teacher_log_std, mean, log_std)


def reverse_kl_loss(
    mean: Float[Array, "batch act"],
    log_std: Float[Array, "batch act"],
    teacher_mean: Float[Array, "batch act"],
    teacher_log_std: Float[Array, "batch act"],
) -> Float[Array, ""]:
    """KL(student || teacher) of the Gaussians before the squashing: Czarnecki et al. (arXiv 1902.02186), section 3.

    Args:
        mean: see `mode_loss`.
        log_std: see `mode_loss`.
        teacher_mean: see `mode_loss`.
        teacher_log_std: see `mode_loss`.
    """
    return _gaussian_kl(mean, log_std, teacher_mean, teacher_log_std)


def _gaussian_kl(mean: Array, log_std: Array, other_mean: Array, other_log_std: Array) -> Array:
    """KL(first || other), summed over the action and averaged over the batch."""
    ratio = jnp.exp(2 * (log_std - other_log_std))
    distance = ((mean - other_mean) * jnp.exp(-other_log_std)) ** 2
    return jnp.mean((other_log_std - log_std + 0.5 * (ratio + distance - 1)).sum(-1))


POLICY_LOSSES: Mapping[PolicyLoss, Callable[[Array, Array, Array, Array], Array]] = {
    "mode": mode_loss,
    "kl": kl_loss,
    "reverse_kl": reverse_kl_loss,
}
