"""The trajectory buffer on the device, and goals in hindsight.

Steps lie time-major, `[slot, env, ...]`, in a ring that is written in whole rollouts. *Age* counts slots
from the oldest stored step (0) to the newest.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from teachers.simulation.trajectory import Trajectory

MAX_OFFSET = 2.0**30
LEFT_OUT = -2  # as the index of a step: it follows no step and none follows it


class Replay(NamedTuple):
    """The last `slots` control steps of every environment."""

    observation: Float[Array, "slots env obs"]
    action: Float[Array, "slots env act"]
    steps: Int[
        Array, "slots env"
    ]  # index within the episode: it counts up by one inside an episode
    inserted: Int[Array, ""]  # control steps ever written, for each environment


class Batch(NamedTuple):
    """State-action pairs, and for each an observation reached later in the same episode."""

    observation: Float[Array, "batch obs"]
    action: Float[Array, "batch act"]
    future: Float[Array, "batch obs"]


def empty(slots: int, environments: int, observation_size: int, action_size: int) -> Replay:
    """A buffer without steps."""
    return Replay(
        observation=jnp.zeros((slots, environments, observation_size)),
        action=jnp.zeros((slots, environments, action_size)),
        steps=jnp.zeros((slots, environments), jnp.int32),
        inserted=jnp.zeros((), jnp.int32),
    )


def insert(replay: Replay, trajectory: Trajectory) -> Replay:
    """Writes a rollout over the oldest steps; steps that broke the simulation are never drawn.

    The number of slots is a multiple of the rollout's length.
    """
    slots, length = replay.steps.shape[0], trajectory.steps.shape[0]
    if slots % length:
        raise ValueError(f"{slots} slots are not a multiple of the rollout's {length} steps")
    at = replay.inserted % slots

    def write(ring: Array, new: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(ring, new.astype(ring.dtype), at, axis=0)

    return Replay(
        observation=write(replay.observation, trajectory.observation),
        action=write(replay.action, trajectory.action),
        steps=write(replay.steps, jnp.where(trajectory.broken, LEFT_OUT, trajectory.steps)),
        # Kept below the int32 limit without changing the position in the ring or "is it full".
        inserted=jnp.where(replay.inserted >= 2 * slots, replay.inserted - slots, replay.inserted)
        + length,
    )


class Index(NamedTuple):
    """What is looked up in a buffer, made once for many batches."""

    ends: Int[Array, "age env"]  # the age of the last stored step of the step's episode
    kept: Int[Array, "rows"]  # how many steps up to this one may be drawn, counted age by age


def index(replay: Replay) -> Index:
    """Finds the episodes in a buffer that holds at least one rollout.

    An episode goes on where the step index counts up by one; it also ends at the newest step.
    """
    slots = replay.steps.shape[0]
    size, oldest = _size_and_oldest(replay)
    steps = jnp.roll(replay.steps, -oldest, axis=0)
    age = jnp.arange(slots)[:, None]
    goes_on = (jnp.roll(steps, -1, axis=0) == steps + 1) & (age < size - 1)
    kept = (steps != LEFT_OUT) & (age < size)
    return Index(
        ends=jax.lax.cummin(jnp.where(goes_on, slots, age), axis=0, reverse=True),
        kept=jnp.cumsum(kept.ravel(), dtype=jnp.int32),
    )


def sample(
    replay: Replay,
    index: Index,
    key: Key[Array, ""],
    batch: int,
    discount: float,
) -> Batch:
    """Steps drawn uniformly, each with a later observation of its own episode as goal in hindsight.

    An episode's last stored step has nothing later: it is its own goal.

    The offset to the goal is geometric, P(k) = (1 - discount) discount^(k-1) for k = 1, 2, ... (Eysenbach
    et al., arXiv 2206.07568, eq. 1), clipped to the episode's last stored step.

    Args:
        replay: the buffer, with at least one rollout in it.
        index: `index(replay)`.
        key: randomness.
        batch: pairs to draw.
        discount: gamma, in (0, 1).
    """
    slots, environments = replay.steps.shape
    _, oldest = _size_and_oldest(replay)
    step_key, offset_key = jax.random.split(key)
    drawn = jax.random.randint(step_key, (batch,), 0, jnp.maximum(index.kept[-1], 1))
    row = jnp.searchsorted(index.kept, drawn, side="right")
    age, env = row // environments, row % environments
    offset = geometric_offsets(offset_key, batch, discount)
    future_age = jnp.minimum(age + offset, index.ends[age, env])
    slot, future_slot = (age + oldest) % slots, (future_age + oldest) % slots
    return Batch(
        observation=replay.observation[slot, env],
        action=replay.action[slot, env],
        future=replay.observation[future_slot, env],
    )


def geometric_offsets(key: Key[Array, ""], batch: int, discount: float) -> Int[Array, "batch"]:
    """Offsets k >= 1 with P(k) = (1 - discount) discount^(k-1), by inversion of the distribution."""
    uniform = jax.random.uniform(key, (batch,), minval=jnp.finfo(jnp.float32).tiny)
    # The logarithm in double precision: near 1, float32 rounds the discount to 1. The bound keeps int32 safe.
    offsets = jnp.log(uniform) / math.log(discount)
    return 1 + jnp.floor(jnp.minimum(offsets, MAX_OFFSET)).astype(jnp.int32)


def _size_and_oldest(replay: Replay) -> tuple[Int[Array, ""], Int[Array, ""]]:
    slots = replay.steps.shape[0]
    size = jnp.minimum(replay.inserted, slots)
    return size, (replay.inserted - size) % slots
