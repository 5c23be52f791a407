"""Compares an exported graph with JAX: on recorded states, in MuJoCo C, and by the order of its values."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from export.closed_loop import closest_distance
from export.contract import INPUTS, OUTPUTS, Role, Units
from export.session import GraphFunction
from teachers.agent import Agent
from teachers.measures import mean_interval, measure_outcomes, retention, summary
from teachers.runs.progress import Progress, ignore_progress
from teachers.simulation.play import play_in_c
from teachers.simulation.trajectory import Trajectory, distance_until_termination
from teachers.tasks import Task

MAX_ROWS = 4096  # states in which parity is measured
TOLERANCE = 1e-4  # of float32 files, for actions in [-1, 1] and for values


class ParityRows(NamedTuple):
    """States that a policy met, and what JAX computes in them."""

    observation: Float[np.ndarray, "rows obs"]
    goal: Float[np.ndarray, "rows goal"]
    action: Float[np.ndarray, "rows act"]  # in [-1, 1]
    value: Float[np.ndarray, "rows"]


def record_episodes(
    agent: Agent, episodes: int, seed: int, progress: Progress = ignore_progress
) -> Trajectory:
    """Returns episodes that an agent's policy, computed by JAX, plays in MuJoCo C.

    Args:
        agent: the teacher or student.
        episodes: number of episodes.
        seed: seed of the initial states and goals.
        progress: called as the episodes advance.
    """
    compute_action = jax.jit(agent.networks.policy)

    def act(observation: np.ndarray, goal: np.ndarray) -> np.ndarray:
        return np.asarray(compute_action(agent.params, observation, goal))

    return play_in_c(agent.task, act, episodes, seed, progress)


def collect_parity_rows(agent: Agent, trajectory: Trajectory, seed: int) -> ParityRows:
    """Returns up to 4,096 states of recorded episodes, with the action and value that JAX computes in each.

    Args:
        agent: the agent whose policy and critic are computed.
        trajectory: its recorded episodes.
        seed: seed of the choice of states.
    """
    steps, episodes = trajectory.observation.shape[:2]
    chosen = np.random.default_rng(seed).permutation(steps * episodes)[:MAX_ROWS]
    indices = np.unravel_index(chosen, (steps, episodes))
    observation, goal = trajectory.observation[indices], trajectory.goal[indices]
    action = np.asarray(jax.jit(agent.networks.policy)(agent.params, observation, goal))
    value = jax.jit(agent.networks.critic)(agent.params, observation, goal, action)
    return ParityRows(observation, goal, action, np.asarray(value))


def graph_inputs(
    task: Task, rows: ParityRows, role: Role, units: Units
) -> Mapping[str, Float[np.ndarray, "rows n"]]:
    """Returns the inputs of a file of this role in these states, by name.

    Args:
        task: the agent's task.
        rows: the states.
        role: the file's role.
        units: units of the file's actions.
    """
    action = task.to_actuator_units(rows.action) if units == "task" else rows.action
    arrays = {"observation": rows.observation, "goal": rows.goal, "action": action}
    return {name: arrays[name] for name in INPUTS[role]}


def measure_parity(
    task: Task, function: GraphFunction, rows: ParityRows, role: Role, units: Units
) -> float:
    """Returns the largest absolute difference of a file's outputs from JAX's, with actions in [-1, 1].

    Args:
        task: the agent's task.
        function: the function that the file computes.
        rows: the states in which it is compared.
        role: the file's role.
        units: units of the file's actions.

    Returns:
        The difference; NaN if an output is NaN.
    """
    outputs = function(graph_inputs(task, rows, role, units))
    if units == "task" and "action" in outputs:
        outputs["action"] = task.from_actuator_units(outputs["action"])
    differences = [np.abs(outputs[name] - getattr(rows, name)).max() for name in OUTPUTS[role]]
    return float(np.max(differences))


def measure_closed_loop(
    task: Task,
    function: GraphFunction,
    units: Units,
    reference: Trajectory,
    seed: int,
    progress: Progress = ignore_progress,
) -> dict[str, Any]:
    """Returns what a policy's file does in MuJoCo C, on the episodes that JAX has played.

    Args:
        task: the agent's task.
        function: the function that the file computes.
        units: units of the file's actions.
        reference: the episodes that JAX has played.
        seed: seed of these episodes.
        progress: called as the episodes advance.

    Returns:
        The figures of `teachers.measures.summary`; the smallest distance to the goal in an episode, on average,
        `closest_distance`, with its interval, `closest_distance_ci95`; and the file's time at goal over JAX's, `retention`,
        with its interval, `retention_ci95`.
    """

    def act(observation: np.ndarray, goal: np.ndarray) -> np.ndarray:
        action = function({"observation": observation, "goal": goal})["action"]
        return task.from_actuator_units(action) if units == "task" else action

    trajectory = play_in_c(task, act, reference.goal.shape[1], seed, progress)
    distance = distance_until_termination(trajectory)
    outcomes = measure_outcomes(task, distance)
    expected = measure_outcomes(task, distance_until_termination(reference))
    ratio, interval = retention(outcomes.time_at_goal, expected.time_at_goal)
    closest = closest_distance(distance)
    return {
        **summary(outcomes),
        "closest_distance": float(closest.mean()),
        "closest_distance_ci95": mean_interval(closest),
        "retention": ratio,
        "retention_ci95": interval,
    }


def compute_agent_values(agent: Agent, trajectory: Trajectory) -> Float[np.ndarray, "time env"]:
    """Returns the values f(s, a, g) that JAX computes for every recorded step."""
    critic = jax.jit(agent.networks.critic)
    return np.asarray(
        critic(agent.params, trajectory.observation, trajectory.goal, trajectory.action)
    )


def compute_graph_values(
    task: Task, function: GraphFunction, role: Role, units: Units, trajectory: Trajectory
) -> Float[np.ndarray, "time env"]:
    """Returns the values that a critic's or combined file computes for every recorded step.

    Args:
        task: the agent's task.
        function: the function that the file computes.
        role: the file's role.
        units: units of the file's actions.
        trajectory: the recorded episodes.
    """
    observation, goal, action = (
        array.reshape(-1, array.shape[-1])
        for array in (trajectory.observation, trajectory.goal, trajectory.action)
    )
    rows = ParityRows(observation, goal, action, np.zeros(len(goal), np.float32))
    values = function(graph_inputs(task, rows, role, units))["value"]
    return values.reshape(trajectory.distance.shape)
