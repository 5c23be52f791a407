import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from distill.critic_losses import (
    CRITIC_LOSSES,
    Embeddings,
    both_losses,
    embedding_loss,
    fit_basis,
    logit_loss,
)
from teachers.crl.networks import pairwise_logits

TEACHER = Embeddings(*jax.random.normal(jax.random.key(0), (2, 6, 4)))
STUDENT = Embeddings(*jax.random.normal(jax.random.key(1), (2, 6, 4)))
IDENTITY = jnp.eye(4)


def test_embedding_loss_is_two_for_means_and_zero_for_copy() -> None:
    mean = Embeddings(*(jnp.broadcast_to(x.mean(axis=0), x.shape) for x in TEACHER))
    assert embedding_loss(mean, TEACHER, IDENTITY, 1.0) == pytest.approx(2.0, rel=1e-4)
    assert embedding_loss(TEACHER, TEACHER, IDENTITY, 1.0) == 0


def test_logit_loss_equals_formula() -> None:
    def rows(phi, psi) -> np.ndarray:
        apart = np.asarray(phi)[:, None] - np.asarray(psi)[None]
        return log_softmax(-np.linalg.norm(apart, axis=-1) / 2.0, axis=1)

    fitted, target = rows(*STUDENT), rows(*TEACHER)
    expected = 4.0 * (np.exp(target) * (target - fitted)).sum(axis=1).mean()
    assert logit_loss(STUDENT, TEACHER, IDENTITY, 2.0) == pytest.approx(expected, rel=1e-4)


def test_both_losses_is_the_sum() -> None:
    each = [loss(STUDENT, TEACHER, IDENTITY, 1.5) for loss in (embedding_loss, logit_loss)]
    assert both_losses(STUDENT, TEACHER, IDENTITY, 1.5) == pytest.approx(float(sum(each)))


@pytest.mark.parametrize("loss", CRITIC_LOSSES.values(), ids=CRITIC_LOSSES)
def test_critic_losses_of_perfect_copy_have_no_gradient(loss) -> None:
    assert loss(TEACHER, TEACHER, IDENTITY, 1.0) == pytest.approx(0, abs=1e-6)
    for gradient in jax.grad(loss)(TEACHER, TEACHER, IDENTITY, 1.0):
        np.testing.assert_allclose(gradient, np.zeros((6, 4)), atol=1e-5)


def test_fit_basis_keeps_values_of_embeddings_in_a_subspace() -> None:
    plane = jnp.linalg.qr(jax.random.normal(jax.random.key(2), (16, 3)))[0]
    phi, psi = (x[:, :3] @ plane.T for x in TEACHER)
    basis = fit_basis(phi, psi, 3)
    np.testing.assert_allclose(basis.T @ basis, np.eye(3), atol=1e-5)
    projected = pairwise_logits(phi @ basis, psi @ basis)
    np.testing.assert_allclose(projected, pairwise_logits(phi, psi), rtol=1e-4)


def test_fit_basis_keeps_distance_between_states_and_goals() -> None:
    """The offset between states and goals contributes to every value, although neither varies along it."""
    away = jnp.zeros(8).at[5].set(10.0)
    phi, psi = 0.1 * jax.random.normal(jax.random.key(3), (2, 50, 8))
    basis = fit_basis(phi, psi + away, 1)
    np.testing.assert_allclose(jnp.abs(basis[5, 0]), 1.0, atol=1e-2)


def test_fit_basis_of_all_dimensions_is_identity() -> None:
    np.testing.assert_array_equal(fit_basis(*TEACHER, 4), IDENTITY)
