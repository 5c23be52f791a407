"""Compares an exported graph with JAX: on recorded states, in MuJoCo C, and by the order of its values."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from export.closed_loop import closest_distance
from export.contract import Units
from export.policies import AgentPolicy
from export.session import GraphFunction
from export.signature import Role, Signature, agent_signature
from students.memory import see_episodes
from teachers.agent import Agent
from teachers.crl.parameters import Params
from teachers.measures import mean_interval, measure_outcomes, retention, summary
from teachers.runs.progress import Progress, ignore_progress
from teachers.simulation.play import PolicyFunction, forget, play_in_c
from teachers.simulation.trajectory import Trajectory, distance_until_termination
from teachers.tasks import Task

MAX_ROWS = 4096  # states in which parity is measured
TOLERANCE = 1e-4  # of float32 files, for actions in [-1, 1] and for values


class ParityRows(NamedTuple):
    """Steps that a policy met, and what JAX computes in them."""

    read: Float[np.ndarray, "rows read"]
    goal: Float[np.ndarray, "rows read_goal"]
    state: Float[np.ndarray, "rows memory"]  # before the step
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
    return play_in_c(agent.task, AgentPolicy(agent), episodes, seed, progress)


def collect_parity_rows(agent: Agent, trajectory: Trajectory, seed: int) -> ParityRows:
    """Returns up to 4,096 steps of recorded episodes, with the action and value that JAX computes in each.

    Args:
        agent: the agent whose policy and critic are computed.
        trajectory: its recorded episodes.
        seed: seed of the choice of steps.
    """
    networks, params = agent.networks, agent.params
    steps, episodes = trajectory.distance.shape
    chosen = np.random.default_rng(seed).permutation(steps * episodes)[:MAX_ROWS]
    indices = np.unravel_index(chosen, (steps, episodes))
    seen, memory = (
        np.asarray(part)[indices]
        for part in jax.jit(partial(see_episodes, networks))(params, trajectory.read)
    )
    read, goal = (np.asarray(part)[indices] for part in (trajectory.read, trajectory.read_goal))
    action = np.asarray(jax.jit(networks.policy)(params, seen, goal))
    value = jax.jit(networks.critic)(params, seen, goal, action)
    return ParityRows(read, goal, memory, action, np.asarray(value))


def graph_inputs(
    task: Task, signature: Signature, rows: ParityRows, role: Role, units: Units
) -> Mapping[str, Float[np.ndarray, "rows n"]]:
    """Returns the inputs of a file of this role in these steps, by name.

    Args:
        task: the agent's task.
        signature: what the agent reads and carries from step to step.
        rows: the steps.
        role: the file's role.
        units: units of the file's actions.
    """
    action = task.to_actuator_units(rows.action) if units == "task" else rows.action
    arrays = {
        signature.reads: rows.read,
        "goal": rows.goal,
        "state": rows.state,
        "action": action,
    }
    return {name: arrays[name] for name in signature.inputs(role)}


def measure_parity(
    task: Task,
    signature: Signature,
    function: GraphFunction,
    rows: ParityRows,
    role: Role,
    units: Units,
) -> float:
    """Returns the largest absolute difference of a file's actions and values from JAX's, with actions in [-1, 1].

    Args:
        task: the agent's task.
        signature: what the agent reads and carries from step to step.
        function: the function that the file computes.
        rows: the steps in which it is compared.
        role: the file's role.
        units: units of the file's actions.

    Returns:
        The difference; NaN if an output is NaN.
    """
    outputs = function(graph_inputs(task, signature, rows, role, units))
    if units == "task" and "action" in outputs:
        outputs["action"] = task.from_actuator_units(outputs["action"])
    differences = [
        np.abs(outputs[name] - getattr(rows, name)).max()
        for name in signature.outputs(role)
        if name != "next_state"  # whatever it holds, the later actions show it: `compare_sequences`
    ]
    return float(np.max(differences))


def compare_sequences(trajectory: Trajectory, one: PolicyFunction, other: PolicyFunction) -> float:
    """Returns the largest difference between two policies that read whole episodes, each with its own memory.

    Args:
        trajectory: the recorded episodes; both policies read the same.
        one: a policy, which gives actions in [-1, 1].
        other: another.

    Returns:
        The difference; NaN if an action is NaN.
    """
    for policy in (one, other):
        forget(policy)
    assert trajectory.read is not None
    assert trajectory.read_goal is not None
    differences = [
        np.abs(one(read, goal) - other(read, goal)).max()
        for read, goal in zip(trajectory.read, trajectory.read_goal, strict=True)
    ]
    return float(np.max(differences))


def measure_closed_loop(
    task: Task,
    policy: PolicyFunction,
    reference: Trajectory,
    seed: int,
    progress: Progress = ignore_progress,
) -> dict[str, Any]:
    """Returns what a policy's file does in MuJoCo C, on the episodes that JAX has played.

    Args:
        task: the agent's task.
        policy: of the file.
        reference: the episodes that JAX has played.
        seed: seed of these episodes.
        progress: called as the episodes advance.

    Returns:
        The figures of `teachers.measures.summary`; the smallest distance to the goal in an episode, on average,
        `closest_distance`, with its interval, `closest_distance_ci95`; and the file's time at goal over JAX's, `retention`,
        with its interval, `retention_ci95`.
    """
    trajectory = play_in_c(task, policy, reference.goal.shape[1], seed, progress)
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

    def compute(params: Params, read: Array, goal: Array, action: Array) -> Array:
        seen, _ = see_episodes(agent.networks, params, read)
        return agent.networks.critic(params, seen, goal, action)

    return np.asarray(
        jax.jit(compute)(agent.params, trajectory.read, trajectory.read_goal, trajectory.action)
    )


def compute_graph_values(
    agent: Agent, function: GraphFunction, role: Role, units: Units, trajectory: Trajectory
) -> Float[np.ndarray, "time env"]:
    """Returns the values that a critic's or combined file computes for every recorded step.

    Args:
        agent: the agent, whose memory the file is given.
        function: the function that the file computes.
        role: the file's role.
        units: units of the file's actions.
        trajectory: the recorded episodes.
    """
    networks = agent.networks
    _, memory = jax.jit(partial(see_episodes, networks))(agent.params, trajectory.read)
    arrays = (trajectory.read, trajectory.read_goal, memory, trajectory.action)
    read, goal, state, action = (
        array.reshape(trajectory.distance.size, array.shape[-1])
        for array in map(np.asarray, arrays)
    )
    rows = ParityRows(read, goal, state, action, np.zeros(len(goal), np.float32))
    values = function(graph_inputs(agent.task, agent_signature(networks), rows, role, units))[
        "value"
    ]
    return values.reshape(trajectory.distance.shape)
