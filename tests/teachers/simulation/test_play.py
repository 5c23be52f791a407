import jax
import numpy as np
import pytest
from diverging import DivergingReacher, turn_until_it_breaks

from export import play_in_c
from export.artefacts import open_policy
from students import load_student
from teachers.evaluate import evaluate_agent
from teachers.measures import measure_outcomes
from teachers.runs.progress import ignore_progress
from teachers.simulation import play
from teachers.simulation.animate import animate
from teachers.simulation.play import count_broken
from teachers.simulation.rollout import evaluation_starts, rollout
from teachers.simulation.trajectory import distance_until_termination, episode_lengths
from teachers.tasks.disturbance import Disturbances
from teachers.tasks.reacher import LINKS, TORQUE
from teachers.tasks.registry import get_task


def test_play_in_c_has_outcomes_of_evaluations(student_run, export_folder) -> None:
    in_jax = open_policy(student_run).evaluate(8, 3, ignore_progress)
    in_c = open_policy(export_folder / "policy.onnx").evaluate(8, 3, ignore_progress)
    np.testing.assert_allclose(in_c.time_at_goal, in_jax.time_at_goal, atol=0.021)


@pytest.mark.slow  # the disturbed engine is compared with the twin in test_c_engine.py too
def test_play_in_c_is_disturbed_as_evaluations(student_run, export_folder) -> None:
    student, act = load_student(student_run), open_policy(export_folder / "policy.onnx").act
    some = Disturbances(delay=(0, 3), mass=(0.7, 1.3), friction=(0.5, 1.5), push=2.0)
    undisturbed = play_in_c(student.task, act, 8, 3)
    disturbed = play_in_c(student.task, act, 8, 3, disturbances=some)
    np.testing.assert_array_equal(undisturbed.qpos[0], disturbed.qpos[0])  # the same starts
    assert np.abs(undisturbed.qpos[-1] - disturbed.qpos[-1]).max() > 0.1
    in_jax = evaluate_agent(student, 8, 3, disturbances=some)
    in_c = measure_outcomes(student.task, distance_until_termination(disturbed))
    np.testing.assert_allclose(in_c.time_at_goal, in_jax.time_at_goal, atol=0.031)


def test_play_in_c_adds_sensor_noise(export_folder) -> None:
    task, act = get_task("reacher"), open_policy(export_folder / "policy.onnx").act
    undisturbed = play_in_c(task, act, 64, 0)
    noise = play_in_c(task, act, 64, 0, disturbances=Disturbances(noise=0.5)).observation[0]
    found = ((noise - undisturbed.observation[0]) / task.observation_scale).std()
    assert 0.45 < found < 0.55


def test_play_in_c_with_handwritten_controller_reaches_goals() -> None:
    # A spring pulls the tip to the goal, through the transposed Jacobian, with damping.
    def pull(observation, goal):
        cosine, sine, velocity, tip = np.split(observation, 4, axis=-1)
        elbow = LINKS[0] * np.stack([cosine[:, 0], sine[:, 0]], axis=-1)
        force = 20.0 * (goal - tip)
        torque = [
            lever[:, 0] * force[:, 1] - lever[:, 1] * force[:, 0] for lever in (tip, tip - elbow)
        ]
        return np.clip((np.stack(torque, axis=-1) - 0.02 * velocity) / TORQUE, -1, 1)

    task = get_task("reacher")
    recording = play_in_c(task, pull, 32, 0)
    assert recording.qpos.shape == (100, 32, 2)
    assert measure_outcomes(task, distance_until_termination(recording)).success_at_end.mean() > 0.8
    at_rest = play_in_c(task, lambda observation, _: np.zeros((32, 2)), 32, 0)
    assert measure_outcomes(task, distance_until_termination(at_rest)).success_at_end.mean() < 0.2


def test_play_in_c_does_not_depend_on_batches(export_folder, monkeypatch) -> None:
    task, policy = get_task("reacher"), open_policy(export_folder / "policy.onnx").act
    reported = []
    at_once = play_in_c(task, policy, 5, 0)
    monkeypatch.setattr(play, "BATCH", 2)
    parts = play_in_c(task, policy, 5, 0, lambda done, total, _: reported.append((done, total)))
    for one, other in zip(*map(jax.tree.leaves, (at_once, parts)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert reported[-1] == (500, 500)
    assert reported == sorted(reported)


def test_play_in_c_starts_are_determined_by_seed(export_folder) -> None:
    task = get_task("reacher")
    policy = open_policy(export_folder / "policy.onnx").act
    first, again, other = (play_in_c(task, policy, 3, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.observation, again.observation)
    assert not np.allclose(first.goal, other.goal)
    tip = first.observation[1:, :, 6:8]
    np.testing.assert_allclose(
        first.distance[:-1], np.linalg.norm(tip - first.goal[1:], axis=-1), rtol=1e-5
    )


@pytest.mark.slow
def test_play_in_c_ends_broken_episodes_as_rollout_does(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo logs its warnings there
    task = DivergingReacher()
    with pytest.warns(UserWarning, match=r"of 16 episodes broke in MuJoCo C: .* --check"):
        in_c = play_in_c(task, turn_until_it_breaks, 16, 0)

    @jax.jit
    def play_in_jax(starts):
        def act(_, observation, goal):
            return turn_until_it_breaks(observation, goal)

        return rollout(task, act, starts, jax.random.key(0), task.episode_steps, "train")[1]

    in_jax = play_in_jax(evaluation_starts(task, 16, 0))
    lengths = episode_lengths(in_jax)
    np.testing.assert_array_equal(episode_lengths(in_c), lengths)
    assert 0 < (lengths < task.episode_steps).sum() < 16
    for step, is_after in enumerate(np.arange(task.episode_steps)[:, None] >= lengths):
        for name in ("broken", "terminated"):
            one, other = (np.asarray(getattr(each, name))[step] for each in (in_c, in_jax))
            np.testing.assert_array_equal(one[~is_after], other[~is_after])
            assert not in_c.broken[step][is_after].any()
    assert count_broken(in_c) == count_broken(in_jax) == (lengths < task.episode_steps).sum()
    assert (np.isinf(in_c.distance) == in_c.broken).all()
    assert np.isfinite(in_c.observation).all()
    assert np.isfinite(in_c.qpos).all()
    animate(task, in_c, tmp_path / "broken.gif", 2)


def test_play_in_c_with_not_a_number_breaks_every_episode(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    task = get_task("reacher")
    with pytest.warns(UserWarning, match="3 of 3 episodes broke"):
        recording = play_in_c(task, lambda observation, _: np.full((3, 2), np.nan), 3, 0)
    assert measure_outcomes(task, distance_until_termination(recording)).success_any.sum() == 0


def test_play_in_c_shows_broken_episodes(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    task, shown = DivergingReacher(), []
    with pytest.warns(UserWarning, match="broke"):
        play_in_c(
            task, turn_until_it_breaks, 16, 0, watch=lambda robot, _: shown.append(robot.qpos)
        )
    assert np.isfinite(shown).all()
