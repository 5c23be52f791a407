"""Estimates what a training run will need without training it: parameters, memory by part, and duration."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from teachers.config import TeacherConfig
from teachers.crl.iteration import configure_physics
from teachers.crl.learner import init_learner, make_update
from teachers.crl.memory import decide_remat, device_memory, parameter_counts, training_memory
from teachers.crl.networks import Networks, teacher_networks
from teachers.crl.parameters import Params
from teachers.crl.replay import Batch
from teachers.process import in_32_bits
from teachers.runs.devices import replicated, shard_batch, sharded_if_divisible
from teachers.simulation.rollout import reset, rollout
from teachers.tasks import State, Task
from teachers.tasks.registry import get_task

TIMED_STEPS = 5  # control steps of all environments
TIMED_UPDATES = 4
REPEATS = 3


@in_32_bits
def estimate(config: TeacherConfig) -> dict[str, Any]:
    """Returns parameters, memory and duration of a run. A few control steps and gradient steps are timed for this.

    Returns:
        `parameters` by network; `memory`, bytes by part; `memory_total`, `device_memory` and whether the total `fits` in
        it; `remat`, whether activations are recomputed for the gradient. If what training holds fits in memory without
        the simulation, also the part `simulation`, and `seconds` of a rollout, of one gradient step, of an iteration, of
        an evaluation and of the whole run.

    Raises:
        InputError: the task cannot be simulated as configured.
    """
    task = configure_physics(get_task(config.task), config)
    memory, remat = training_memory(config), decide_remat(config)
    result: dict[str, Any] = {
        "task": task.name,
        "parameters": parameter_counts(config),
        "steps": config.iterations * config.steps_per_iteration,
        "iterations": config.iterations,
        "remat": remat,
        "memory": memory,
    }
    available = device_memory()
    if sum(memory.values()) <= available:
        networks = teacher_networks(config, task, training=True, remat=remat)
        steps, environments = config.rollout.steps, config.rollout.environments
        rollout_seconds, memory["simulation"] = _time_rollout(
            networks, environments, steps, config.rollout.best_of
        )
        update_seconds = _time_updates(networks, config)
        evaluations = -(-config.iterations // config.logging.evaluate_every)
        evaluation_rollout_seconds, _ = _time_rollout(
            networks, 2 * config.logging.episodes, steps, config.rollout.best_of
        )
        evaluation_seconds = evaluation_rollout_seconds * task.episode_steps / steps
        learning_seconds = config.learning.gradient_steps * update_seconds
        result["seconds"] = {
            "rollout": rollout_seconds,
            "update": update_seconds,
            "iteration": rollout_seconds + learning_seconds,
            "evaluation": evaluation_seconds,
            "run": config.iterations * rollout_seconds
            + max(config.iterations - config.prefill_iterations, 0) * learning_seconds
            + evaluations * evaluation_seconds,
        }
    total = sum(memory.values())
    return result | {
        "memory_total": total,
        "device_memory": available,
        "fits": total <= available,
    }


def _time_rollout(
    networks: Networks, environments: int, steps: int, best_of: int
) -> tuple[float, int]:
    """Returns the seconds that a rollout of `steps` control steps takes, and the bytes that its simulation needs."""
    task: Task = networks.task
    length = min(TIMED_STEPS, steps)

    def play(params: Params, states: State, key: Array) -> Any:
        def act(keys: Array, observation: Array, goal: Array) -> Array:
            return networks.explore(params, keys, observation, goal, best_of=best_of)

        return rollout(task, act, states, key, length, "train")

    key = jax.random.key(0)
    params = jax.jit(networks.init, out_shardings=replicated())(key)
    sharding = sharded_if_divisible(environments)
    start = jax.jit(lambda key: reset(task, key, environments, "train"), out_shardings=sharding)
    states = start(key)
    compiled = jax.jit(play).lower(params, states, key).compile()
    seconds = median_seconds(lambda: compiled(params, states, key))
    memory: Any = compiled.memory_analysis()
    return seconds * steps / length, memory.temp_size_in_bytes


def _time_updates(networks: Networks, config: TeacherConfig) -> float:
    """Returns the seconds of one gradient step; its batch consists of random numbers."""
    task, rows = networks.task, config.learning.batch
    update = make_update(networks, config.learning)
    observation_key, future_key, init_key = jax.random.split(jax.random.key(0), 3)
    batch = Batch(
        observation=jax.random.normal(observation_key, (rows, task.observation_size)),
        action=jnp.zeros((rows, task.action_size)),
        future=jax.random.normal(future_key, (rows, task.observation_size)),
    )

    def learn(learner: Any, key: Array) -> Any:
        return jax.lax.scan(
            lambda learner, key: update(learner, shard_batch(batch), key),
            learner,
            jax.random.split(key, TIMED_UPDATES),
        )[0]

    init = jax.jit(
        lambda key: init_learner(networks, config.learning, key), out_shardings=replicated()
    )
    learner = init(init_key)
    jitted = jax.jit(learn, donate_argnums=0, out_shardings=replicated())

    def learn_again() -> Any:
        nonlocal learner
        learner = jitted(learner, observation_key)
        return learner

    return median_seconds(learn_again) / TIMED_UPDATES


def median_seconds(run: Callable[[], Any]) -> float:
    """Returns the median duration of several calls; a call before them compiles and is not timed."""
    jax.block_until_ready(run())
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - begun)
    return float(np.median(times))
