"""Steps environments of a task under a policy, for training, evaluation and distillation."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from teachers.runs.devices import map_over_devices, sharded_if_divisible
from teachers.runs.streams import Stream, stream_key
from teachers.simulation.trajectory import Trajectory
from teachers.tasks import GoalSet, State, Task
from teachers.tasks.disturbance import Disturbances, Disturbed

RESTART_PARTS = 16  # environments that are done are restarted 1/16 of all at a time

# (keys [env], observation [env, obs], goal [env, goal], *context) -> action [env, act] in [-1, 1]
Act = Callable[..., Array]


class StepInput(NamedTuple):
    """What a policy with memory is given in a control step."""

    keys: Key[Array, "env"]
    read: Float[Array, "env read"]  # what it reads, see `Task.sense`
    goal: Float[Array, "env read_goal"]  # as it reads it
    memory: Float[
        Array, "env memory"
    ]  # what it carries from step to step, zeros at the start of an episode
    observation: Float[Array, "env obs"]  # what its teacher sees
    commanded: Float[Array, "env goal"]  # the goal as its teacher sees it


# (what it is given, *context) -> action [env, act] in [-1, 1], and the memory after it
ActWithMemory = Callable[..., tuple[Array, Array]]


def reset(task: Task, key: Key[Array, ""], environments: int, goal_set: GoalSet) -> State:
    """Returns environments at the start of an episode, each with its own state and goal."""
    keys = jax.random.split(key, environments)
    return jax.vmap(lambda k: task.reset(k, goal_set))(keys)


def random_policy(task: Task) -> Act:
    """Returns a policy whose actions are uniformly random in [-1, 1], whatever the observation."""

    def draw_action(key: Array) -> Array:
        return jax.random.uniform(key, (task.action_size,), minval=-1, maxval=1)

    return lambda keys, *_: jax.vmap(draw_action)(keys)


def rollout(
    task: Task,
    act: Act,
    states: State,
    key: Key[Array, ""],
    length: int,
    goal_set: GoalSet,
    *context: Array,
    noise_steps: int = 1,
) -> tuple[State, Trajectory]:
    """Returns the environments after `length` control steps, and what happened in each step.

    An environment whose episode ends restarts with a new state and goal. So does an environment whose state is no
    longer finite, which happens at times to MJX's humanoids; the others are not affected. Every environment has its own
    random numbers, so that results do not depend on which device simulates it.

    Args:
        task: what is simulated.
        act: the policy.
        states: batched over environments, `[env, ...]`.
        key: of the policy's and the restarts' random numbers.
        length: control steps.
        goal_set: from which restarted episodes draw their goals.
        context: further arguments of `act`, each with a leading axis of environments.
        noise_steps: control steps for which the policy is given the same keys.
    """

    def act_without_memory(given: StepInput, *context: Array) -> tuple[Array, Array]:
        return act(given.keys, given.read, given.goal, *context), given.memory

    memory = jnp.zeros((states.steps.shape[0], 0))
    states, _, trajectory = rollout_with_memory(
        task,
        act_without_memory,
        states,
        memory,
        key,
        length,
        goal_set,
        *context,
        noise_steps=noise_steps,
    )
    return states, trajectory


def rollout_with_memory(
    task: Task,
    act: ActWithMemory,
    states: State,
    memory: Float[Array, "env memory"],
    key: Key[Array, ""],
    length: int,
    goal_set: GoalSet,
    *context: Array,
    noise_steps: int = 1,
) -> tuple[State, Float[Array, "env memory"], Trajectory]:
    """Returns environments, memory and what happened in each step under a policy with memory.

    Args:
        task: what is simulated.
        act: the policy.
        states: batched over environments, `[env, ...]`.
        memory: of the policy, at these states.
        key: see `rollout`, as the following.
        length: control steps.
        goal_set: from which restarted episodes draw their goals.
        context: further arguments of `act`.
        noise_steps: control steps for which the policy is given the same keys.
    """
    environments = states.steps.shape[0]

    def play(
        states: State, memory: Array, keys: Array, *context: Array
    ) -> tuple[tuple[State, Array], Trajectory]:
        def step(carry: tuple[State, Array], time: Array) -> tuple[tuple[State, Array], Trajectory]:
            states, memory = carry
            act_keys, reset_keys = _split_keys(keys, time)
            sense_keys = jax.vmap(lambda key: stream_key(key, Stream.SENSORS))(act_keys)
            if noise_steps > 1:
                act_keys, _ = _split_keys(keys, time - time % noise_steps)
            step_keys = StepKeys(act_keys, sense_keys, reset_keys)
            return _step(task, act, states, memory, step_keys, goal_set, context)

        return jax.lax.scan(step, (states, memory), jnp.arange(length))

    keys = jax.random.split(key, environments)
    play_all = map_over_devices(play, environments)
    (states, memory), trajectory = play_all(states, memory, keys, *context)
    return states, memory, trajectory


class StepKeys(NamedTuple):
    """The random keys of each environment in a control step."""

    act: Key[Array, "env"]
    sense: Key[Array, "env"]
    reset: Key[Array, "env"]


def _split_keys(
    keys: Key[Array, "env"], time: Int[Array, ""]
) -> tuple[Key[Array, "env"], Key[Array, "env"]]:
    """Returns two keys of each environment for a control step."""
    pairs = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, time)))(keys)
    return pairs[:, 0], pairs[:, 1]


def _step(
    task: Task,
    act: ActWithMemory,
    states: State,
    memory: Array,
    keys: StepKeys,
    goal_set: GoalSet,
    context: tuple[Array, ...],
) -> tuple[tuple[State, Array], Trajectory]:
    read, goal, states = jax.vmap(task.sense)(states, keys.sense)
    given = StepInput(keys.act, read, goal, memory, states.observation, states.goal)
    action, memory = act(given, *context)
    stepped = jax.vmap(task.step)(states, action)
    broken = ~_is_finite(stepped)
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
        read=read,
        read_goal=goal,
    )
    done = terminated | (stepped.steps >= task.episode_steps)
    memory = jnp.where(done[:, None], 0.0, memory)
    return (_restart(task, stepped, done, keys.reset, goal_set), memory), record


def _is_finite(states: State) -> Bool[Array, "env"]:
    """Returns in which environments all numbers are finite."""
    arrays = jax.tree.leaves((states.physics, states.observation))
    rows = (array.reshape(array.shape[0], -1) for array in arrays)
    return jnp.stack([jnp.isfinite(row).all(axis=-1) for row in rows]).all(axis=0)


def _restart(
    task: Task, states: State, done: Bool[Array, "env"], keys: Key[Array, "env"], goal_set: GoalSet
) -> State:
    """Returns the environments with a new episode in those that are done.

    A few are restarted at a time until none is left: in most steps none is done, and where episodes end early a few are.
    """
    environments = done.shape[0]
    few = -(-environments // RESTART_PARTS)

    def any_done(carry: tuple[State, Array]) -> Array:
        return carry[1].any()

    def restart_few(carry: tuple[State, Array]) -> tuple[State, Array]:
        states, done = carry
        # Where fewer than `few` are done, the other indices point beyond the arrays and are dropped.
        (index,) = jnp.nonzero(done, size=few, fill_value=environments)
        fresh = jax.vmap(lambda k: task.reset(k, goal_set))(keys[index])
        states = jax.tree.map(lambda old, new: old.at[index].set(new, mode="drop"), states, fresh)
        return states, done.at[index].set(False, mode="drop")

    return jax.lax.while_loop(any_done, restart_few, (states, done))[0]


def evaluation_starts(
    task: Task, episodes: int, seed: int, disturbances: Disturbances | None = None
) -> State:
    """Returns initial states and goals of an evaluation, the same for every policy, engine and disturbance.

    Args:
        task: what is played.
        episodes: how many.
        seed: of states, goals and disturbances.
        disturbances: ranges from which each episode draws its disturbance; by default there is none.
    """
    sharding = sharded_if_divisible(episodes)
    starts = jax.jit(reset, static_argnums=(0, 2, 3), out_shardings=sharding)
    key = stream_key(jax.random.key(seed), Stream.EVALUATION)
    states = starts(task, key, episodes, task.evaluation_goals)
    if disturbances is None:
        return states
    draw = jax.jit(_draw_disturbances, static_argnums=(0, 3), out_shardings=sharding)
    return states._replace(disturbed=draw(task, disturbances.model_dump(), key, episodes))


def _draw_disturbances(
    task: Task, ranges: Mapping[str, Any], key: Key[Array, ""], episodes: int
) -> Disturbed:
    """Returns the disturbances that `reset` of a disturbed task draws with this key."""
    keys = jax.random.split(key, episodes)
    return jax.vmap(lambda k: task.disturb(ranges, k))(keys)
