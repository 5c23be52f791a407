"""A ring buffer of labelled states on the device."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key


class Readings(NamedTuple):
    """What a student read where it does not read the observation, or remembers. A row is a window of control steps."""

    read: Float[Array, "*rows read"]
    goal: Float[Array, "*rows read_goal"]
    is_first: Bool[Array, "*rows"]  # whether an episode begins with the state
    memory: (
        Any  # before the first state of each window, `[windows, memory]`; () where there is none
    )


class LabelledStates(NamedTuple):
    """Visited states, each beside a goal, with the teacher's outputs for them.

    For students that remember, rows are windows of control steps that follow each other, `[rows, time, ...]`.
    """

    observation: Float[Array, "*rows obs"]
    goal: Float[Array, "*rows goal"]
    action: Float[Array, "*rows act"]  # taken in the rollout, or the teacher's for further goals
    mean: Float[Array, "*rows act"]  # of the teacher's policy, before the squashing
    log_std: Float[Array, "*rows act"]
    phi: Float[Array, "*rows embed"]  # of the teacher, at `action`
    psi: Float[Array, "*rows embed"]
    readings: Any = ()  # `Readings` of students that need them


class Ring(NamedTuple):
    """The newest labelled states. The rows of a round are written together."""

    rows: LabelledStates
    rounds: Int[Array, ""]  # number of rounds written so far


def empty_ring(capacity: int, example: LabelledStates) -> Ring:
    """Returns a ring without states.

    Args:
        capacity: number of rows.
        example: rows, or their shapes, of the same sizes and types.
    """
    rows = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape[1:]), x.dtype), example)
    return Ring(rows, jnp.zeros((), jnp.int32))


def insert_rows(ring: Ring, new: LabelledStates) -> Ring:
    """Returns the ring with a round written over its oldest rows.

    Raises:
        ValueError: the capacity is not a multiple of the round's rows.
    """
    capacity, count = ring.rows.observation.shape[0], new.observation.shape[0]
    if capacity % count:
        raise ValueError(f"a capacity of {capacity} is not a multiple of the round's {count} rows")
    first = (ring.rounds % (capacity // count)) * count
    rows = jax.tree.map(
        lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, first, axis=0),
        ring.rows,
        new,
    )
    return Ring(rows, ring.rounds + 1)


def sample_rows(ring: Ring, key: Key[Array, ""], batch: int, rows_per_round: int) -> LabelledStates:
    """Returns rows drawn uniformly from those written so far.

    Args:
        ring: what is drawn from.
        key: of the draw.
        batch: number of rows to draw.
        rows_per_round: number of rows that each round has written.
    """
    capacity = ring.rows.observation.shape[0]
    filled = jnp.minimum(ring.rounds, capacity // rows_per_round) * rows_per_round
    index = jax.random.randint(key, (batch,), 0, filled)
    return jax.tree.map(lambda rows: rows[index], ring.rows)
