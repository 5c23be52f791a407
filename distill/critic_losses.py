"""Losses of the student's critic: pure functions of arrays with the same arguments."""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from teachers.crl.networks import pairwise_logits, similarity

CriticLoss = Literal["embedding", "logits", "both", "value"]


class Embeddings(NamedTuple):
    """The embeddings of a batch: phi of its states and actions, psi of its goals."""

    phi: Float[Array, "batch embed"]
    psi: Float[Array, "batch embed"]


def embedding_loss(
    student: Embeddings,
    teacher: Embeddings,
    basis: Float[Array, "teacher_embed embed"],
    temperature: float,
) -> Float[Array, ""]:
    """Returns the share of the variance of the teacher's embeddings that the student's do not explain.

    If it is zero, every value f(s, a, g) = -||phi - psi|| equals the teacher's, apart from what `basis` leaves out.

    Args:
        student: the fitted embeddings.
        teacher: the embeddings of the same rows.
        basis: orthonormal columns, onto which the teacher's embeddings are projected; see `fit_basis`.
        temperature: not used.
    """
    phi_loss = _unexplained_variance(student.phi, teacher.phi @ basis)
    return phi_loss + _unexplained_variance(student.psi, teacher.psi @ basis)


def logit_loss(
    student: Embeddings,
    teacher: Embeddings,
    basis: Float[Array, "teacher_embed embed"],
    temperature: float,
) -> Float[Array, ""]:
    """Returns KL(teacher || student) between the rows of the two batch-by-batch matrices of logits f(s_i, a_i, g_j).

    Like contrastive learning, it fits which goal belongs to a state and an action, and leaves the mean of each row free. With
    the factor temperature^2 of Hinton et al. (arXiv 1503.02531), section 2.

    Args:
        student: the fitted embeddings.
        teacher: the embeddings of the same rows.
        basis: not used.
        temperature: divisor of the logits.
    """
    fitted = jax.nn.log_softmax(pairwise_logits(*student) / temperature)
    target = jax.nn.log_softmax(pairwise_logits(*teacher) / temperature)
    return temperature**2 * jnp.mean((jnp.exp(target) * (target - fitted)).sum(-1))


def both_losses(
    student: Embeddings,
    teacher: Embeddings,
    basis: Float[Array, "teacher_embed embed"],
    temperature: float,
) -> Float[Array, ""]:
    """Returns the sum of `embedding_loss` and `logit_loss`, which describe the arguments."""
    arguments = (student, teacher, basis, temperature)
    return embedding_loss(*arguments) + logit_loss(*arguments)


def value_loss(
    student: Embeddings,
    teacher: Embeddings,
    basis: Float[Array, "teacher_embed embed"],
    temperature: float,
) -> Float[Array, ""]:
    """Returns the share of the variance of the teacher's values f(s, a, g) that the student's do not explain.

    It is for goals that are seen from the robot: they belong to a state each, and cannot be embedded apart from it.

    Args:
        student: the fitted embeddings.
        teacher: the embeddings of the same rows.
        basis: not used.
        temperature: not used.
    """
    fitted, target = similarity(*student)[:, None], similarity(*teacher)[:, None]
    return _unexplained_variance(fitted, target)


def fit_basis(
    phi: Float[Array, "rows teacher_embed"], psi: Float[Array, "rows teacher_embed"], size: int
) -> Float[Array, "teacher_embed size"]:
    """Returns the directions in which the embeddings of states and goals differ most, as orthonormal columns.

    A student with smaller embeddings fits the teacher's in these directions, which preserve the values best. They are the
    principal components of phi_i - psi_j over all i and j about zero, not about the mean, because the value is the length
    of this difference.

    Args:
        phi: the teacher's embeddings of states and actions.
        psi: the teacher's embeddings of goals.
        size: number of columns.
    """
    if size >= phi.shape[1]:
        return jnp.eye(phi.shape[1], size)
    offset = jnp.mean(phi, axis=0) - jnp.mean(psi, axis=0)
    moment = jnp.cov(phi.T, ddof=0) + jnp.cov(psi.T, ddof=0) + jnp.outer(offset, offset)
    _, vectors = jnp.linalg.eigh(moment)
    return vectors[:, -size:]


def _unexplained_variance(fitted: Array, target: Array) -> Array:
    variance = jnp.sum(jnp.var(target, axis=0))
    return jnp.mean(jnp.sum((fitted - target) ** 2, axis=-1)) / (variance + 1e-6)


CRITIC_LOSSES: Mapping[CriticLoss, Callable[[Embeddings, Embeddings, Array, float], Array]] = {
    "embedding": embedding_loss,
    "logits": logit_loss,
    "both": both_losses,
    "value": value_loss,
}
