"""The state of a distillation, and where its arrays lie."""

from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float, Int, Key

from distill.ring import Ring
from teachers.crl.parameters import Params
from teachers.runs.devices import replicated, sharded
from teachers.tasks import State

Metrics = dict[str, Array]


class DistillState(NamedTuple):
    """All that a round reads and writes, apart from the teacher's parameters."""

    params: Params  # the student's
    optimizer_states: tuple[Any, ...]  # one for each phase of learning
    environments: State
    memory: Any  # the student's, `[env, memory]`; () where it has none
    ring: Ring
    basis: Float[Array, "teacher_embed embed"]  # see `fit_basis`
    key: Key[Array, ""]
    round: Int[Array, ""]  # number of rounds labelled so far


class VisitedStates(NamedTuple):
    """The states of a rollout with their goals and actions, a row for each control step of each environment.

    Where the student remembers, the control steps of an environment follow each other.
    """

    observation: Float[Array, "rows obs"]
    goal: Float[Array, "rows goal"]
    action: Float[Array, "rows act"]
    readings: Any = ()  # `Readings` of students that need them


def state_shardings(state: DistillState) -> Any:
    """Returns the sharding of each array of a state: environments are divided over the devices, all else is replicated.

    Args:
        state: a state or its shapes.
    """
    shardings: Any = jax.tree.map(lambda _: replicated(), state)
    return shardings._replace(
        environments=jax.tree.map(lambda _: sharded(), state.environments),
        memory=jax.tree.map(lambda _: sharded(), state.memory),
    )
