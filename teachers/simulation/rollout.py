"""Policy x task -> trajectories. Training, evaluation and distillation all step environments through here."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Key

from teachers.runs.devices import map_over_devices, sharded_if_divisible
from teachers.simulation.trajectory import Trajectory
from teachers.tasks import GoalSet, State, Task
from teachers.tasks.disturbance import SENSE, Disturbances, Disturbed

RESTART_SHARE = 16  # of all environments, how many parts are restarted one after the other

# (keys [env], observation [env, obs], goal [env, goal], *context) -> action [env, act] in [-1, 1]
Act = Callable[..., Array]


def reset(task: Task, key: Key[Array, ""], environments: int, goal_set: GoalSet) -> State:
    """So many environments at the start of an episode, each with its own state and goal."""
    keys = jax.random.split(key, environments)
    return jax.vmap(lambda k: task.reset(k, goal_set))(keys)


def random_policy(task: Task) -> Act:
    """Actions drawn evenly, whatever is seen."""

    def draw(key: Array) -> Array:
        return jax.random.uniform(key, (task.action_size,), minval=-1, maxval=1)

    return lambda keys, *_: jax.vmap(draw)(keys)


def rollout(
    task: Task,
    act: Act,
    states: State,
    key: Key[Array, ""],
    length: int,
    goal_set: GoalSet,
    *context: Array,
) -> tuple[State, Trajectory]:
    """`length` control steps of every environment; an episode that ends restarts with a new state and goal.

    So does, alone, an environment whose state is no longer finite, as MJX's humanoids become now and then. Every
    environment has its own random numbers, so that what happens does not depend on which device simulates it.

    Args:
        task: what is simulated.
        act: the policy.
        states: batched over environments, `[env, ...]`.
        key: randomness of policy and restarts.
        length: control steps.
        goal_set: which goals restarted episodes get.
        context: what `act` is given besides, each with a leading axis of environments.
    """
    environments = states.steps.shape[0]

    def play(states: State, keys: Array, *context: Array) -> tuple[State, Trajectory]:
        def step(states: State, time: Array) -> tuple[State, Trajectory]:
            now = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, time)))(keys)
            return _step(task, act, states, now[:, 0], now[:, 1], goal_set, context)

        return jax.lax.scan(step, states, jnp.arange(length))

    keys = jax.random.split(key, environments)
    return map_over_devices(play, environments)(states, keys, *context)


def _step(
    task: Task,
    act: Act,
    states: State,
    act_keys: Key[Array, "env"],
    reset_keys: Key[Array, "env"],
    goal_set: GoalSet,
    context: tuple[Array, ...],
) -> tuple[State, Trajectory]:
    sense_keys = jax.vmap(lambda key: jax.random.fold_in(key, SENSE))(act_keys)
    sensed = jax.vmap(task.sense)(states, sense_keys)
    action = act(act_keys, sensed, states.goal, *context)
    stepped = jax.vmap(task.step)(states, action)
    broken = ~_finite(stepped)
    terminated = stepped.terminated | broken
    distance = task.distance(stepped.observation, stepped.goal)
    record = Trajectory(
        observation=states.observation,
        goal=states.goal,
        action=action,
        steps=states.steps,
        distance=jnp.where(broken, jnp.inf, distance),
        terminated=terminated,
        broken=broken,
    )
    done = terminated | (stepped.steps >= task.episode_steps)
    return _restart(task, stepped, done, reset_keys, goal_set), record


def _finite(states: State) -> Bool[Array, "env"]:
    """Which environments have finite numbers alone."""
    rows = [*states.physics, states.observation]
    return jnp.stack([jnp.isfinite(x).all(axis=-1) for x in rows]).all(axis=0)


def _restart(
    task: Task, states: State, done: Bool[Array, "env"], keys: Key[Array, "env"], goal_set: GoalSet
) -> State:
    """Starts a new episode in the environments that are done.

    A few at a time, until none is left: mostly none is done, and where episodes end early a few are.
    """
    environments = done.shape[0]
    few = -(-environments // RESTART_SHARE)

    def go_on(carry: tuple[State, Array]) -> Array:
        return carry[1].any()

    def some(carry: tuple[State, Array]) -> tuple[State, Array]:
        states, done = carry
        # Where fewer than `few` are done, the rest points beyond the arrays and is dropped.
        (which,) = jnp.nonzero(done, size=few, fill_value=environments)
        fresh = jax.vmap(lambda k: task.reset(k, goal_set))(keys[which])
        states = jax.tree.map(lambda old, new: old.at[which].set(new, mode="drop"), states, fresh)
        return states, done.at[which].set(False, mode="drop")

    return jax.lax.while_loop(go_on, some, (states, done))[0]


EVALUATION, NOISE = 1, 2  # tell evaluation's random numbers from others of the same seed


def evaluation_starts(
    task: Task, episodes: int, seed: int, disturbances: Disturbances | None = None
) -> State:
    """The initial states and goals of an evaluation: the same for every policy, either engine and all disturbances."""
    # Cut along the environments, or whole on each device.
    place = sharded_if_divisible(episodes)
    starts = jax.jit(reset, static_argnums=(0, 2, 3), out_shardings=place)
    # Training splits the bare key of its seed.
    key = jax.random.fold_in(jax.random.key(seed), EVALUATION)
    states = starts(task, key, episodes, task.evaluation_goals)
    if disturbances is None:
        return states
    disturbed = jax.jit(_disturbed, static_argnums=(0, 3), out_shardings=place)
    return states._replace(disturbed=disturbed(task, disturbances.model_dump(), key, episodes))


def _disturbed(
    task: Task, ranges: Mapping[str, Any], key: Key[Array, ""], episodes: int
) -> Disturbed:
    """As `reset` of a disturbed task would draw it with this key."""
    keys = jax.random.split(key, episodes)
    return jax.vmap(lambda k: task.disturb(ranges, k))(keys)
