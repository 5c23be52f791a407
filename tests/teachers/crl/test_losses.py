import jax
import jax.numpy as jnp
import numpy as np
import pytest

from teachers.crl.losses import actor_loss, info_nce, temperature_loss


def test_info_nce_of_two_pairs_by_hand() -> None:
    logits = jnp.array([[0.0, -1.0], [-2.0, -3.0]])
    # Row 0: log(1 + e^-1) - 0; row 1: -2 + log(1 + e^-1) + 3.
    tail = np.log1p(np.exp(-1.0))
    loss, accuracy = info_nce(logits, 0.0)
    assert loss == pytest.approx((tail + 1.0 + tail) / 2, rel=1e-6)
    assert accuracy == pytest.approx(0.5)  # the second row prefers the other's goal


def test_info_nce_penalty_is_the_mean_squared_normaliser() -> None:
    logits = jnp.array([[0.0, -1.0], [-2.0, -3.0]])
    normalisers = np.log1p(np.exp(-1.0)) + np.array([0.0, -2.0])
    plain, penalised = info_nce(logits, 0.0)[0], info_nce(logits, 0.1)[0]
    assert penalised - plain == pytest.approx(0.1 * np.mean(normalisers**2), rel=1e-5)


def test_info_nce_of_equal_logits_is_log_batch() -> None:
    assert info_nce(jnp.full((16, 16), -3.0), 0.0)[0] == pytest.approx(np.log(16), rel=1e-6)


def test_info_nce_gradient_raises_positives_and_lowers_negatives() -> None:
    grad = jax.grad(lambda logits: info_nce(logits, 0.0)[0])(jnp.zeros((3, 3)))
    np.testing.assert_allclose(grad, (np.ones((3, 3)) / 3 - np.eye(3)) / 3, atol=1e-6)


def test_actor_loss_by_hand() -> None:
    loss = actor_loss(jnp.array([-1.0, -3.0]), jnp.array([0.5, 1.5]), jnp.float32(0.2))
    assert loss == pytest.approx(0.2 * 1.0 + 2.0)


def test_temperature_loss_raises_temperature_when_entropy_is_below_target() -> None:
    gradient = jax.grad(temperature_loss)
    entropy = 1.0
    log_probs = jnp.full(4, -entropy)
    assert gradient(jnp.float32(0.0), log_probs, 2.0) == pytest.approx(
        entropy - 2.0
    )  # falls: rises
    assert gradient(jnp.float32(0.0), log_probs, 0.5) == pytest.approx(entropy - 0.5)


def test_temperature_loss_sends_no_gradient_into_the_policy() -> None:
    gradient = jax.grad(temperature_loss, argnums=1)(jnp.float32(0.0), jnp.ones(4), 0.0)
    np.testing.assert_array_equal(gradient, np.zeros(4))
