"""Policy x task -> trajectories. Training, evaluation and distillation all step environments through here."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from teachers.tasks import GoalSet, State, Task

RESTART_SHARE = 16  # of all environments, how many parts are restarted one after the other

# (key, observation [env, obs], goal [env, goal]) -> action [env, act] in [-1, 1]
Act = Callable[[Key[Array, ""], Array, Array], Array]


class Trajectory(NamedTuple):
    """What happened in each control step of each environment."""

    observation: Float[Array, "*time env obs"]  # before the step
    goal: Float[Array, "*time env goal"]
    action: Float[Array, "*time env act"]
    steps: Int[Array, "*time env"]  # the step's index within its episode
    distance: Float[Array, "*time env"]  # after the step, from its goal
    terminated: Bool[Array, "*time env"]  # with this step the episode ended early
    broken: Bool[Array, "*time env"]  # because the simulation's numbers were no longer finite


def reset(task: Task, key: Key[Array, ""], environments: int, goal_set: GoalSet) -> State:
    """So many environments at the start of an episode, each with its own state and goal."""
    keys = jax.random.split(key, environments)
    return jax.vmap(lambda k: task.reset(k, goal_set))(keys)


def rollout(
    task: Task,
    act: Act,
    states: State,
    key: Key[Array, ""],
    length: int,
    goal_set: GoalSet,
) -> tuple[State, Trajectory]:
    """`length` control steps of every environment; an episode that ends restarts with a new state and goal.

    So does, alone, an environment whose state is no longer finite, as MJX's humanoids become now and then.

    Args:
        task: what is simulated.
        act: the policy.
        states: batched over environments, `[env, ...]`.
        key: randomness of policy and restarts.
        length: control steps.
        goal_set: which goals restarted episodes get.
    """

    def step(states: State, key: Array) -> tuple[State, Trajectory]:
        act_key, reset_key = jax.random.split(key)
        action = act(act_key, states.observation, states.goal)
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
        return _restart(task, stepped, done, reset_key, goal_set), record

    return jax.lax.scan(step, states, jax.random.split(key, length))


def _finite(states: State) -> Bool[Array, "env"]:
    """Which environments have finite numbers alone."""
    rows = [*states.physics, states.observation]
    return jnp.stack([jnp.isfinite(x).all(axis=-1) for x in rows]).all(axis=0)


def _restart(
    task: Task, states: State, done: Bool[Array, "env"], key: Key[Array, ""], goal_set: GoalSet
) -> State:
    """Starts a new episode in the environments that are done.

    A few at a time, until none is left: mostly none is done, and where episodes end early a few are.
    """
    environments = done.shape[0]
    keys = jax.random.split(key, environments)
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
