import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from teachers.crl.networks import (
    LOG_STD_MAX,
    LOG_STD_MIN,
    bounded_log_std,
    pairwise_logits,
    sample_action,
    similarity,
)


def test_sample_action_has_the_density_of_the_squashed_gaussian() -> None:
    mean, log_std = jnp.array([[0.3, -0.8]]), jnp.array([[-0.5, 0.2]])
    action, log_prob = sample_action(jax.random.key(3), mean, log_std)
    before = np.arctanh(np.asarray(action, np.float64))
    expected = stats.norm.logpdf(before, mean, np.exp(log_std)) - np.log1p(
        -(np.asarray(action) ** 2)
    )
    assert log_prob[0] == pytest.approx(expected.sum(), rel=1e-4)


def test_sample_action_has_finite_density_for_saturated_actions() -> None:
    _, log_prob = sample_action(jax.random.key(0), jnp.array([50.0]), jnp.array([-5.0]))
    assert np.isfinite(log_prob)


def test_bounded_log_std_stays_in_its_range() -> None:
    bounds = bounded_log_std(jnp.array([-1e6, 0.0, 1e6]))
    np.testing.assert_allclose(bounds, [LOG_STD_MIN, (LOG_STD_MIN + LOG_STD_MAX) / 2, LOG_STD_MAX])


def test_similarity_is_the_negative_distance_and_the_diagonal_of_pairwise_logits() -> None:
    phi, psi = jax.random.normal(jax.random.key(0), (2, 4, 3))
    pairs = pairwise_logits(phi, psi)
    expected = -np.linalg.norm(np.asarray(phi)[:, None] - np.asarray(psi)[None], axis=-1)
    np.testing.assert_allclose(pairs, expected, rtol=1e-5)
    np.testing.assert_allclose(similarity(phi, psi), np.diagonal(expected), rtol=1e-5)


def test_similarity_has_a_finite_gradient_where_embeddings_coincide() -> None:
    gradient = jax.grad(lambda phi: similarity(phi, jnp.ones(3)))(jnp.ones(3))
    np.testing.assert_array_equal(gradient, np.zeros(3))
