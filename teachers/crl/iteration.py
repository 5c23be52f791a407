"""One jitted iteration of training, from state to state: a rollout, its insertion into the replay, and gradient steps.

Contrastive RL (Eysenbach et al., arXiv 2206.07568) with deep residual networks (Wang et al.,
arXiv 2503.14858).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, UInt

from teachers.config import TeacherConfig
from teachers.crl.learner import Learner, Metrics, init_learner, make_update
from teachers.crl.networks import Networks
from teachers.crl.replay import (
    Replay,
    empty_replay,
    index_episodes,
    insert_rollout,
    sample_pairs,
)
from teachers.runs.devices import replicated, require_divisible, shard_batch, sharded
from teachers.runs.streams import Stream, stream_key
from teachers.simulation.rollout import random_policy, reset, rollout
from teachers.tasks import Disturbances, State, Task
from teachers.tasks.engines import choose_engine

SATURATION = 0.99  # an action in [-1, 1] of a larger magnitude counts as saturated


class TrainingState(NamedTuple):
    """The complete state of a run: everything that an iteration reads and writes."""

    learner: Learner
    environments: State
    replay: Replay
    key: Key[Array, ""]
    iteration: Int[Array, ""]


def init_training(
    config: TeacherConfig, networks: Networks, seed: UInt[Array, ""] | None = None
) -> TrainingState:
    """Returns the state before the first iteration.

    Args:
        config: the run's configuration.
        networks: the networks to train.
        seed: seed of all randomness, uint32; by default `config.seed`.
    """
    seed = jnp.uint32(config.seed) if seed is None else seed
    task = networks.task
    key = stream_key(jax.random.key(seed), Stream.TRAINING)
    reset_key = stream_key(key, Stream.RESET)
    return TrainingState(
        learner=init_learner(networks, config.learning, stream_key(key, Stream.PARAMETERS)),
        environments=reset(disturb(task, config), reset_key, config.rollout.environments, "train"),
        replay=empty_replay(
            config.replay_slots,
            config.rollout.environments,
            task.observation_size,
            task.action_size,
            task.goal_size if config.commanded_critic else None,
        ),
        key=key,
        iteration=jnp.zeros((), jnp.int32),
    )


def state_shardings(state: TrainingState, seeds: int = 1) -> Any:
    """Returns on which devices each array of a training state lies: a `jax.sharding.Sharding` in its place.

    Args:
        state: the state of one run, of arrays or `jax.ShapeDtypeStruct`.
        seeds: number of runs in the state to be placed; if there are several, its arrays have a leading axis of seeds.
    """
    env_axis = 0 if seeds == 1 else 1
    time_major = sharded(env_axis + 1)
    shardings: Any = jax.tree.map(lambda _: replicated(), state)
    return shardings._replace(
        environments=jax.tree.map(lambda _: sharded(env_axis), state.environments),
        replay=shardings.replay._replace(
            observation=time_major, action=time_major, steps=time_major
        ),
    )


def make_iteration(
    config: TeacherConfig, networks: Networks, seeds: int = 1
) -> Callable[[TrainingState], tuple[TrainingState, Metrics]]:
    """Returns the pure function `state -> (state, metrics)`; `TrainingPrograms` jits it with a donated state.

    In the first iterations, as many as `rollout.prefill_steps` say, no gradient step is taken, and the metrics of gradient
    steps are NaN. In the others they are means over the gradient steps that were applied. `skipped_updates` is the number of
    gradient steps of the whole run that were not applied, `skipped_in_a_row` of those since the last one that was, and
    `broken_environments` the number of environments that broke in the iteration.

    Args:
        config: the run's configuration.
        networks: the networks to train.
        seeds: number of runs that are trained at once, batched by `jax.vmap`.

    Raises:
        InputError: see `configure_physics`.
    """
    task = disturb(configure_physics(networks.task, config, seeds), config)
    learning = config.learning
    update = make_update(networks, learning)

    def iteration(state: TrainingState) -> tuple[TrainingState, Metrics]:
        rollout_key = stream_key(state.key, Stream.ROLLOUT)

        def act(
            keys: Array,
            observation: Array,
            goal: Array,
            is_deterministic: Array,
            is_random: Array,
        ) -> Array:
            action = networks.explore(
                state.learner.params,
                keys,
                observation,
                goal,
                is_deterministic,
                best_of=config.rollout.best_of,
            )
            return jnp.where(is_random[:, None], random_policy(task)(keys), action)

        environments, trajectory = rollout(
            task,
            act,
            state.environments,
            rollout_key,
            config.rollout.steps,
            "train",
            *_draw_behaviour(config, state.key),
            noise_steps=config.rollout.noise_steps,
        )
        replay = insert_rollout(state.replay, trajectory)
        index = index_episodes(replay)
        progress = state.iteration / config.iterations

        def learn(learner: Learner, keys: tuple[Array, Array]) -> tuple[Learner, Metrics]:
            sample_key, action_key = keys
            batch = sample_pairs(replay, index, sample_key, learning.batch, learning.discount)
            return update(learner, shard_batch(batch), action_key, progress)

        def take_steps(learner: Learner) -> tuple[Learner, Metrics]:
            sample_key = stream_key(state.key, Stream.REPLAY)
            action_key = stream_key(state.key, Stream.ACTIONS)
            keys = (
                jax.random.split(sample_key, learning.gradient_steps),
                jax.random.split(action_key, learning.gradient_steps),
            )
            learner, by_update = jax.lax.scan(learn, learner, keys)
            return learner, {name: jnp.nanmean(values) for name, values in by_update.items()}

        learner, metrics = _unless_prefilling(config, take_steps, state)
        metrics |= {
            "skipped_updates": learner.skipped,
            "skipped_in_a_row": learner.skipped_in_a_row,
            "broken_environments": jnp.sum(trajectory.broken),
            "saturated_actions": jnp.mean(jnp.abs(trajectory.action) > SATURATION),
            "rollout_time_at_goal": jnp.mean(trajectory.distance < task.success_radius),
        }
        key = stream_key(state.key, Stream.NEXT)
        return TrainingState(learner, environments, replay, key, state.iteration + 1), metrics

    return iteration


def _draw_behaviour(
    config: TeacherConfig, key: Key[Array, ""]
) -> tuple[Bool[Array, "env"], Bool[Array, "env"]]:
    """Returns in which environments actions have no noise, and in which they are random, whatever the first says.

    A policy may stand still without noise. With noise in a later iteration its environment leaves the place where it stood,
    and the critic learns which actions leave it. Random actions lead to goals that the policy never comes near.

    Args:
        config: the run's configuration.
        key: that of the training state.
    """
    rollout = config.rollout

    def draw(stream: Stream, share: float) -> Array:
        return jax.random.bernoulli(stream_key(key, stream), share, (rollout.environments,))

    return draw(Stream.DETERMINISTIC, rollout.deterministic), draw(Stream.RANDOM, rollout.random)


def _unless_prefilling(
    config: TeacherConfig,
    take_steps: Callable[[Learner], tuple[Learner, Metrics]],
    state: TrainingState,
) -> tuple[Learner, Metrics]:
    """Returns what `take_steps` does; in the iterations that fill the replay, the same learner and metrics that are NaN.

    Nothing else is computed then. Where several runs are batched by `jax.vmap`, JAX computes both and selects.
    """
    if not config.prefill_iterations:
        return take_steps(state.learner)
    _, shapes = jax.eval_shape(take_steps, state.learner)

    def take_none(learner: Learner) -> tuple[Learner, Metrics]:
        return learner, {name: jnp.full(x.shape, jnp.nan, x.dtype) for name, x in shapes.items()}

    is_filled = state.iteration >= config.prefill_iterations
    return jax.lax.cond(is_filled, take_steps, take_none, state.learner)


def disturb(task: Task, config: TeacherConfig) -> Task:
    """Returns the task as a run's rollouts simulate it: disturbed as the configuration says.

    Raises:
        InputError: the engine simulates no disturbances.
    """
    disturbances = config.rollout.disturbances
    return task if disturbances == Disturbances() else task.disturbed_by(disturbances)


def configure_physics(task: Task, config: TeacherConfig, seeds: int = 1) -> Task:
    """Returns a run's task with its physics computed as the configuration says.

    Args:
        task: the task of the run.
        config: the run's configuration.
        seeds: number of runs that are trained at once.

    Raises:
        InputError: this physics cannot be computed here, or environments or batch cannot be divided evenly among the
            devices.
    """
    require_divisible(
        rollout__environments=config.rollout.environments, learning__batch=config.learning.batch
    )
    # An evaluation simulates all of its episodes at once, deterministic and sampled ones.
    environments = max(seeds * config.rollout.environments, 2 * config.logging.episodes)
    return task.simulated_by(choose_engine(config.rollout.physics), environments)
