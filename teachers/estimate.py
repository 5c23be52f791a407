"""What a training run will take, found without training: parameters, memory by part, duration."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from teachers import replay as buffer
from teachers.agent import teacher_networks
from teachers.config import TeacherConfig
from teachers.iteration import simulated_task
from teachers.learner import init_learner, make_update
from teachers.memory import device_memory, needs_remat, parameter_counts, training_memory
from teachers.networks import Params, sample_action
from teachers.rollout import reset, rollout

ROLLOUT_STEPS = 5  # timed, of all environments
UPDATES = 4  # timed
REPEATS = 3


def estimate(config: TeacherConfig) -> dict[str, Any]:
    """Parameters, memory and duration of a run; a few control steps and gradient steps are timed, none is kept.

    Returns:
        `parameters` by network; `memory`, bytes by part; `memory_total`, `device_memory` and whether the one `fits` the
        other; `remat`, whether activations are computed again; and, where it fits, `seconds`: of a rollout, of one
        gradient step, of an iteration, of an evaluation and of the whole run.

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
        rollout_seconds, simulation = _time_rollout(config)
        update_seconds = _time_updates(config)
        memory["simulation"] = simulation
        evaluations = -(-config.iterations // config.logging.evaluate_every)
        # A rollout of an evaluation costs what one of training does, for so many environments and steps.
        per_step = rollout_seconds / config.steps_per_iteration
        evaluation = per_step * config.logging.episodes * task.episode_steps
        iteration = rollout_seconds + config.learning.updates * update_seconds
        result["seconds"] = {
            "rollout": rollout_seconds,
            "update": update_seconds,
            "iteration": iteration,
            "evaluation": evaluation,
            "run": config.iterations * iteration + evaluations * evaluation,
        }
    total, there = sum(memory.values()), device_memory()
    return result | {"memory_total": total, "device_memory": there, "fits": total <= there}


def _time_rollout(config: TeacherConfig) -> tuple[float, int]:
    """Seconds of an iteration's rollout, and bytes that the simulation needs while it runs."""
    task = simulated_task(config)
    networks = teacher_networks(config, task, training=True)
    length = min(ROLLOUT_STEPS, config.rollout.steps)

    def play(params: Params, key: Array) -> Any:
        def act(key: Array, observation: Array, goal: Array) -> Array:
            return sample_action(key, *networks.actor(params, observation, goal))[0]

        states = reset(task, key, config.rollout.environments, "train")
        return rollout(task, act, states, key, length, "train")

    params = jax.jit(networks.init)(jax.random.key(0))
    compiled = jax.jit(play).lower(params, jax.random.key(1)).compile()
    seconds = _median_seconds(lambda: compiled(params, jax.random.key(1)))
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
            lambda learner, key: update(learner, batch, key),
            learner,
            jax.random.split(key, UPDATES),
        )[0]

    learner = jax.jit(lambda key: init_learner(networks, config.learning, key))(keys[2])
    step = jax.jit(learn, donate_argnums=0)

    def once() -> Any:
        nonlocal learner
        learner = step(learner, keys[0])
        return learner

    jax.block_until_ready(once())  # compiles
    return _median_seconds(once) / UPDATES


def _median_seconds(run: Callable[[], Any]) -> float:
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - begun)
    return float(np.median(times))
