import jax.numpy as jnp
import numpy as np
import pytest

from distill.schedules import SCHEDULES, teacher_share


def shares(schedule: str, rounds: float, count: int = 20) -> np.ndarray:
    return np.array([float(teacher_share(jnp.int32(i), schedule, rounds)) for i in range(count)])


def test_a_linear_handover_falls_evenly_to_zero() -> None:
    np.testing.assert_allclose(shares("linear", 10)[:11], np.linspace(1, 0, 11), atol=1e-6)
    assert (shares("linear", 10)[11:] == 0).all()


def test_an_exponential_handover_halves_at_equal_distances_and_ends() -> None:
    np.testing.assert_allclose(shares("exponential", 8)[:8:2], [1, 0.5, 0.25, 0.125], rtol=1e-5)
    assert (shares("exponential", 8)[8:] == 0).all()


def test_a_cloned_teacher_never_hands_over() -> None:
    assert (shares("teacher", 5) == 1).all()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_teacher_has_the_first_round_alone(schedule) -> None:
    assert shares(schedule, 0.0, 1) == [1.0]
