import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trajectories import make_trajectory

from teachers.measures import (
    auroc,
    format_interval,
    interquartile_mean,
    label_reached_within,
    mean_interval,
    measure_outcomes,
    retention,
    summary,
)
from teachers.tasks.registry import get_task


def test_measure_outcomes_of_distances() -> None:
    distance = np.array([[0.04, 0.2, np.inf], [0.0, 0.02, np.inf], [0.2, 0.04, 0.06]])
    reacher = get_task("reacher")
    episodes = measure_outcomes(reacher, distance)
    np.testing.assert_array_equal(episodes.success_at_end, [0, 1, 0])
    np.testing.assert_array_equal(episodes.success_any, [1, 1, 0])
    np.testing.assert_allclose(episodes.time_at_goal, [2 / 3, 2 / 3, 0])
    assert reacher.hard_radius is None
    assert episodes.success_hard is None
    arm = get_task("arm_reach")
    np.testing.assert_array_equal(measure_outcomes(arm, distance).success_hard, [0, 0, 0])
    np.testing.assert_array_equal(measure_outcomes(arm, distance[:2]).success_hard, [1, 1, 0])


def test_distance_at_end_is_that_before_a_termination() -> None:
    inf = np.inf
    distance = np.array([[3.0, 3.0, inf], [2.0, 4.0, inf], [1.0, inf, inf]])
    found = measure_outcomes(get_task("reacher"), distance)
    np.testing.assert_array_equal(found.distance_at_end, [1.0, 4.0, np.nan])
    assert summary(found)["distance_at_end"] == 2.5
    np.testing.assert_array_equal(found.episode_length, [3, 3, 1])
    # Nothing is known where every episode ended with its first step.
    assert "distance_at_end" not in summary(measure_outcomes(get_task("reacher"), distance[:, 2:]))


def test_summary_names_figures_and_intervals() -> None:
    figures = summary(
        measure_outcomes(get_task("arm_reach"), np.random.default_rng(0).random((10, 64)) / 5)
    )
    assert set(figures) == {
        f"{name}{suffix}"
        for name in (
            "success_at_end",
            "success_any",
            "time_at_goal",
            "success_hard",
            "distance_at_end",
            "episode_length",
        )
        for suffix in ("", "_ci95")
    }
    low, high = figures["time_at_goal_ci95"]
    assert low < figures["time_at_goal"] < high


def test_mean_interval_covers_mean_95_percent_of_the_time() -> None:
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        low, high = mean_interval(random.normal(3.0, 1.0, 100))
        hits += low <= 3.0 <= high
    assert 0.89 <= hits / 200 <= 0.99


def test_mean_interval_width_matches_normal_approximation() -> None:
    values = np.random.default_rng(1).normal(0.0, 2.0, 400)
    low, high = mean_interval(values)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_retention_pairs_episodes() -> None:
    teacher = np.random.default_rng(0).uniform(0.2, 1.0, 200)
    kept, (low, high) = retention(0.9 * teacher, teacher)
    assert kept == pytest.approx(0.9)
    assert high - low < 1e-9  # unpaired resampling would give about 0.1


def test_retention_of_teacher_without_success_is_none() -> None:
    assert retention(np.ones(4), np.zeros(4)) == (None, None)


def test_retention_of_teacher_with_rare_success_has_no_upper_bound() -> None:
    teacher, student = np.zeros(256), np.zeros(256)
    teacher[0], student[0] = 0.5, 0.25
    kept, (low, high) = retention(student, teacher)
    assert kept == 0.5
    assert low <= 0.5
    assert high is None
    assert format_interval((low, high)) == f"[at least {low:.3f}]"
    assert format_interval((0.25, 1.0)) == "[0.250, 1.000]"


def test_mean_interval_of_one_value_has_no_width() -> None:
    assert mean_interval(np.array([0.5])) == (0.5, 0.5)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), tied=st.booleans())
def test_auroc_counts_ordered_pairs(seed, tied) -> None:
    random = np.random.default_rng(seed)
    scores = random.integers(0, 4, 12) if tied else random.normal(size=12)
    outcomes = np.arange(12) < 5
    pairs = scores[outcomes][:, None] - scores[~outcomes][None]
    expected = np.mean((pairs > 0) + 0.5 * (pairs == 0))
    assert auroc(scores.astype(float), outcomes) == pytest.approx(expected)


def test_auroc_without_both_outcomes_is_none() -> None:
    assert auroc(np.ones(3), np.ones(3, bool)) is None


def test_label_reached_within_counts_from_each_state() -> None:
    task = get_task("reacher")
    within = np.array([[0, 0], [1, 0], [0, 0], [0, 1]], bool)
    played = make_trajectory(task, within, starts_within=np.array([False, True]))
    will, known = label_reached_within(task, played, horizon=2)
    # Within the two steps that follow a state; the second environment starts at its goal.
    assert will[:, 0].tolist() == [True, True, False, False]
    assert will[:, 1].tolist() == [False, False, True, True]
    # The first is at its goal before its third step, and what follows its last is not known.
    assert known[:, 0].tolist() == [True, True, False, False]
    assert known[:, 1].tolist() == [False, True, True, True]
    terminated = np.zeros((4, 2), bool)
    terminated[1, 1] = True
    nowhere = np.zeros((4, 2), bool)
    ended = make_trajectory(task, nowhere, np.array([False, True]), terminated)
    _, known = label_reached_within(task, ended, horizon=2)
    assert known[:, 0].tolist() == [True, True, True, False]
    assert known[:, 1].tolist() == [False, True, False, False]


def test_interquartile_mean_leaves_out_the_outer_quarters() -> None:
    assert interquartile_mean(np.array([0.0, 1.0, 2.0, 100.0])) == 1.5
    assert interquartile_mean(np.array([0.0, 1.0, 5.0])) == 2.0
