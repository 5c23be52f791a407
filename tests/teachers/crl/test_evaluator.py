import jax
import numpy as np
import pytest
from falling import FallingReacher

from export import play_in_c
from students import StudentConfig, student_networks
from teachers.crl.evaluator import Evaluator
from teachers.measures import measure_outcomes
from teachers.simulation.rollout import evaluation_starts
from teachers.simulation.trajectory import distance_until_termination
from teachers.tasks import CONDITIONS, Disturbances
from teachers.tasks.reacher import Reacher


def test_evaluate_counts_terminated_episodes_as_away_from_the_goal_in_either_engine() -> None:
    task = FallingReacher()
    # A goal that every state reaches, so that only terminations count.
    task.success_radius = task.hard_radius = 10.0
    networks = student_networks(task, StudentConfig(), embedding=4)
    params = networks.init(jax.random.key(0))
    in_jax = networks.evaluator.evaluate(params, 64, 0)
    act = jax.jit(networks.policy)
    recording = play_in_c(task, lambda o, g: np.asarray(act(params, o, g)), 64, 0)
    in_c = measure_outcomes(task, distance_until_termination(recording))
    fallen = in_jax.success_at_end == 0
    assert 0 < fallen.sum() < 64
    assert (in_jax.time_at_goal[~fallen] == 1).all()
    assert (in_jax.time_at_goal[fallen] < 1).all()
    for one, other in zip(in_jax, in_c, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.fixture(scope="module")
def play(teacher):
    """The distances of episodes of the teacher, as a function of their starts and the seed of noise."""

    def play(starts, seed=0, is_sampled=False):
        is_deterministic = np.full(len(starts.steps), not is_sampled)
        segments = teacher.networks.evaluator.play(teacher.params, starts, is_deterministic, seed)
        return np.concatenate(list(segments))

    return play


def test_play_shares_one_program_among_segments_and_disturbances(
    teacher, play, monkeypatch
) -> None:
    traced = []
    observe = Reacher.observe

    def record_trace(self, data):
        traced.append(data)
        return observe(self, data)

    plain = evaluation_starts(teacher.task, 8, 0)
    evaluator = Evaluator(teacher.task, teacher.networks.explore)  # has compiled nothing yet
    monkeypatch.setattr(Reacher, "observe", record_trace)
    distances = {}
    for name, disturbances in CONDITIONS.items():
        starts = evaluation_starts(teacher.task, 8, 0, disturbances)
        jax.tree.map(np.testing.assert_array_equal, plain, starts._replace(disturbed=()))
        segments = evaluator.play(teacher.params, starts, np.full(8, True))
        first = next(segments)
        if name == "clean":
            compiled = len(traced)
        distances[name] = np.concatenate([first, *segments])
    assert compiled > 0
    assert len(traced) == compiled
    undisturbed = play(plain)
    np.testing.assert_allclose(distances.pop("clean"), undisturbed, atol=1e-3)
    for distance in distances.values():
        assert np.abs(distance - undisturbed).max() > 2e-3


def test_play_draws_noise_from_the_seed(teacher, play) -> None:
    starts = evaluation_starts(teacher.task, 8, 0, Disturbances(noise=0.1))
    one, other = (play(starts, seed) for seed in (0, 1))
    assert np.abs(one - other).max() > 1e-3


def test_play_draws_actions_in_some_episodes_alone(teacher, play) -> None:
    starts = evaluation_starts(teacher.task, 8, 0)
    deterministic, sampled = play(starts), play(starts, is_sampled=True)
    is_deterministic = np.arange(8) % 2 == 0
    segments = teacher.networks.evaluator.play(teacher.params, starts, is_deterministic)
    mixed = np.concatenate(list(segments))
    np.testing.assert_array_equal(mixed[:, ::2], deterministic[:, ::2])
    np.testing.assert_array_equal(mixed[:, 1::2], sampled[:, 1::2])
    assert np.abs(sampled - deterministic).max(axis=0).min() > 1e-3
    assert np.abs(play(starts, 1, is_sampled=True) - sampled).max(axis=0).min() > 1e-3
