import jax
import numpy as np
import pytest
from falling import FallingReacher

from export import play_in_c
from students import StudentConfig, student_networks
from teachers import evaluate_agent, load_teacher
from teachers.evaluate import player
from teachers.measures import measure_outcomes, summary
from teachers.simulation.rollout import evaluation_starts
from teachers.simulation.trajectory import distance_until_termination
from teachers.tasks import CONDITIONS, Disturbances
from teachers.tasks.reacher import Reacher
from teachers.tasks.registry import get_task


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
    in_mjx = measure_outcomes(networks.task, np.concatenate(list(player(networks)(params, starts))))
    act = jax.jit(networks.policy)
    recording = play_in_c(task, lambda o, g: np.asarray(act(params, o, g)), 64, 0)
    in_c = measure_outcomes(task, distance_until_termination(recording))
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
