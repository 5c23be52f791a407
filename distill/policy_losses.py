"""Losses of the student's policy: pure functions of arrays with the same arguments."""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

PolicyLoss = Literal["mode", "kl", "reverse_kl"]
SPREAD_WEIGHT = 0.01  # small, because a robot executes the mode


class Gaussian(NamedTuple):
    """Action distributions before the squashing."""

    mean: Float[Array, "batch act"]
    log_std: Float[Array, "batch act"]


def mode_loss(student: Gaussian, teacher: Gaussian) -> Float[Array, ""]:
    """Returns the weighted squared error of the student's action distribution, in its mode and its spread.

    The mode is the squashed mean, which is the action that a deployed policy takes; the spread is the log standard
    deviation. Both errors are averaged over batch and action. Errors of the mode are weighted by the teacher's precision,
    1 / variance before the squashing, divided by its mean over batch and action: soft actor-critic keeps an action as random
    as its value allows (Haarnoja et al., arXiv 1812.05905), so that a high precision marks actions whose errors are
    expensive. The networks' bounds of the standard deviation allow weights that differ by a factor of a million, so with a
    teacher whose spread collapses only few rows count.

    Args:
        student: the fitted distributions.
        teacher: the distributions of the same states and goals.
    """
    precision = jnp.exp(-2 * teacher.log_std)
    mode = (jnp.tanh(student.mean) - jnp.tanh(teacher.mean)) ** 2
    spread = (student.log_std - teacher.log_std) ** 2
    return jnp.mean(precision / jnp.mean(precision) * mode + SPREAD_WEIGHT * spread)


def kl_loss(student: Gaussian, teacher: Gaussian) -> Float[Array, ""]:
    """Returns KL(teacher || student) of the Gaussians before the squashing, which does not change it.

    Rusu et al. (arXiv 1511.06295), eq. 3. It weights errors of the mean by 1 / variance, for saturated actions too.

    Args:
        student: the fitted distributions.
        teacher: the distributions of the same states and goals.
    """
    return _divergence(teacher, student)


def reverse_kl_loss(student: Gaussian, teacher: Gaussian) -> Float[Array, ""]:
    """Returns KL(student || teacher) of the Gaussians before the squashing.

    Czarnecki et al. (arXiv 1902.02186), section 3.

    Args:
        student: the fitted distributions.
        teacher: the distributions of the same states and goals.
    """
    return _divergence(student, teacher)


def _divergence(first: Gaussian, other: Gaussian) -> Array:
    """Returns KL(first || other), summed over the action and averaged over the batch."""
    ratio = jnp.exp(2 * (first.log_std - other.log_std))
    distance = ((first.mean - other.mean) * jnp.exp(-other.log_std)) ** 2
    return jnp.mean((other.log_std - first.log_std + 0.5 * (ratio + distance - 1)).sum(-1))


POLICY_LOSSES: Mapping[PolicyLoss, Callable[[Gaussian, Gaussian], Array]] = {
    "mode": mode_loss,
    "kl": kl_loss,
    "reverse_kl": reverse_kl_loss,
}
