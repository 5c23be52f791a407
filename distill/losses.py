"""What a student's networks are fitted to: pure functions of arrays."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def policy_loss(
    mean: Float[Array, "batch act"],
    log_std: Float[Array, "batch act"],
    teacher_mean: Float[Array, "batch act"],
    teacher_log_std: Float[Array, "batch act"],
) -> Float[Array, ""]:
    """KL(teacher || student) between the Gaussians before the squashing, summed over the action.

    The squashing is a bijection, so this is the divergence of the action distributions themselves
    (Czarnecki et al., arXiv 1902.02186, section 3).
    """
    ratio = jnp.exp(2.0 * (teacher_log_std - log_std))
    distance = ((teacher_mean - mean) * jnp.exp(-log_std)) ** 2
    divergence = log_std - teacher_log_std + 0.5 * (ratio + distance - 1.0)
    return jnp.mean(divergence.sum(-1))


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
