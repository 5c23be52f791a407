import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from distill.policy_losses import (
    POLICY_LOSSES,
    SPREAD_WEIGHT,
    Gaussian,
    kl_loss,
    mode_loss,
    reverse_kl_loss,
)


def test_mode_loss_equals_formula() -> None:
    student = Gaussian(jnp.array([[0.0, 10.0, 0.5]]), jnp.array([[-1.0, 0.0, 0.0]]))
    teacher = Gaussian(jnp.array([[1.0, 20.0, 0.0]]), jnp.array([[-1.0, 0.5, 0.0]]))
    precision = np.exp([2.0, -1.0, 0.0])
    weight = 3 * precision / precision.sum()
    mode = weight[0] * np.tanh(1.0) ** 2 + weight[2] * np.tanh(0.5) ** 2
    assert mode_loss(student, teacher) == pytest.approx((mode + SPREAD_WEIGHT * 0.25) / 3)


def test_mode_loss_weighs_errors_by_teachers_precision() -> None:
    log_std = jnp.array([[-2.0], [0.0]])
    teacher = Gaussian(jnp.zeros((2, 1)), log_std)

    def loss(*errors: float) -> float:
        return float(mode_loss(Gaussian(jnp.array(errors)[:, None], log_std), teacher))

    assert loss(0.5, 0.0) == pytest.approx(np.exp(4) * loss(0.0, 0.5), rel=1e-5)


def test_mode_loss_ignores_mean_of_saturated_actions() -> None:
    zeros = jnp.zeros((1, 1))

    def loss(mean: float, teacher_mean: float) -> float:
        each = (Gaussian(jnp.full((1, 1), x), zeros) for x in (mean, teacher_mean))
        return mode_loss(*each)

    far, near = loss(9.0, 20.0), loss(0.0, 0.5)
    assert far < 1e-12 < near


def test_kl_losses_equal_defining_integrals() -> None:
    student, teacher = stats.norm(0.3, np.exp(-0.5)), stats.norm(-0.4, np.exp(0.2))
    fitted, target = (Gaussian(*jnp.array(x)[:, None, None]) for x in ((0.3, -0.5), (-0.4, 0.2)))

    def divergence(first, other) -> float:
        def density(x: float) -> float:
            return first.pdf(x) * (first.logpdf(x) - other.logpdf(x))

        return integrate.quad(density, -12, 12)[0]

    forward = kl_loss(fitted, target)
    assert forward == pytest.approx(divergence(teacher, student), rel=1e-4)
    backward = reverse_kl_loss(fitted, target)
    assert backward == pytest.approx(divergence(student, teacher), rel=1e-4)
    assert forward != pytest.approx(float(backward), rel=0.1)


@pytest.mark.parametrize("loss", POLICY_LOSSES.values(), ids=POLICY_LOSSES)
def test_policy_losses_of_perfect_copy_have_no_gradient(loss) -> None:
    teacher = Gaussian(*jax.random.normal(jax.random.key(0), (2, 5, 3)))
    assert loss(teacher, teacher) == pytest.approx(0, abs=1e-6)
    for gradient in jax.grad(loss)(teacher, teacher):
        np.testing.assert_allclose(gradient, np.zeros((5, 3)), atol=1e-6)
