import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill.losses import SPREAD_WEIGHT, critic_loss, policy_loss


def test_policy_loss_by_hand() -> None:
    mean, teacher_mean = jnp.array([[0.0, 10.0]]), jnp.array([[1.0, 20.0]])
    log_std, teacher_log_std = jnp.array([[-1.0, 0.0]]), jnp.array([[-1.0, 0.5]])
    expected = (np.tanh(1.0) ** 2 + 0.0 + SPREAD_WEIGHT * 0.25) / 2
    assert policy_loss(mean, log_std, teacher_mean, teacher_log_std) == pytest.approx(expected)


def test_policy_loss_ignores_the_mean_of_actions_that_are_saturated_anyway() -> None:
    zeros = jnp.zeros((1, 1))
    far = policy_loss(jnp.full((1, 1), 9.0), zeros, jnp.full((1, 1), 20.0), zeros)
    near = policy_loss(jnp.full((1, 1), 0.0), zeros, jnp.full((1, 1), 0.5), zeros)
    assert far < 1e-12 < near


def test_critic_loss_by_hand() -> None:
    phi, psi = jnp.zeros((2, 2)), jnp.ones((2, 2))
    loss = critic_loss(phi, psi, jnp.array([[3.0, 4.0], [0.0, 0.0]]), jnp.array([[1.0, 2.0]] * 2))
    assert loss == pytest.approx((25.0 + 0.0) / 2 + 1.0)


@pytest.mark.parametrize("loss", [policy_loss, critic_loss])
def test_a_perfect_copy_has_no_loss_and_no_gradient(loss) -> None:
    a, b = jax.random.normal(jax.random.key(0), (2, 5, 3))
    assert loss(a, b, a, b) == 0
    for gradient in jax.grad(loss, argnums=(0, 1))(a, b, a, b):
        np.testing.assert_array_equal(gradient, np.zeros((5, 3)))
