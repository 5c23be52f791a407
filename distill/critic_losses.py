"""What a student's critic is fitted to: pure functions of arrays, all of one form."""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from teachers.crl.networks import pairwise_logits

CriticLoss = Literal["embedding", "logits", "both"]


class Embeddings(NamedTuple):
    """Of the states and actions of a batch, and of its goals."""

    phi: Float[Array, "batch embed"]
    psi: Float[Array, "batch embed"]


def embedding_loss(
    student: Embeddings,
    teacher: Embeddings,
    basis: Float[Array, "teacher_embed embed"],
    temperature: float,
) -> Float[Array, ""]:
    """The share of the variance of the teacher's embeddings that the student's do not explain.

    Where it is zero, so is the difference of every value f(s, a, g) = -||phi - psi||, but for what `basis` leaves out.

    Args:
        student: what is fitted.
        teacher: the same rows.
        basis: orthonormal columns, onto which the teacher's embeddings are projected; see `fit_basis`.
        temperature: does not matter here.
    """
    of_states = _unexplained(student.phi, teacher.phi @ basis)
    return of_states + _unexplained(student.psi, teacher.psi @ basis)


def logit_loss(
    student: Embeddings,
    teacher: Embeddings,
    basis: Float[Array, "teacher_embed embed"],
    temperature: float,
) -> Float[Array, ""]:
    """KL(teacher || student) between the rows of the two batch-by-batch matrices of logits f(s_i, a_i, g_j).

    It says which goal belongs to a state and an action, as contrastive learning does; the level of a row is free. With
    the factor temperature^2 of Hinton et al. (arXiv 1503.02531), section 2.

    Args:
        student: what is fitted.
        teacher: the same rows.
        basis: does not matter here.
        temperature: by which logits are divided.
    """
    own = jax.nn.log_softmax(pairwise_logits(*student) / temperature)
    target = jax.nn.log_softmax(pairwise_logits(*teacher) / temperature)
    return temperature**2 * jnp.mean((jnp.exp(target) * (target - own)).sum(-1))


def both_losses(
    student: Embeddings,
    teacher: Embeddings,
    basis: Float[Array, "teacher_embed embed"],
    temperature: float,
) -> Float[Array, ""]:
    """The sum of `embedding_loss` and `logit_loss`, which say what the arguments are."""
    each = (student, teacher, basis, temperature)
    return embedding_loss(*each) + logit_loss(*each)


def fit_basis(
    phi: Float[Array, "rows teacher_embed"], psi: Float[Array, "rows teacher_embed"], size: int
) -> Float[Array, "teacher_embed size"]:
    """The directions in which states and goals differ most: a student of fewer dimensions keeps the values by them.

    Principal components of phi_i - psi_j over all i and j, about zero, since the value is the length of that.
    """
    if size >= phi.shape[1]:
        return jnp.eye(phi.shape[1], size)
    apart = jnp.mean(phi, axis=0) - jnp.mean(psi, axis=0)
    moment = jnp.cov(phi.T, ddof=0) + jnp.cov(psi.T, ddof=0) + jnp.outer(apart, apart)
    _, vectors = jnp.linalg.eigh(moment)
    return vectors[:, -size:]


def _unexplained(own: Array, target: Array) -> Array:
    spread = jnp.sum(jnp.var(target, axis=0))
    return jnp.mean(jnp.sum((own - target) ** 2, axis=-1)) / (spread + 1e-6)


CRITIC_LOSSES: Mapping[CriticLoss, Callable[[Embeddings, Embeddings, Array, float], Array]] = {
    "embedding": embedding_loss,
    "logits": logit_loss,
    "both": both_losses,
}
