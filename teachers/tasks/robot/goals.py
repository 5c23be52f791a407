"""Where goals are drawn from: boxes, rings, and what the robot reaches with other joint angles."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from teachers.tasks.declaration import Physics

# (key, what has been achieved at the start [goal], the task) -> goal [goal]
Sampler = Callable[[Array, Array, Any], Array]
DRAWS = 16  # attempts at a goal that is not in the floor


def box(
    centre: tuple[float, ...],
    half: tuple[float, ...],
    *,
    turned: float = 0.0,
    from_start: bool = False,
) -> Sampler:
    """Draws places from a box.

    Args:
        centre: of the box, in the goal's first numbers (m).
        half: its half-widths (m).
        turned: where goals are poses, the largest angle from the orientation at the start (rad).
        from_start: whether `centre` counts from what has been achieved at the start.
    """
    middle, size = jnp.asarray(centre, jnp.float32), len(centre)

    def sample(key: Key[Array, ""], start: Float[Array, "goal"], task: Any) -> Float[Array, "goal"]:
        place_key, turn_key = jax.random.split(key)
        place = middle + jax.random.uniform(place_key, (size,), minval=-1.0) * jnp.asarray(half)
        if from_start:
            place = place + start[:size]
        if start.shape[0] == size:
            return place
        return jnp.concatenate([place, turn(turn_key, start[size:], turned)])

    return sample


def ring(inner: float, outer: float, *, height: tuple[float, float] | None = None) -> Sampler:
    """Draws places at a distance from the start, in any direction in the plane.

    Args:
        inner: smallest distance (m).
        outer: largest distance (m).
        height: for places of three numbers, the lowest and the highest (m); by default that of the start.
    """

    def sample(key: Key[Array, ""], start: Float[Array, "goal"], task: Any) -> Float[Array, "goal"]:
        distance_key, angle_key, height_key = jax.random.split(key, 3)
        area = jax.random.uniform(distance_key, minval=inner**2, maxval=outer**2)
        angle = jax.random.uniform(angle_key, minval=-jnp.pi, maxval=jnp.pi)
        place = start[:2] + jnp.sqrt(area) * jnp.stack([jnp.cos(angle), jnp.sin(angle)])
        if start.shape[0] == 2:
            return place
        low, high = height if height else (0.0, 0.0)
        level = jax.random.uniform(height_key, (1,), minval=low, maxval=high)
        return jnp.concatenate([place, level if height else start[2:3], start[3:]])

    return sample


def reachable(scale: float = 0.5, *, lowest: float = 0.0) -> Sampler:
    """Draws what the robot achieves with joint angles near its pose, so that every goal can be reached.

    Args:
        scale: the largest offset of a hinge (rad) or slide (m) from the pose; angles stay within their ranges.
        lowest: height (m) above which the goal's place has to be. Of 16 draws the first one that is takes part.
    """

    def sample(key: Key[Array, ""], start: Float[Array, "goal"], task: Any) -> Float[Array, "goal"]:
        offsets = jax.random.uniform(key, (DRAWS, task.model.nq), minval=-scale, maxval=scale)
        low, high = task.joint_limits
        poses = jnp.clip(task.rest_pose + offsets * task.is_single_joint, low, high)
        goals = jax.vmap(lambda qpos: _achieve(task, qpos))(poses)
        is_above = goals[:, 2] > lowest if goals.shape[1] > 2 else jnp.ones(DRAWS, bool)
        return goals[jnp.argmax(is_above)]

    return sample


def turn(key: Key[Array, ""], quaternion: Float[Array, "4"], largest: float) -> Float[Array, "4"]:
    """Returns a quaternion turned by a uniform angle up to `largest` (rad) about a random axis of its frame."""
    axis_key, angle_key = jax.random.split(key)
    axis = jax.random.normal(axis_key, (3,))
    axis = axis / jnp.linalg.norm(axis)
    half = jax.random.uniform(angle_key, maxval=largest) / 2
    w, v = jnp.cos(half), jnp.sin(half) * axis
    q, u = quaternion[0], quaternion[1:]
    return jnp.concatenate([(q * w - u @ v)[None], q * v + w * u + jnp.cross(u, v)])


def angle_between(first: Any, second: Any, xp: Any) -> Any:
    """Returns the angle (rad) between orientations that are unit quaternions `[*batch, 4]`, whatever their signs."""
    # The arc cosine is inexact for small angles, where it matters.
    same = xp.linalg.norm(first - second, axis=-1)
    other = xp.linalg.norm(first + second, axis=-1)
    half = xp.minimum(same, other) / 2
    return 4 * xp.arcsin(xp.clip(half, 0.0, np.sqrt(0.5)))


def _achieve(task: Any, qpos: Float[Array, "nq"]) -> Float[Array, "goal"]:
    """Returns what is achieved at rest with these joint positions."""
    rest = jnp.zeros(task.model.nv)
    physics = Physics(qpos, rest, rest)
    data = task.kinematics.update(physics, jnp.zeros(task.model.nu), jnp.zeros(()))
    return task.goal_part.read(data)
