"""The second stage of a round: the teacher labels the visited states, and they are written into the ring."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from distill.config import DistillConfig, LabelConfig
from distill.critic_losses import fit_basis
from distill.ring import LabelledStates, insert_rows
from distill.state import DistillState, VisitedStates
from teachers.crl.networks import Networks
from teachers.crl.parameters import Params
from teachers.runs.streams import Stream, stream_key

# Of an improved label, in magnitude. An action of 1 would be infinite before the squashing.
LARGEST_ACTION = 0.99999

LabelStage = Callable[[DistillState, Params, VisitedStates], DistillState]


def make_label_stage(config: DistillConfig, teacher: Networks) -> LabelStage:
    """Returns the stage in which the teacher labels every visited state, once for each of `collect.goals_per_state` goals.

    In the first round it also fits the basis, if the student's embedding is smaller than the teacher's.

    Args:
        config: of the distillation.
        teacher: the teacher's networks.

    Returns:
        `(state, teacher_params, visited) -> state`.
    """

    def label(state: DistillState, teacher_params: Params, visited: VisitedStates) -> DistillState:
        key = stream_key(state.key, Stream.NEXT)
        rows = label_states(teacher_params, visited, state.key, config, teacher)
        basis = state.basis
        if basis.shape[1] < basis.shape[0]:
            basis = jax.lax.cond(
                state.round == 0,
                lambda: fit_basis(_by_row(rows.phi), _by_row(rows.psi), basis.shape[1]),
                lambda: basis,
            )
        ring = insert_rows(state.ring, rows)
        return state._replace(ring=ring, basis=basis, key=key, round=state.round + 1)

    return label


def _by_row(windows: Array) -> Array:
    return windows.reshape(-1, windows.shape[-1])


def label_states(
    params: Params,
    visited: VisitedStates,
    key: Key[Array, ""],
    config: DistillConfig,
    teacher: Networks,
) -> LabelledStates:
    """Returns the visited states with the teacher's labels, a row for each pair of a state and one of its goals.

    Args:
        params: the teacher's.
        visited: in a round.
        key: that of the state at the start of the stage.
        config: of the distillation.
        teacher: its networks.
    """
    count = config.collect.goals_per_state
    goal_key = stream_key(key, Stream.LABELLED_GOALS)
    goals, index = choose_goals(visited, goal_key, count, teacher.task.achieved_goal)
    goal, observation = goals[index], jnp.tile(visited.observation, (count, 1))

    def apply(network: Callable[..., Any], *inputs: Array) -> Any:
        return apply_in_batches(partial(network, params), inputs, config.collect.label_batch)

    mean, log_std = apply(teacher.actor, observation, goal)
    if config.label.actions:
        keys = jax.random.split(stream_key(key, Stream.LABELLED_ACTIONS), len(mean))
        improve = partial(improve_mean, params, config=config.label, teacher=teacher)
        batch = max(1, config.collect.label_batch // config.label.actions)
        mean = apply_in_batches(improve, (keys, observation, goal, mean, log_std), batch)
    # For further goals no action was taken. The critic is taught the value of the teacher's action instead.
    further = jnp.tanh(mean[len(visited.action) :])
    action = jnp.concatenate([visited.action, further])
    rows = LabelledStates(
        observation=observation,
        goal=goal,
        action=action,
        mean=mean,
        log_std=log_std,
        phi=apply(teacher.phi, observation, goal, action),
        psi=apply(teacher.psi, goals)[index],  # each goal is embedded once
    )
    readings = visited.readings
    if readings:
        readings = jax.tree.map(lambda part: jnp.concatenate([part] * count), readings)
        if count > 1:  # no sensor is the goal then
            readings = readings._replace(goal=goal)
        rows = rows._replace(readings=readings)
    if config.window == 1:
        return rows

    def divide(tree: Any) -> Any:
        return jax.tree.map(lambda x: x.reshape(-1, config.window, *x.shape[1:]), tree)

    readings = rows.readings
    memory = readings.memory  # has a row for each window already
    divided = divide(readings._replace(memory=()))._replace(memory=memory)
    return divide(rows._replace(readings=()))._replace(readings=divided)


def improve_mean(
    params: Params,
    keys: Key[Array, "rows"],
    observation: Float[Array, "rows obs"],
    goal: Float[Array, "rows goal"],
    mean: Float[Array, "rows act"],
    log_std: Float[Array, "rows act"],
    *,
    config: LabelConfig,
    teacher: Networks,
) -> Float[Array, "rows act"]:
    """Returns means, before the squashing, of actions that the teacher's critic prefers to those of the teacher's policy.

    Such an action is the mean of actions drawn from the teacher's policy, each weighted by exp(f(s, a, g) / temperature).
    Of all policies within some KL divergence of the teacher's, the one with the highest value has these weights (Abdolmaleki
    et al., arXiv 1806.06920, eq. 4).

    Args:
        params: the teacher's.
        keys: random keys.
        observation: of each row.
        goal: of each row.
        mean: of the teacher's policy, before the squashing.
        log_std: logarithm of its standard deviation.
        config: number of actions, and temperature.
        teacher: its networks.
    """
    actions, values = teacher.draw_actions(
        params, keys, observation, goal, mean, log_std, config.actions
    )
    weights = jax.nn.softmax(values / config.temperature, axis=1)
    improved = (weights[:, :, None] * actions).sum(axis=1)
    return jnp.arctanh(jnp.clip(improved, -LARGEST_ACTION, LARGEST_ACTION))


def choose_goals(
    visited: VisitedStates,
    key: Key[Array, ""],
    count: int,
    achieved_goal: Callable[[Array], Array],
) -> tuple[Float[Array, "goals goal"], Int[Array, "pairs"]]:
    """Chooses the goals for which states are labelled: first each state's goal in the rollout, then others of the round.

    The others are by turns goals that some environment had and goals that some state achieved. Control steps are
    expensive and labels are cheap: the teacher labels a state for any goal.

    Args:
        visited: in a round.
        key: of the draw.
        count: number of goals of each state.
        achieved_goal: maps observations to the goals that they achieve.

    Returns:
        The goals, and the index of the goal of each pair: first one pair for every state, then another.
    """
    rows = len(visited.observation)
    desired, achieved = visited.goal, achieved_goal(visited.observation)
    goals = desired if count <= 2 else jnp.concatenate([desired, achieved])
    keys = jax.random.split(key, count)[1:]
    drawn = [
        number % 2 * rows + jax.random.randint(goal_key, (rows,), 0, rows)
        for number, goal_key in enumerate(keys)
    ]
    return goals, jnp.concatenate([jnp.arange(rows), *drawn])


def apply_in_batches(network: Callable[..., Any], inputs: tuple[Array, ...], batch: int) -> Any:
    """Returns a network's outputs for many rows, computed for at most `batch` rows at once to save memory."""
    if len(inputs[0]) <= batch:
        return network(*inputs)

    def apply_to_row(row: tuple[Array, ...]) -> Any:
        outputs = network(*(x[None] for x in row))
        return jax.tree.map(lambda x: x[0], outputs)

    return jax.lax.map(apply_to_row, inputs, batch_size=batch)
