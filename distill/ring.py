"""A ring of labelled states on the device."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


class Labelled(NamedTuple):
    """Visited states with what the teacher says of them."""

    observation: Float[Array, "rows obs"]
    goal: Float[Array, "rows goal"]
    action: Float[Array, "rows act"]  # taken there, by whoever acted
    mean: Float[Array, "rows act"]  # of the teacher's policy, before the squashing
    log_std: Float[Array, "rows act"]
    phi: Float[Array, "rows embed"]  # of the teacher, at the action taken
    psi: Float[Array, "rows embed"]


class Ring(NamedTuple):
    """The newest labelled states; the rows of a round are written at once."""

    rows: Labelled
    rounds: Int[Array, ""]  # ever written


def empty(capacity: int, like: Labelled) -> Ring:
    """A ring without states, whose rows have the shapes of `like`'s."""
    rows = jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape[1:]), x.dtype), like)
    return Ring(rows, jnp.zeros((), jnp.int32))


def insert(ring: Ring, new: Labelled) -> Ring:
    """Writes a round over the oldest rows. The capacity is a multiple of the round's rows."""
    capacity, count = ring.rows.observation.shape[0], new.observation.shape[0]
    if capacity % count:
        raise ValueError(f"a capacity of {capacity} is not a multiple of the round's {count} rows")
    at = (ring.rounds % (capacity // count)) * count
    rows = jax.tree.map(
        lambda ring, new: jax.lax.dynamic_update_slice_in_dim(ring, new, at, axis=0), ring.rows, new
    )
    return Ring(rows, ring.rounds + 1)


def sample(ring: Ring, key: Key[Array, ""], batch: int, per_round: int) -> Labelled:
    """Rows drawn uniformly from those written so far, `per_round` in each round."""
    capacity = ring.rows.observation.shape[0]
    filled = jnp.minimum(ring.rounds, capacity // per_round) * per_round
    index = jax.random.randint(key, (batch,), 0, filled)
    return jax.tree.map(lambda rows: rows[index], ring.rows)
