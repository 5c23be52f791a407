"""Policy x task -> trajectories. Training, evaluation and distillation all step environments through here."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from teachers.tasks import GoalSet, State, Task

# (key, observation [env, obs], goal [env, goal]) -> action [env, act] in [-1, 1]
Act = Callable[[Key[Array, ""], Array, Array], Array]


class Trajectory(NamedTuple):
    """What happened in each control step of each environment."""

    observation: Float[Array, "*time env obs"]  # before the step
    goal: Float[Array, "*time env goal"]
    action: Float[Array, "*time env act"]
    steps: Int[Array, "*time env"]  # the step's index within its episode
    within: Bool[Array, "*time env"]  # after the step, inside the success radius
    terminated: Bool[Array, "*time env"]  # with this step the episode ended early


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

    Args:
        task: what is simulated.
        act: the policy.
        states: batched over environments, `[env, ...]`.
        key: randomness of policy and restarts.
        length: control steps.
        goal_set: which goals restarted episodes get.
    """
    environments = states.steps.shape[0]

    def step(states: State, key: Array) -> tuple[State, Trajectory]:
        act_key, reset_key = jax.random.split(key)
        action = act(act_key, states.observation, states.goal)
        stepped = jax.vmap(task.step)(states, action)
        record = Trajectory(
            observation=states.observation,
            goal=states.goal,
            action=action,
            steps=states.steps,
            within=task.within(stepped.observation, stepped.goal),
            terminated=stepped.terminated,
        )
        done = stepped.terminated | (stepped.steps >= task.episode_steps)

        def restart(states: State) -> State:
            fresh = reset(task, reset_key, environments, goal_set)
            return jax.tree.map(
                lambda new, old: jnp.where(_like(done, old), new, old), fresh, states
            )

        # Most steps end no episode, and then nothing is reset.
        return jax.lax.cond(done.any(), restart, lambda states: states, stepped), record

    return jax.lax.scan(step, states, jax.random.split(key, length))


def _like(mask: Bool[Array, "env"], array: Array) -> Array:
    return mask.reshape(mask.shape + (1,) * (array.ndim - 1))
