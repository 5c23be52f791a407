"""What a training run will take, found without training: parameters, memory by part, duration."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from teachers.config import TeacherConfig
from teachers.crl import replay as buffer
from teachers.crl.iteration import simulated_task
from teachers.crl.learner import init_learner, make_update
from teachers.crl.memory import device_memory, needs_remat, parameter_counts, training_memory
from teachers.crl.networks import teacher_networks
from teachers.crl.parameters import Params
from teachers.runs.devices import replicated, shard_batch, sharded_if_divisible
from teachers.simulation.rollout import reset, rollout
from teachers.tasks import State

ROLLOUT_STEPS = 5  # timed, of all environments
UPDATES = 4  # timed
REPEATS = 3


def estimate(config: TeacherConfig) -> dict[str, Any]:
    """Parameters, memory and duration of a run; a few control steps and gradient steps are timed, none is kept.

    Returns:
        `parameters` by network; `memory`, bytes by part; `memory_total`, `device_memory` and whether the one `fits` the
        other; `remat`, whether activations are computed again; and, unless that alone which training holds does not fit,
        the part `simulation` and `seconds`: of a rollout, of one gradient step, of an iteration, of an evaluation and
        of the whole run.

    Raises:
        InputError: the task cannot be simulated as configured.
    """
    task = simulated_task(config)
    memory = training_memory(config)
    result: dict[str, Any] = {
        "task": task.name,
        "parameters": parameter_counts(config),
        "steps": config.iterations * config.steps_per_iteration,
        "iterations": config.iterations,
        "remat": needs_remat(config),
        "memory": memory,
    }
    if sum(memory.values()) <= device_memory():
        rollout_seconds, memory["simulation"] = _time_rollout(config, config.rollout.environments)
        update_seconds = _time_updates(config)
        evaluations = -(-config.iterations // config.logging.evaluate_every)
        evaluated, _ = _time_rollout(config, config.logging.episodes)
        evaluation = evaluated * task.episode_steps / config.rollout.steps
        iteration = rollout_seconds + config.learning.gradient_steps * update_seconds
        result["seconds"] = {
            "rollout": rollout_seconds,
            "update": update_seconds,
            "iteration": iteration,
            "evaluation": evaluation,
            "run": config.iterations * iteration + evaluations * evaluation,
        }
    total, there = sum(memory.values()), device_memory()
    return result | {"memory_total": total, "device_memory": there, "fits": total <= there}


def _time_rollout(config: TeacherConfig, environments: int) -> tuple[float, int]:
    """Seconds of an iteration's steps in so many environments, and bytes that their simulation needs meanwhile."""
    task = simulated_task(config)
    networks = teacher_networks(config, task, training=True)
    length = min(ROLLOUT_STEPS, config.rollout.steps)

    def play(params: Params, states: State, key: Array) -> Any:
        def act(keys: Array, observation: Array, goal: Array) -> Array:
            return networks.explore(params, keys, observation, goal)

        return rollout(task, act, states, key, length, "train")

    key = jax.random.key(0)
    params = jax.jit(networks.init, out_shardings=replicated())(key)
    place = sharded_if_divisible(environments)
    states = jax.jit(lambda key: reset(task, key, environments, "train"), out_shardings=place)(key)
    compiled = jax.jit(play).lower(params, states, key).compile()
    seconds = median_seconds(lambda: compiled(params, states, key))
    memory: Any = compiled.memory_analysis()
    return seconds * config.rollout.steps / length, memory.temp_size_in_bytes


def _time_updates(config: TeacherConfig) -> float:
    """Seconds of one gradient step, with random numbers in place of experience."""
    task = simulated_task(config)
    networks = teacher_networks(config, task, training=True, remat=needs_remat(config))
    update = make_update(networks, config.learning)
    keys = jax.random.split(jax.random.key(0), 3)
    rows = config.learning.batch
    batch = buffer.Batch(
        observation=jax.random.normal(keys[0], (rows, task.observation_size)),
        action=jnp.zeros((rows, task.action_size)),
        future=jax.random.normal(keys[1], (rows, task.observation_size)),
    )

    def learn(learner: Any, key: Array) -> Any:
        return jax.lax.scan(
            lambda learner, key: update(learner, shard_batch(batch), key),
            learner,
            jax.random.split(key, UPDATES),
        )[0]

    init = jax.jit(
        lambda key: init_learner(networks, config.learning, key), out_shardings=replicated()
    )
    learner = init(keys[2])
    step = jax.jit(learn, donate_argnums=0, out_shardings=replicated())

    def once() -> Any:
        nonlocal learner
        learner = step(learner, keys[0])
        return learner

    return median_seconds(once) / UPDATES


def median_seconds(run: Callable[[], Any]) -> float:
    """The median duration of some runs, after one that may compile."""
    jax.block_until_ready(run())
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - begun)
    return float(np.median(times))
