"""What a student's networks are fitted to: pure functions of arrays."""

import jax.numpy as jnp
from jaxtyping import Array, Float

SPREAD_WEIGHT = 0.01  # the mode is what a robot executes


def policy_loss(
    mean: Float[Array, "batch act"],
    log_std: Float[Array, "batch act"],
    teacher_mean: Float[Array, "batch act"],
    teacher_log_std: Float[Array, "batch act"],
) -> Float[Array, ""]:
    """How far the student's action distribution is from the teacher's, by its mode and its spread.

    The squared error of the squashed mean, which is the action that a deployed policy takes, and of the
    log standard deviation, each averaged over the action. On `reacher` it kept more of the teacher than the
    KL divergence of the two Gaussians (Rusu et al., arXiv 1511.06295, eq. 3) at equal steps, whose weight of
    1 / variance on the mean is spent on saturated actions; see benchmarks/RESULTS.md.
    """
    mode = (jnp.tanh(mean) - jnp.tanh(teacher_mean)) ** 2
    spread = (log_std - teacher_log_std) ** 2
    return jnp.mean(mode + SPREAD_WEIGHT * spread)


def critic_loss(
    phi: Float[Array, "batch embed"],
    psi: Float[Array, "batch embed"],
    teacher_phi: Float[Array, "batch embed"],
    teacher_psi: Float[Array, "batch embed"],
) -> Float[Array, ""]:
    """Squared distance of the student's embeddings from the teacher's.

    Where it is zero, so is the difference of every value f(s, a, g) = -||phi - psi||.
    """
    return jnp.mean(((phi - teacher_phi) ** 2).sum(-1) + ((psi - teacher_psi) ** 2).sum(-1))
