"""What a student's policy is fitted to: pure functions of arrays, all of one form."""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

PolicyLoss = Literal["mode", "kl", "reverse_kl"]
SPREAD_WEIGHT = 0.01  # what the layers hold is for the mode, which a robot executes


class Gaussian(NamedTuple):
    """Action distributions, before they are squashed."""

    mean: Float[Array, "batch act"]
    log_std: Float[Array, "batch act"]


def mode_loss(student: Gaussian, teacher: Gaussian) -> Float[Array, ""]:
    """How far the student's action distribution is from the teacher's, by its mode and its spread.

    The squared error of the squashed mean, which is the action that a deployed policy takes, and of the
    log standard deviation, each averaged over the action. Errors of the mean count by the teacher's precision, 1 / variance
    before the squashing, relative to its mean over batch and action: soft actor-critic keeps an action as random as its
    value allows (Haarnoja et al., arXiv 1812.05905), so that the teacher says itself where an error is dear. The
    bounds of its networks' standard deviation allow a million to 1, so a teacher whose spread collapses has few rows count.
    """
    precision = jnp.exp(-2 * teacher.log_std)
    mode = (jnp.tanh(student.mean) - jnp.tanh(teacher.mean)) ** 2
    spread = (student.log_std - teacher.log_std) ** 2
    return jnp.mean(precision / jnp.mean(precision) * mode + SPREAD_WEIGHT * spread)


def kl_loss(student: Gaussian, teacher: Gaussian) -> Float[Array, ""]:
    """KL(teacher || student) of the Gaussians before the squashing, which does not change it.

    Rusu et al. (arXiv 1511.06295), eq. 3. Its weight of 1 / variance on the mean is spent on saturated actions too.
    """
    return _divergence(teacher, student)


def reverse_kl_loss(student: Gaussian, teacher: Gaussian) -> Float[Array, ""]:
    """KL(student || teacher) of the Gaussians before the squashing: Czarnecki et al. (arXiv 1902.02186), section 3."""
    return _divergence(student, teacher)


def _divergence(first: Gaussian, other: Gaussian) -> Array:
    """KL(first || other), summed over the action and averaged over the batch."""
    ratio = jnp.exp(2 * (first.log_std - other.log_std))
    distance = ((first.mean - other.mean) * jnp.exp(-other.log_std)) ** 2
    return jnp.mean((other.log_std - first.log_std + 0.5 * (ratio + distance - 1)).sum(-1))


POLICY_LOSSES: Mapping[PolicyLoss, Callable[[Gaussian, Gaussian], Array]] = {
    "mode": mode_loss,
    "kl": kl_loss,
    "reverse_kl": reverse_kl_loss,
}
