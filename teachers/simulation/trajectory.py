"""Recorded control steps of a batch of environments, and pure functions of the episodes in them."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from teachers.tasks import Task
from teachers.tasks.declaration import namespace


class Trajectory(NamedTuple):
    """What happened in each control step of each environment, as rollouts and the C twin record it.

    Its arrays are JAX's or NumPy's. After a termination, rollouts restart the environment and the twin steps it on, or
    leaves it where it was if it is broken; the functions below measure each environment's first episode alone.
    """

    observation: Float[
        Any, "*time env obs"
    ]  # before the step; MuJoCo C includes a disturbance's noise
    goal: Float[Any, "*time env goal"]
    action: Float[Any, "*time env act"]  # as chosen; where there is a delay, applied later
    steps: Int[Any, "*time env"]  # the step's index within its episode
    distance: Float[Any, "*time env"]  # after the step, from its goal
    terminated: Bool[Any, "*time env"]  # with this step the episode ended early
    broken: Bool[Any, "*time env"]  # because its numbers were no longer finite
    qpos: Float[Any, "*time env nq"] | None = None  # before the step; None where not recorded
    # What the policy read before the step, and as its goal; None where not recorded.
    read: Float[Any, "*time env read"] | None = None
    read_goal: Float[Any, "*time env read_goal"] | None = None


def is_running(terminated: Any, was_running: Any) -> Any:
    """Returns after which steps an episode has not been terminated yet, `[time, env]`.

    Args:
        terminated: whether each step terminated an episode, `[time, env]`.
        was_running: whether the episode had not been terminated before the first of these steps, `[env]`.
    """
    return was_running & (namespace(terminated).cumsum(terminated, axis=0) == 0)


def episode_lengths(trajectory: Trajectory) -> Int[np.ndarray, "env"]:
    """Returns the number of control steps of each environment's first episode: all of them if it was not terminated."""
    terminated = np.asarray(trajectory.terminated)
    return np.where(terminated.any(axis=0), terminated.argmax(axis=0) + 1, len(terminated))


def distance_until_termination(trajectory: Trajectory) -> Float[np.ndarray, "time env"]:
    """Returns the distance to the goal after each step, in the goal's unit, and infinity from a termination on."""
    terminated = np.asarray(trajectory.terminated)
    running = is_running(terminated, np.ones(terminated.shape[1:], bool))
    return np.where(running, trajectory.distance, np.inf)


def within_radius(task: Task, trajectory: Trajectory) -> Bool[np.ndarray, "time env"]:
    """Returns whether each step ended within the task's success radius of the goal, in an episode that went on."""
    return distance_until_termination(trajectory) < task.success_radius


def starts_within_radius(task: Task, trajectory: Trajectory) -> Bool[np.ndarray, "env"]:
    """Returns whether each episode started within the task's success radius of its goal."""
    distance: Any = task.distance(trajectory.observation[0], trajectory.goal[0])
    return np.asarray(distance) < task.success_radius
