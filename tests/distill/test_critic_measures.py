import jax
import numpy as np
import pytest

from distill.critic_measures import CriticComparison, CriticPrograms, measure_critic
from teachers.measures import auroc, label_reached_within
from teachers.simulation.trajectory import episode_lengths, within_radius


@pytest.fixture(scope="module")
def comparison(student, teacher) -> CriticComparison:
    return CriticComparison(student.networks, teacher.networks)


def test_critic_programs_value_policys_action(teacher, student) -> None:
    random = np.random.default_rng(0)
    observation = random.normal(size=(3, 1, 8)).astype(np.float32)
    goal = random.normal(size=(1, 5, 2)).astype(np.float32)
    programs = CriticPrograms(teacher.networks, student.networks)
    found = programs.values(teacher.params, student.params, observation, goal)
    assert found.shape == (3, 5)
    action = jax.jit(student.networks.policy)(student.params, observation[1, 0], goal[0, 2])
    expected = jax.jit(teacher.networks.critic)(
        teacher.params, observation[1, 0], goal[0, 2], action
    )
    assert found[1, 2] == pytest.approx(float(expected), rel=1e-4)


def test_critic_comparison_plays_evaluation_episodes(student, comparison) -> None:
    trajectory = comparison.play(student.params, 8, seed=0)
    assert trajectory.observation.shape == (100, 8, 8)
    assert episode_lengths(trajectory).tolist() == [100] * 8
    distance = student.task.distance(trajectory.observation[1:], trajectory.goal[0])
    np.testing.assert_array_equal(
        distance < student.task.success_radius, within_radius(student.task, trajectory)[:-1]
    )


@pytest.mark.slow
def test_critic_comparison_measures_an_untrained_student(teacher, student, comparison) -> None:
    result = comparison.measure(student, teacher, 8, seed=0)
    assert -1 <= result["spearman"] < 1
    assert 0 <= result["top1"] <= 1


@pytest.mark.slow
def test_measure_critic_of_teacher_is_perfect(teacher) -> None:
    result = measure_critic(teacher, teacher, 8, seed=0)
    for name in ("spearman", "spearman_within_goal"):
        assert result[name] == pytest.approx(1.0)
    assert result["top1_retention"] in (None, 1.0)
    assert result["auroc"] == result["teacher_auroc"]


def test_auroc_of_true_distance_is_one(student, comparison) -> None:
    """The value of each state for its own episode's goal is compared with that episode's outcome."""
    task = student.task
    trajectory = comparison.play(student.params, 8, seed=0)
    # As if each episode went straight to its goal, some of them too late.
    steps = np.arange(task.episode_steps)[:, None]
    late = np.linspace(40, 160, 8)
    trajectory = trajectory._replace(
        distance=np.where(steps >= late, 0.0, 1.0), goal=trajectory.goal + 1.0
    )
    will, known = label_reached_within(task, trajectory, horizon=20)
    left = np.broadcast_to(late, known.shape) - steps
    assert auroc(-left[known], will[known]) == 1.0
    shuffled = np.roll(left, 3, axis=1)
    assert auroc(-shuffled[known], will[known]) < 0.95
