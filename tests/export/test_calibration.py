import numpy as np
import pytest
from trajectories import make_trajectory

from export.calibration import fit_reachability, observed_ranges
from teachers.simulation.trajectory import Trajectory
from teachers.tasks.registry import get_task

TASK = get_task("reacher")
STEPS, EPISODES = TASK.episode_steps, 400


def make_episodes(reached: np.ndarray) -> Trajectory:
    """Episodes that reach their goals at half their time, or never."""
    return make_trajectory(TASK, reached & (np.arange(STEPS) >= STEPS // 2 - 1)[:, None])


def test_fit_reachability_finds_the_true_probabilities() -> None:
    random = np.random.default_rng(0)
    value = random.uniform(-10, 0, EPISODES)
    reached = random.random(EPISODES) < 1 / (1 + np.exp(-(0.8 * value + 4)))
    found = fit_reachability(TASK, make_episodes(reached), np.tile(value, (STEPS, 1)))
    at = -5.0  # where half is reached
    assert 1 / (1 + np.exp(-(found.scale * at + found.offset))) == pytest.approx(0.5, abs=0.1)
    assert found.scale == pytest.approx(0.8, rel=0.3)
    assert found.auroc is not None
    assert found.auroc > 0.85
    assert found.horizon == pytest.approx(1.0)
    assert found.episodes == EPISODES


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_fit_reachability_is_finite_where_all_or_none_are_reached(share) -> None:
    random = np.random.default_rng(0)
    value = random.uniform(-10, 0, (STEPS, EPISODES))
    found = fit_reachability(TASK, make_episodes(np.full(EPISODES, bool(share))), value)
    assert found.auroc is None
    middle = 1 / (1 + np.exp(-(found.scale * -5 + found.offset)))
    assert middle == pytest.approx(share, abs=0.05)


def test_fit_reachability_falls_back_to_the_success_rate() -> None:
    random = np.random.default_rng(0)
    value = random.uniform(-10, 0, EPISODES)
    reached = random.random(EPISODES) < 1 / (1 + np.exp(0.8 * value + 4))
    found = fit_reachability(TASK, make_episodes(reached), np.tile(value, (STEPS, 1)))
    assert found.scale == 0
    assert 1 / (1 + np.exp(-found.offset)) == pytest.approx(reached.mean(), abs=0.02)


def test_observed_ranges_prefers_those_of_training(student, teacher) -> None:
    trajectory = make_episodes(np.ones(EPISODES, bool))
    observed, source = observed_ranges(student.metadata, trajectory, "observation")
    assert source == "training"
    np.testing.assert_allclose(
        observed["goal"].low, student.metadata.lineage["seen"]["goal"]["low"], rtol=1e-6
    )
    assert (observed["observation"].low < observed["observation"].high).all()
    observed, source = observed_ranges(teacher.metadata, trajectory, "sensors")
    assert source == "export"
    assert set(observed) == {"sensors", "goal"}  # named by what is read
    np.testing.assert_array_equal(observed["goal"].high, [1, 1])
