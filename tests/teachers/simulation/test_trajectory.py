import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trajectories import make_trajectory

from teachers.simulation.trajectory import (
    distance_until_termination,
    episode_lengths,
    is_running,
    starts_within_radius,
    within_radius,
)
from teachers.tasks.registry import get_task

TASK = get_task("reacher")
TERMINATED = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 1, 1]], bool)
WITHIN = np.array([[0, 1, 0], [1, 1, 0], [0, 1, 1], [1, 1, 1]], bool)
PLAYED = make_trajectory(TASK, WITHIN, np.array([True, False, False]), TERMINATED)


@pytest.mark.parametrize("library", [np, jnp])
def test_is_running_ends_with_first_termination_and_continues_segments(library) -> None:
    found = is_running(library.asarray(TERMINATED), library.array([True, True, False]))
    assert isinstance(found, jax.Array if library is jnp else np.ndarray)
    expected = [[1, 1, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0]]
    np.testing.assert_array_equal(found, np.array(expected, bool))


def test_episode_lengths_count_to_first_termination() -> None:
    np.testing.assert_array_equal(episode_lengths(PLAYED), [4, 2, 4])


def test_distance_until_termination_is_infinite_afterwards() -> None:
    expected = [[1, 0, 1], [0, np.inf, 1], [1, np.inf, 0], [0, np.inf, np.inf]]
    distance = distance_until_termination(PLAYED)
    assert distance.dtype == np.float32
    np.testing.assert_array_equal(distance, expected)


def test_within_radius_excludes_steps_after_termination() -> None:
    expected = [[0, 1, 0], [1, 0, 0], [0, 0, 1], [1, 0, 0]]
    np.testing.assert_array_equal(within_radius(TASK, PLAYED), np.array(expected, bool))


def test_starts_within_radius_compares_first_observation_with_goal() -> None:
    np.testing.assert_array_equal(starts_within_radius(TASK, PLAYED), [True, False, False])
