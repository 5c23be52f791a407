"""The replay buffer on the device, and hindsight goals.

Control steps are stored time-major, `[slot, env, ...]`, in a ring that is written in whole rollouts. The *age* of a step
is the number of slots from the oldest stored step (age 0) to it.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from teachers.simulation.trajectory import Trajectory

BROKEN_STEP = (
    -2
)  # index of a step that broke the simulation: no step follows it and it follows none


class Replay(NamedTuple):
    """The last `slots` control steps of every environment."""

    observation: Float[Array, "slots env obs"]
    action: Float[Array, "slots env act"]
    steps: Int[Array, "slots env"]  # index within the episode, which counts up by one
    inserted: Int[Array, ""]  # control steps ever written, for each environment
    goal: Float[Array, "slots env goal"] | None = None  # that the policy was given, if it is kept


class Batch(NamedTuple):
    """State-action pairs, each with an observation that was made later in the same episode."""

    observation: Float[Array, "batch obs"]
    action: Float[Array, "batch act"]
    future: Float[Array, "batch obs"]
    goal: Float[Array, "batch goal"] | None = None  # that the policy was given, if it is kept


class EpisodeIndex(NamedTuple):
    """Where episodes end and which steps may be drawn; computed once for many batches."""

    ends: Int[Array, "age env"]  # age of the last stored step of the step's episode
    drawable: Int[Array, "rows"]  # cumulative number of steps that may be drawn, counted age by age


def empty_replay(
    slots: int,
    environments: int,
    observation_size: int,
    action_size: int,
    goal_size: int | None = None,
) -> Replay:
    """Returns a buffer without steps, which keeps the policy's goals if it is given their size."""
    return Replay(
        observation=jnp.zeros((slots, environments, observation_size)),
        action=jnp.zeros((slots, environments, action_size)),
        steps=jnp.zeros((slots, environments), jnp.int32),
        inserted=jnp.zeros((), jnp.int32),
        goal=None if goal_size is None else jnp.zeros((slots, environments, goal_size)),
    )


def insert_rollout(replay: Replay, trajectory: Trajectory) -> Replay:
    """Writes a rollout over the oldest steps; steps that broke the simulation are marked, so that none is drawn.

    Args:
        replay: the buffer, whose number of slots is a multiple of the rollout's length.
        trajectory: the rollout, `[time, env, ...]`.

    Raises:
        ValueError: the number of slots is not a multiple of the rollout's length.
    """
    slots, length = replay.steps.shape[0], trajectory.steps.shape[0]
    if slots % length:
        raise ValueError(f"{slots} slots are not a multiple of the rollout's {length} steps")
    first_slot = replay.inserted % slots

    def write(ring: Array, new: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(ring, new.astype(ring.dtype), first_slot, axis=0)

    return Replay(
        observation=write(replay.observation, trajectory.observation),
        action=write(replay.action, trajectory.action),
        steps=write(replay.steps, jnp.where(trajectory.broken, BROKEN_STEP, trajectory.steps)),
        # The counter stays below the int32 limit. Subtracting `slots` changes neither the position in the ring nor
        # whether the ring is full.
        inserted=jnp.where(replay.inserted >= 2 * slots, replay.inserted - slots, replay.inserted)
        + length,
        goal=None if replay.goal is None else write(replay.goal, trajectory.goal),
    )


def index_episodes(replay: Replay) -> EpisodeIndex:
    """Finds the episodes in a buffer that holds at least one rollout.

    An episode continues while the step's index counts up by one. It also ends at the newest step.
    """
    slots = replay.steps.shape[0]
    size, oldest = _size_and_oldest(replay)
    steps = jnp.roll(replay.steps, -oldest, axis=0)
    age = jnp.arange(slots)[:, None]
    continues = (jnp.roll(steps, -1, axis=0) == steps + 1) & (age < size - 1)
    may_be_drawn = (steps != BROKEN_STEP) & (age < size)
    return EpisodeIndex(
        ends=jax.lax.cummin(jnp.where(continues, slots, age), axis=0, reverse=True),
        drawable=jnp.cumsum(may_be_drawn.ravel(), dtype=jnp.int32),
    )


def sample_pairs(
    replay: Replay,
    index: EpisodeIndex,
    key: Key[Array, ""],
    batch: int,
    discount: float,
) -> Batch:
    """Draws steps uniformly, each with a later observation of its own episode for the hindsight goal.

    The offset to the later observation is geometric (Eysenbach et al., arXiv 2206.07568, eq. 1), cut off at the
    episode's last stored step: see `geometric_offsets`. That step has no later one, and gets its own observation.

    Args:
        replay: the buffer, with at least one rollout in it.
        index: `index_episodes(replay)`.
        key: random key.
        batch: number of pairs to draw.
        discount: gamma, in (0, 1).
    """
    slots, environments = replay.steps.shape
    _, oldest = _size_and_oldest(replay)
    step_key, offset_key = jax.random.split(key)
    drawn = jax.random.randint(step_key, (batch,), 0, jnp.maximum(index.drawable[-1], 1))
    row = jnp.searchsorted(index.drawable, drawn, side="right")
    age, env = row // environments, row % environments
    offset = geometric_offsets(offset_key, index.ends[age, env] - age, discount)
    slot, future_slot = (age + oldest) % slots, (age + offset + oldest) % slots
    return Batch(
        observation=replay.observation[slot, env],
        action=replay.action[slot, env],
        future=replay.observation[future_slot, env],
        goal=None if replay.goal is None else replay.goal[slot, env],
    )


def geometric_offsets(
    key: Key[Array, ""], remaining: Int[Array, "batch"], discount: float
) -> Int[Array, "batch"]:
    """Draws offsets from geometric distributions that are cut off and renormalised.

    With n steps left, P(k) = (1 - discount) discount^(k-1) / (1 - discount^n) for k = 1, ..., n. The cumulative
    distribution (1 - discount^k) / (1 - discount^n) is inverted.

    Args:
        key: random key.
        remaining: n, the number of steps that follow in the episode; where it is 0, so is the offset.
        discount: gamma, in (0, 1).
    """
    uniform = jax.random.uniform(key, remaining.shape)  # in [0, 1)
    # The logarithm is computed in double precision, because float32 rounds a discount near 1 to 1. Near 1, both
    # 1 - discount^n and what is added to 1 before the logarithm are tiny: expm1 and log1p keep all their digits.
    log_discount = math.log(discount)
    total = -jnp.expm1(remaining * log_discount)  # 1 - discount^n
    offsets = 1 + jnp.floor(jnp.log1p(-uniform * total) / log_discount).astype(jnp.int32)
    return jnp.minimum(offsets, remaining)  # rounding may give n + 1


def _size_and_oldest(replay: Replay) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """Returns the number of slots that hold steps, and the slot of the oldest step."""
    slots = replay.steps.shape[0]
    size = jnp.minimum(replay.inserted, slots)
    return size, (replay.inserted - size) % slots
