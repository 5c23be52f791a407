import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from falling import FallingReacher

from teachers.simulation.rollout import evaluation_starts, random_policy, reset, rollout
from teachers.tasks.reacher import Reacher
from teachers.tasks.registry import get_task

ENVS = 6
NOISE_STEPS = 4


@pytest.fixture(scope="module")
def rolled_out():
    task = FallingReacher()

    @jax.jit
    def play(key):
        states = reset(task, key, ENVS, "train")
        act = random_policy(task)
        return states, *rollout(task, act, states, key, 60, "train", noise_steps=NOISE_STEPS)

    return task, *play(jax.random.key(0))


def test_rollout_step_index_restarts_with_episode(rolled_out) -> None:
    task, _, _, trajectory = rolled_out
    steps, terminated = np.asarray(trajectory.steps), np.asarray(trajectory.terminated)
    assert terminated.any()
    assert not terminated.all(axis=1).any()
    ended = terminated | (steps == task.episode_steps - 1)
    expected = np.where(ended[:-1], 0, steps[:-1] + 1)
    np.testing.assert_array_equal(steps[1:], expected)


def test_rollout_keeps_noise_for_a_few_steps(rolled_out) -> None:
    _, _, _, trajectory = rolled_out
    action = np.asarray(trajectory.action).reshape(-1, NOISE_STEPS, ENVS, 2)
    assert (action == action[:, :1]).all()
    assert len(np.unique(action[:, 0].reshape(-1, 2), axis=0)) == len(action) * ENVS


def test_rollout_restart_draws_new_goal_and_state(rolled_out) -> None:
    _, states, _, trajectory = rolled_out
    steps, goals = np.asarray(trajectory.steps), np.asarray(trajectory.goal)
    starts = steps == 0
    starts[0] = True
    assert starts.sum() > 3 * ENVS
    assert len(np.unique(goals[starts], axis=0)) == starts.sum()
    first = np.asarray(trajectory.observation)[starts]
    assert len(np.unique(first, axis=0)) == starts.sum()
    np.testing.assert_array_equal(goals[0], states.goal)


def test_rollout_goal_is_constant_within_episode(rolled_out) -> None:
    _, _, _, trajectory = rolled_out
    goals, steps = np.asarray(trajectory.goal), np.asarray(trajectory.steps)
    same = steps[1:] > 0
    np.testing.assert_array_equal(goals[1:][same], goals[:-1][same])


def test_rollout_distance_is_after_step_to_goal_of_episode(rolled_out) -> None:
    _, _, _, trajectory = rolled_out
    tip = np.asarray(trajectory.observation)[1:, :, 6:8]  # before the next step
    goal = np.asarray(trajectory.goal)[:-1]
    continues = np.asarray(trajectory.steps)[1:] > 0
    expected = np.linalg.norm(tip - goal, axis=-1)
    measured = np.asarray(trajectory.distance)[:-1]
    np.testing.assert_allclose(measured[continues], expected[continues], rtol=1e-5)


def test_rollout_restart_leaves_other_environments_unchanged(rolled_out) -> None:
    _, _, _, trajectory = rolled_out
    angle = np.arctan2(trajectory.observation[..., 2], trajectory.observation[..., 0])
    jump = np.abs(np.angle(np.exp(1j * np.diff(angle, axis=0))))
    continues = np.asarray(trajectory.steps)[1:] > 0
    assert jump[continues].max() < 0.6  # at most some 30 rad/s over 20 ms


def test_reset_gives_environments_different_starts() -> None:
    states = jax.jit(lambda key: reset(Reacher(), key, 32, "train"))(jax.random.key(0))
    assert len(np.unique(states.goal, axis=0)) == 32
    assert len(np.unique(states.physics.qpos, axis=0)) == 32
    assert not jnp.any(states.terminated)


class BreakingReacher(Reacher):
    """A reacher whose simulation diverges where its shoulder turns past one radian."""

    def advance(self, physics, control):
        after = super().advance(physics, control)
        return after._replace(qpos=jnp.where(after.qpos[0] > 1.0, jnp.nan, after.qpos))


@pytest.mark.slow
def test_rollout_restarts_only_broken_environment() -> None:
    task = BreakingReacher()

    @jax.jit
    def play(key):
        states = reset(task, key, ENVS, "train")
        return rollout(task, lambda *_: jnp.full((ENVS, 2), 0.3), states, key, 60, "train")

    states, trajectory = play(jax.random.key(1))
    broken, steps = np.asarray(trajectory.broken), np.asarray(trajectory.steps)
    assert 0 < broken.sum() < broken.size / 2
    assert np.isfinite(trajectory.observation).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(states.physics))
    np.testing.assert_array_equal(trajectory.terminated, broken)
    assert np.isinf(np.asarray(trajectory.distance)[broken]).all()
    ended = broken | (steps == task.episode_steps - 1)
    np.testing.assert_array_equal(steps[1:], np.where(ended[:-1], 0, steps[:-1] + 1))


MANY_HUMANOIDS = """
import subprocess
import sys

import jax
from teachers.process import use_compilation_cache
from teachers.simulation.rollout import random_policy, reset, rollout
from teachers.tasks import get_task

use_compilation_cache()
task = get_task("humanoid")

@jax.jit
def play(key):
    states = reset(task, key, 256, "train")
    return rollout(task, random_policy(task), states, key, 5, "train")

for seed in range(6):
    jax.block_until_ready(play(jax.random.key(seed)))
"""


@pytest.mark.slow
def test_rollout_of_humanoids_on_several_cores_does_not_deadlock() -> None:
    # They waited for each other for ever in XLA's thread pool: see the flags in teachers/process.py.
    subprocess.run([sys.executable, "-c", MANY_HUMANOIDS], timeout=400, check=True)


def test_evaluation_starts_differ_with_the_seed() -> None:
    task = get_task("reacher")
    goals = [np.asarray(evaluation_starts(task, 8, seed).goal) for seed in (0, 1)]
    assert not np.allclose(*goals)


def test_evaluation_starts_have_goals_of_the_evaluation_set() -> None:
    task = get_task("point_u_maze")
    goals = np.asarray(evaluation_starts(task, 64, 0).goal)
    assert (goals[:, 1] < -0.5).all()  # the far corridor
