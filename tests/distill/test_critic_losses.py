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
WHOLE = jnp.eye(4)


def test_embedding_loss_is_one_for_the_mean_and_none_for_a_copy() -> None:
    mean = Embeddings(*(jnp.broadcast_to(x.mean(axis=0), x.shape) for x in TEACHER))
    assert embedding_loss(mean, TEACHER, WHOLE, 1.0) == pytest.approx(2.0, rel=1e-4)
    assert embedding_loss(TEACHER, TEACHER, WHOLE, 1.0) == 0


def test_logit_loss_by_hand() -> None:
    def rows(phi, psi) -> np.ndarray:
        apart = np.asarray(phi)[:, None] - np.asarray(psi)[None]
        return log_softmax(-np.linalg.norm(apart, axis=-1) / 2.0, axis=1)

    own, target = rows(*STUDENT), rows(*TEACHER)
    expected = 4.0 * (np.exp(target) * (target - own)).sum(axis=1).mean()
    assert logit_loss(STUDENT, TEACHER, WHOLE, 2.0) == pytest.approx(expected, rel=1e-4)


def test_both_is_the_sum() -> None:
    each = [loss(STUDENT, TEACHER, WHOLE, 1.5) for loss in (embedding_loss, logit_loss)]
    assert both_losses(STUDENT, TEACHER, WHOLE, 1.5) == pytest.approx(float(sum(each)))


@pytest.mark.parametrize("loss", CRITIC_LOSSES.values(), ids=CRITIC_LOSSES)
def test_a_perfect_copy_has_no_loss_and_no_gradient(loss) -> None:
    assert loss(TEACHER, TEACHER, WHOLE, 1.0) == pytest.approx(0, abs=1e-6)
    for gradient in jax.grad(loss)(TEACHER, TEACHER, WHOLE, 1.0):
        np.testing.assert_allclose(gradient, np.zeros((6, 4)), atol=1e-5)


def test_a_basis_keeps_the_values_where_the_embeddings_lie_in_fewer_dimensions() -> None:
    plane = jnp.linalg.qr(jax.random.normal(jax.random.key(2), (16, 3)))[0]
    phi, psi = (x[:, :3] @ plane.T for x in TEACHER)
    basis = fit_basis(phi, psi, 3)
    np.testing.assert_allclose(basis.T @ basis, np.eye(3), atol=1e-5)
    kept = pairwise_logits(phi @ basis, psi @ basis)
    np.testing.assert_allclose(kept, pairwise_logits(phi, psi), rtol=1e-4)


def test_a_basis_keeps_what_sets_goals_apart_from_states() -> None:
    """A distance between the two clouds is in every value, though neither varies along it."""
    away = jnp.zeros(8).at[5].set(10.0)
    phi, psi = 0.1 * jax.random.normal(jax.random.key(3), (2, 50, 8))
    basis = fit_basis(phi, psi + away, 1)
    np.testing.assert_allclose(jnp.abs(basis[5, 0]), 1.0, atol=1e-2)


def test_a_basis_of_all_dimensions_changes_nothing() -> None:
    np.testing.assert_array_equal(fit_basis(*TEACHER, 4), WHOLE)
