import jax
import numpy as np
import pytest

from distill.critic_measures import measure_critic, play, values
from students import load_student
from teachers import load_teacher
from teachers.measures import auroc, label_reached_within
from teachers.simulation.trajectory import episode_lengths, within_radius


def test_values_are_the_critics_at_the_actors_action(teacher_run, student_run) -> None:
    teacher, student = load_teacher(teacher_run), load_student(student_run)
    random = np.random.default_rng(0)
    observation = random.normal(size=(3, 1, 8)).astype(np.float32)
    goal = random.normal(size=(1, 5, 2)).astype(np.float32)
    found = values(teacher, student, observation, goal)
    assert found.shape == (3, 5)
    action = jax.jit(student.networks.policy)(student.params, observation[1, 0], goal[0, 2])
    expected = jax.jit(teacher.networks.critic)(
        teacher.params, observation[1, 0], goal[0, 2], action
    )
    assert found[1, 2] == pytest.approx(float(expected), rel=1e-4)


def test_episodes_are_those_of_the_evaluation(student_run) -> None:
    student = load_student(student_run)
    played = play(student, 4, seed=0)
    assert played.observation.shape == (100, 4, 8)
    assert episode_lengths(played).tolist() == [100] * 4
    distance = student.task.distance(played.observation[1:], played.goal[0])
    np.testing.assert_array_equal(
        distance < student.task.success_radius, within_radius(student.task, played)[:-1]
    )


def test_a_teachers_own_critic_is_perfect(teacher_run, student_run) -> None:
    teacher, student = load_teacher(teacher_run), load_student(student_run)
    own = measure_critic(teacher, teacher, 8, seed=0)
    for name in ("spearman", "spearman_within_goal"):
        assert own[name] == pytest.approx(1.0)
    assert own["top1_retention"] in (None, 1.0)
    assert own["auroc"] == own["teacher_auroc"]
    other = measure_critic(student, teacher, 8, seed=0)
    assert -1 <= other["spearman"] < 1
    assert 0 <= other["top1"] <= 1


def test_a_critic_that_knows_the_distance_foretells_what_is_reached(student_run) -> None:
    """What is paired with what: the value of each state for its own episode's goal, against that episode's outcome."""
    student = load_student(student_run)
    task = student.task
    played = play(student, 16, seed=0)
    # As if each episode went straight to its goal, some of them too late.
    steps = np.arange(task.episode_steps)[:, None]
    late = np.linspace(40, 160, 16)
    played = played._replace(distance=np.where(steps >= late, 0.0, 1.0), goal=played.goal + 1.0)
    will, known = label_reached_within(task, played, horizon=20)
    left = np.broadcast_to(late, known.shape) - steps
    assert auroc(-left[known], will[known]) == 1.0
    shuffled = np.roll(left, 3, axis=1)
    assert auroc(-shuffled[known], will[known]) < 0.95
