import jax
import numpy as np
import pytest
from falling import FallingReacher

from export import play_in_c
from students import StudentConfig, student_networks
from teachers import evaluate_agent, load_teacher
from teachers.evaluate import player
from teachers.measures import mean_interval, outcomes, retention, summary
from teachers.simulation.rollout import evaluation_starts
from teachers.tasks import CONDITIONS, Disturbances
from teachers.tasks.reacher import Reacher
from teachers.tasks.registry import get_task


def test_outcomes_by_hand() -> None:
    distance = np.array([[0.04, 0.2, np.inf], [0.0, 0.02, np.inf], [0.2, 0.04, 0.06]])
    reacher = get_task("reacher")
    episodes = outcomes(reacher, distance)
    np.testing.assert_array_equal(episodes.success_at_end, [0, 1, 0])
    np.testing.assert_array_equal(episodes.success_any, [1, 1, 0])
    np.testing.assert_allclose(episodes.time_at_goal, [2 / 3, 2 / 3, 0])
    assert reacher.hard_radius is None
    assert episodes.success_hard is None
    arm = get_task("arm_reach")
    np.testing.assert_array_equal(outcomes(arm, distance).success_hard, [0, 0, 0])
    np.testing.assert_array_equal(outcomes(arm, distance[:2]).success_hard, [1, 1, 0])


def test_summary_names_every_figure_with_its_interval() -> None:
    figures = summary(
        outcomes(get_task("arm_reach"), np.random.default_rng(0).random((10, 64)) / 5)
    )
    assert set(figures) == {
        f"{name}{suffix}"
        for name in ("success_at_end", "success_any", "time_at_goal", "success_hard")
        for suffix in ("", "_ci95")
    }
    low, high = figures["time_at_goal_ci95"]
    assert low < figures["time_at_goal"] < high


def test_interval_covers_the_mean_about_95_percent_of_the_time() -> None:
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        low, high = mean_interval(random.normal(3.0, 1.0, 100))
        hits += low <= 3.0 <= high
    assert 0.89 <= hits / 200 <= 0.99


def test_interval_width_is_that_of_the_normal_approximation() -> None:
    values = np.random.default_rng(1).normal(0.0, 2.0, 400)
    low, high = mean_interval(values)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_retention_is_paired_by_episode() -> None:
    teacher = np.random.default_rng(0).uniform(0.2, 1.0, 200)
    kept, (low, high) = retention(0.9 * teacher, teacher)
    assert kept == pytest.approx(0.9)
    assert high - low < 1e-9  # unpaired resampling would give about 0.1


def test_a_teacher_that_never_arrives_has_no_retention() -> None:
    assert retention(np.ones(4), np.zeros(4)) == (None, None)


def test_a_teacher_that_hardly_ever_arrives_has_an_interval_without_upper_end() -> None:
    teacher, student = np.zeros(256), np.zeros(256)
    teacher[0], student[0] = 0.5, 0.25
    kept, (low, high) = retention(student, teacher)
    assert kept == 0.5
    assert low <= 0.5
    assert high == np.inf


def test_one_episode_has_an_interval_without_width() -> None:
    assert mean_interval(np.array([0.5])) == (0.5, 0.5)


def test_the_same_seed_gives_the_same_episodes_and_figures(teacher_run) -> None:
    agent = load_teacher(teacher_run)
    first, again = evaluate_agent(agent, 8, seed=3), evaluate_agent(agent, 8, seed=3)
    assert summary(first) == summary(again)
    np.testing.assert_array_equal(first.time_at_goal, again.time_at_goal)


def test_another_seed_gives_other_goals() -> None:
    task = get_task("reacher")
    goals = [np.asarray(evaluation_starts(task, 8, seed).goal) for seed in (0, 1)]
    assert not np.allclose(*goals)


def test_evaluation_uses_the_evaluation_goals() -> None:
    task = get_task("point_u_maze")
    goals = np.asarray(evaluation_starts(task, 64, 0).goal)
    assert (goals[:, 1] < -0.5).all()  # the far corridor


def test_early_ends_count_as_away_from_the_goal_in_either_engine() -> None:
    task = FallingReacher()
    networks = student_networks(task, StudentConfig(), embedding=4)
    params = networks.init(jax.random.key(0))
    starts = evaluation_starts(task, 64, 0)
    # A goal that every state reaches: only falling counts.
    task.success_radius = task.hard_radius = 10.0
    in_mjx = outcomes(networks.task, np.concatenate(list(player(networks)(params, starts))))
    act = jax.jit(networks.policy)
    recording = play_in_c(task, lambda o, g: np.asarray(act(params, o, g)), 64, 0)
    in_c = outcomes(task, recording.distance)
    fallen = in_mjx.success_at_end == 0
    assert 0 < fallen.sum() < 64
    assert (in_mjx.time_at_goal[~fallen] == 1).all()
    assert (in_mjx.time_at_goal[fallen] < 1).all()
    for one, other in zip(in_mjx, in_c, strict=True):
        np.testing.assert_allclose(one, other)


def test_progress_is_reported_in_steps_of_all_episodes(teacher_run) -> None:
    seen = []
    evaluate_agent(
        load_teacher(teacher_run), 8, 0, lambda done, total, _: seen.append((done, total))
    )
    assert seen == [(400, 800), (800, 800)]


@pytest.fixture(scope="module")
def agent(teacher_run):
    return load_teacher(teacher_run)


def test_disturbed_episodes_start_as_others_do_and_share_one_program(agent, monkeypatch) -> None:
    traced = []
    observe = Reacher.observe

    def watched(self, data):
        traced.append(data)
        return observe(self, data)

    plain = evaluation_starts(agent.task, 8, 0)
    monkeypatch.setattr(Reacher, "observe", watched)
    play = player(agent.networks, True)
    seen = {}
    for name, disturbances in CONDITIONS.items():
        starts = evaluation_starts(agent.task, 8, 0, disturbances)
        jax.tree.map(np.testing.assert_array_equal, plain, starts._replace(disturbed=()))
        seen[name] = np.concatenate(list(play(agent.params, starts)))
        if name == "clean":
            compiled = len(traced)
    assert compiled > 0
    assert len(traced) == compiled
    undisturbed = np.concatenate(list(player(agent.networks)(agent.params, plain)))
    np.testing.assert_allclose(seen.pop("clean"), undisturbed, atol=1e-3)
    for distance in seen.values():
        assert np.abs(distance - undisturbed).max() > 2e-3


def test_disturbed_evaluations_repeat_with_the_seed(agent) -> None:
    first, again = (evaluate_agent(agent, 8, 3, disturbances=CONDITIONS["all"]) for _ in range(2))
    assert summary(first) == summary(again)
    starts = evaluation_starts(agent.task, 8, 0, Disturbances(noise=0.1))
    play = player(agent.networks, True)
    one, other = (np.concatenate(list(play(agent.params, starts, seed))) for seed in (0, 1))
    assert np.abs(one - other).max() > 1e-3
