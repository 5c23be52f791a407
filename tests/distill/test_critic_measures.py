import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.critic_measures import measure_critic, play, values
from students import load_student
from teachers import load_teacher
from teachers.measures import Played, auroc, reached_within


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), tied=st.booleans())
def test_auroc_counts_the_pairs_that_are_in_order(seed, tied) -> None:
    random = np.random.default_rng(seed)
    scores = random.integers(0, 4, 12) if tied else random.normal(size=12)
    outcomes = np.arange(12) < 5
    pairs = scores[outcomes][:, None] - scores[~outcomes][None]
    expected = np.mean((pairs > 0) + 0.5 * (pairs == 0))
    assert auroc(scores.astype(float), outcomes) == pytest.approx(expected)


def test_auroc_needs_both_outcomes() -> None:
    assert auroc(np.ones(3), np.ones(3, bool)) is None


def test_what_is_reached_is_counted_from_the_state_on() -> None:
    within = np.array([[0, 0], [1, 0], [0, 0], [0, 1]], bool)
    nothing = np.zeros((4, 2, 1), np.float32)
    played = Played(nothing, nothing, nothing[0], np.array([False, True]), within, np.array([4, 4]))
    will, known = reached_within(played, horizon=2)
    # Within the two steps that follow a state; the second environment starts at its goal.
    assert will[:, 0].tolist() == [True, True, False, False]
    assert will[:, 1].tolist() == [False, False, True, True]
    # The first is at its goal before its third step, and what follows its last is not known.
    assert known[:, 0].tolist() == [True, True, False, False]
    assert known[:, 1].tolist() == [False, True, True, True]
    ended = played._replace(length=np.array([4, 2]), within=np.zeros((4, 2), bool))
    _, known = reached_within(ended, horizon=2)
    assert known[:, 0].tolist() == [True, True, True, False]
    assert known[:, 1].tolist() == [False, True, False, False]


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
    assert played.length.tolist() == [100] * 4
    distance = student.task.distance(played.observation[1:], played.goal)
    np.testing.assert_array_equal(distance < student.task.success_radius, played.within[:-1])


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
    played = played._replace(within=steps >= late, start=np.zeros(16, bool))
    will, known = reached_within(played, horizon=20)
    left = np.broadcast_to(late, known.shape) - steps
    assert auroc(-left[known], will[known]) == 1.0
    shuffled = np.roll(left, 3, axis=1)
    assert auroc(-shuffled[known], will[known]) < 0.95
