"""One jitted iteration of training, from state to state: roll out, store, and take all gradient steps.

Contrastive RL (Eysenbach et al., arXiv 2206.07568) with deep residual networks (Wang et al.,
arXiv 2503.14858).
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key, UInt

from teachers.config import TeacherConfig
from teachers.crl import replay as buffer
from teachers.crl.learner import Learner, Metrics, init_learner, make_update
from teachers.crl.memory import needs_remat
from teachers.crl.networks import Networks, teacher_networks
from teachers.runs.devices import replicated, require_divisible, shard_batch, sharded
from teachers.simulation.rollout import reset, rollout
from teachers.tasks import State, Task
from teachers.tasks.registry import get_task

SATURATED = 0.99  # from here on an action in [-1, 1] counts as saturated


class TrainingState(NamedTuple):
    """The whole state of a run: all that an iteration reads and writes."""

    learner: Learner
    environments: State
    replay: buffer.Replay
    key: Key[Array, ""]
    iteration: Int[Array, ""]


def init_training(
    config: TeacherConfig,
    seed: UInt[Array, ""] | None = None,
    networks: Networks | None = None,
) -> TrainingState:
    """The state before the first iteration.

    Args:
        config: of the run.
        seed: that all randomness follows from, uint32; by default `config.seed`.
        networks: to train in place of those that the configuration describes.
    """
    seed = jnp.uint32(config.seed) if seed is None else seed
    task = networks.task if networks else get_task(config.task)
    key, learner_key, reset_key = jax.random.split(jax.random.key(seed), 3)
    return TrainingState(
        learner=init_learner(networks or teacher_networks(config), config.learning, learner_key),
        environments=reset(task, reset_key, config.rollout.environments, "train"),
        replay=buffer.empty(
            config.replay_slots,
            config.rollout.environments,
            task.observation_size,
            task.action_size,
        ),
        key=key,
        iteration=jnp.zeros((), jnp.int32),
    )


def placement(state: TrainingState, seeds: int = 1) -> Any:
    """On which devices each array of a run's state lies: a `jax.sharding.Sharding` in its place.

    Args:
        state: of one run, of arrays or `jax.ShapeDtypeStruct`.
        seeds: of how many runs at once the placed state is; if several, it has a leading axis of seeds.
    """
    ahead = 0 if seeds == 1 else 1
    steps = sharded(ahead + 1)
    placed: Any = jax.tree.map(lambda _: replicated(), state)
    return placed._replace(
        environments=jax.tree.map(lambda _: sharded(ahead), state.environments),
        replay=placed.replay._replace(observation=steps, action=steps, steps=steps),
    )


def make_iteration(
    config: TeacherConfig, seeds: int = 1, networks: Networks | None = None
) -> Callable[[TrainingState], tuple[TrainingState, Metrics]]:
    """`state -> (state, metrics)`, a pure function, which `train_teacher` jits with a donated state.

    Metrics are means over the gradient steps that were applied; `skipped_updates` counts those of the whole run that were
    not, `broken_environments` those of the iteration.

    Args:
        config: of the run.
        seeds: how many of this function run at once, batched by `jax.vmap`.
        networks: to train in place of those that the configuration describes.
    """
    task = simulated(networks.task, config, seeds) if networks else simulated_task(config, seeds)
    networks = networks or teacher_networks(
        config, task, training=True, remat=needs_remat(config, seeds)
    )
    learning = config.learning
    update = make_update(networks, learning)

    def iteration(state: TrainingState) -> tuple[TrainingState, Metrics]:
        key, rollout_key, sample_key, action_key = jax.random.split(state.key, 4)

        def act(keys: Array, observation: Array, goal: Array) -> Array:
            return networks.explore(state.learner.params, keys, observation, goal)

        environments, trajectory = rollout(
            task, act, state.environments, rollout_key, config.rollout.steps, "train"
        )
        replay = buffer.insert(state.replay, trajectory)
        index = buffer.index(replay)

        def learn(learner: Learner, keys: tuple[Array, Array]) -> tuple[Learner, Metrics]:
            sample_key, action_key = keys
            batch = buffer.sample(replay, index, sample_key, learning.batch, learning.discount)
            return update(learner, shard_batch(batch), action_key)

        keys = (
            jax.random.split(sample_key, learning.gradient_steps),
            jax.random.split(action_key, learning.gradient_steps),
        )
        learner, by_update = jax.lax.scan(learn, state.learner, keys)
        metrics = {name: jnp.nanmean(values) for name, values in by_update.items()}
        metrics |= {
            "skipped_updates": learner.skipped,
            "broken_environments": jnp.sum(trajectory.broken),
            "saturated_actions": jnp.mean(jnp.abs(trajectory.action) > SATURATED),
            "rollout_time_at_goal": jnp.mean(trajectory.distance < task.success_radius),
        }
        return TrainingState(learner, environments, replay, key, state.iteration + 1), metrics

    return iteration


@lru_cache(maxsize=4)
def simulated_task(config: TeacherConfig, seeds: int = 1) -> Task:
    """The task that a configuration names, see `simulated`."""
    return simulated(get_task(config.task), config, seeds)


def simulated(task: Task, config: TeacherConfig, seeds: int = 1) -> Task:
    """A run's task, with its physics computed as the configuration says.

    Raises:
        InputError: they cannot be, here, or environments or batch cannot be dealt out to the devices.
    """
    require_divisible(
        rollout__environments=config.rollout.environments, learning__batch=config.learning.batch
    )
    # Evaluations play as many episodes at once.
    most = max(seeds * config.rollout.environments, config.logging.episodes)
    return task.simulated_by(config.rollout.physics, most)
