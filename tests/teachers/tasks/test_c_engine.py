from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diverging import DivergingReacher

from teachers.runs.errors import InputError
from teachers.simulation.c_twin import make_twins
from teachers.simulation.rollout import random_policy, reset, rollout
from teachers.tasks import RANDOMIZED, c_engine, host_call
from teachers.tasks.c_engine import _Batch, simulate_with_c
from teachers.tasks.engines import choose_engine
from teachers.tasks.registry import get_task

ENVS, STEPS = 6, 12
SLOW = ("ant", "humanoid", "cheetah", "pusher_easy", "arm_push_easy", "arm_grasp")


def make_rollout(task, environments=ENVS):
    """Returns the compiled function from a key to starts, and states and trajectory after random actions."""

    @jax.jit
    def play(key):
        states = reset(task, key, environments, "train")
        return states, *rollout(task, random_policy(task), states, key, STEPS, "train")

    return lambda key: jax.device_get(play(key))


def roll_out(task):
    """Returns starts, and states and trajectory after random actions."""
    return make_rollout(task)(jax.random.key(0))


@pytest.mark.parametrize(
    ("name", "disturbed"),
    [
        ("reacher", True),
        ("point_u_maze", False),
        pytest.param("reacher", False, marks=pytest.mark.slow),
        pytest.param("point_u_maze", True, marks=pytest.mark.slow),
        *(
            pytest.param(name, disturbed, marks=pytest.mark.slow)
            for name in SLOW
            for disturbed in (False, True)
        ),
    ],
)
def test_rollout_in_c_is_that_of_the_twin(name, disturbed) -> None:
    task = get_task(name).simulated_by("c", ENVS)
    if disturbed:
        task = task.disturbed_by(RANDOMIZED.model_copy(update={"noise": 0.0}))
    starts, _, trajectory = roll_out(task)
    assert not trajectory.terminated.any()
    twins = make_twins(task, starts)
    differences = np.zeros((STEPS, ENVS))
    for time in range(STEPS):
        for env, twin in enumerate(twins):
            difference = twin.observation - trajectory.observation[time, env]
            differences[time, env] = np.abs(difference / task.observation_scale).max()
            twin.step(trajectory.action[time, env])
    # Between control steps the engine's numbers are float32 and its warm start is computed. With a humanoid's few iterations
    # of the solver, the warm start decides at times how a new contact begins.
    share = 0.5 if name == "humanoid" else 1.0
    assert np.quantile(differences.max(axis=0), share) < 2e-3
    moved = trajectory.observation[-1] - trajectory.observation[0]
    assert np.abs(moved / task.observation_scale).max() > 0.02


@pytest.mark.slow
def test_rollout_in_c_is_near_that_in_mjx() -> None:
    task = get_task("reacher")
    in_mjx, in_c = roll_out(task)[2], roll_out(task.simulated_by("c", ENVS))[2]
    np.testing.assert_array_equal(in_c.action, in_mjx.action)
    np.testing.assert_allclose(in_c.observation, in_mjx.observation, atol=1e-3)


def test_rollout_in_c_does_not_depend_on_threads(monkeypatch) -> None:
    task = get_task("point_u_maze").simulated_by("c", ENVS)
    # Several times as many as a thread is given at once.
    play = make_rollout(task, environments=100)
    expected = play(jax.random.key(0))
    batches = {k: each for k, each in host_call._functions.items() if isinstance(each, _Batch)}
    assert batches
    try:
        for threads in (0, 1, 5):
            monkeypatch.setattr(c_engine, "_thread_count", lambda threads=threads: threads)
            c_engine._rollout.cache_clear()
            for key, batch in batches.items():
                again = _Batch(batch._model, batch._substeps, batch._body, batch._names)
                assert len(again._data) == max(1, threads)
                monkeypatch.setitem(host_call._functions, key, again)
            found = play(jax.random.key(0))
            assert c_engine._rollout.cache_info().currsize == 1  # the program has made it
            assert c_engine._rollout().nthread == threads
            jax.tree.map(np.testing.assert_array_equal, found, expected)
    finally:
        c_engine._rollout.cache_clear()


@pytest.mark.slow
def test_rollout_in_c_of_several_seeds_is_that_of_each() -> None:
    task = get_task("reacher").simulated_by("c", ENVS)
    act = random_policy(task)

    def play(key):
        states = reset(task, key, ENVS, "train")
        return rollout(task, act, states, key, STEPS, "train")[1].observation

    keys = jax.random.split(jax.random.key(3), 2)
    both = jax.jit(jax.vmap(play))(keys)
    for seed, key in enumerate(keys):
        np.testing.assert_allclose(both[seed], jax.jit(play)(key), atol=1e-6)


def test_rollout_in_c_breaks_where_state_diverges(capfd, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    task = DivergingReacher().simulated_by("c", ENVS)
    is_pushed = jnp.arange(ENVS) == 2

    def act(keys, observation, goal):
        return jnp.where(is_pushed[:, None], 1.0, 0.3) * jnp.ones((ENVS, 2))

    @jax.jit
    def play(key):
        states = reset(task, key, ENVS, "train")
        return rollout(task, act, states, key, STEPS, "train")

    states, trajectory = play(jax.random.key(0))
    np.testing.assert_array_equal(trajectory.broken, np.tile(is_pushed, (STEPS, 1)))
    assert np.isinf(trajectory.distance[:, 2]).all()
    assert jax.tree.all(jax.tree.map(lambda x: jnp.isfinite(x).all(), states))
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_advance_in_c_is_nan_for_faulty_control(bad) -> None:
    task = DivergingReacher().simulated_by("c", 2)
    starts = jax.jit(lambda key: reset(task, key, 2, "train"))(jax.random.key(0))
    control = jnp.array([[0.1, 0.0], [bad, 0.0]])
    after = jax.jit(jax.vmap(task.advance))(starts.physics, control)
    for part in jax.tree.leaves(after):
        np.testing.assert_array_equal(np.isfinite(part).all(axis=-1), [True, False])


def test_simulate_with_c_refuses_accelerator(monkeypatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(InputError, match="set JAX_PLATFORMS=cpu, or use physics 'jax'"):
        simulate_with_c(get_task("reacher").model)


@pytest.mark.parametrize(("backend", "engine"), [("cpu", "c"), ("gpu", "jax"), ("tpu", "jax")])
def test_choose_engine_is_c_on_a_cpu_and_jax_elsewhere(monkeypatch, backend, engine) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert choose_engine("auto") == engine
    assert choose_engine("warp") == "warp"


def test_changed_models_are_right_where_devices_ask_at_once() -> None:
    batch = _Batch(get_task("reacher").model, 1, 0, ())
    changes = np.random.default_rng(0).uniform(0.5, 2.0, (8, 20, 5)).astype(np.float32)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(batch._change_models, changes))
    mass = batch._model.body_mass
    for rows, models in zip(changes, found, strict=True):
        for row, model in zip(rows, models, strict=True):
            np.testing.assert_allclose(model.body_mass, mass * row[0])
    # No more are kept than the devices need.
    assert sum(map(len, batch._changed)) == 20 * jax.local_device_count()
