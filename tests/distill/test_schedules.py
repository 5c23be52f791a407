import jax.numpy as jnp
import numpy as np
import pytest

from distill.schedules import SCHEDULES, compute_beta


def betas(schedule: str, rounds: float, count: int = 20) -> np.ndarray:
    return np.array([float(compute_beta(jnp.int32(i), schedule, rounds)) for i in range(count)])


def test_compute_beta_linear_falls_evenly_to_zero() -> None:
    np.testing.assert_allclose(betas("linear", 10)[:11], np.linspace(1, 0, 11), atol=1e-6)
    assert (betas("linear", 10)[11:] == 0).all()


def test_compute_beta_exponential_halves_and_ends() -> None:
    np.testing.assert_allclose(betas("exponential", 8)[:8:2], [1, 0.5, 0.25, 0.125], rtol=1e-5)
    assert (betas("exponential", 8)[8:] == 0).all()


def test_compute_beta_of_behaviour_cloning_stays_at_one() -> None:
    assert (betas("teacher", 5) == 1).all()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_compute_beta_is_one_in_first_round(schedule) -> None:
    assert betas(schedule, 0.0, 1) == [1.0]
