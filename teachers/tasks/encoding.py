"""What networks read of observations and goals: numbers in their usual magnitudes, and rotations in place of quaternions."""

from typing import Any

import numpy as np
from jaxtyping import Int

from teachers.tasks.declaration import Field, Sensor, namespace, scales, slices

ROTATION_SIZE = 6  # numbers for a quaternion's four


def encode_fields(fields: tuple[Field | Sensor, ...], array: Any) -> Any:
    """Returns what networks read of an array `[*batch, n]` with these fields, `[*batch, encoded]`.

    Each number is divided by its field's scale. In place of quaternions, whose sign does not matter, come the first two
    columns of their rotation matrices, behind all other numbers: they are the same for both signs, and continuous (Zhou et
    al., arXiv 1812.07035).
    """
    scaled = array / scales(fields)
    if not any(field.quaternion for field in fields):
        return scaled
    xp = namespace(array)
    places = slices(fields)
    plain = [scaled[..., places[field.name]] for field in fields if not field.quaternion]
    turned = [_rotation(xp, array[..., places[field.name]]) for field in fields if field.quaternion]
    return xp.concatenate([*plain, *turned], axis=-1)


def encoded_size(fields: tuple[Field | Sensor, ...]) -> int:
    """Returns how many numbers networks read of an array with these fields."""
    return sum(ROTATION_SIZE if field.quaternion else field.size for field in fields)


def plain_places(fields: tuple[Field | Sensor, ...]) -> Int[np.ndarray, "plain"]:
    """Returns the places of the numbers that do not belong to quaternions."""
    kept = [np.full(field.size, not field.quaternion) for field in fields]
    return np.flatnonzero(np.concatenate(kept))


def quaternion_places(fields: tuple[Field | Sensor, ...]) -> list[int]:
    """Returns where each quaternion begins in the array."""
    places = slices(fields)
    return [places[field.name].start for field in fields if field.quaternion]


def _rotation(xp: Any, quaternion: Any) -> Any:
    """Returns the first two columns `[*batch, 6]` of the rotation matrix of a unit quaternion `[*batch, 4]`."""
    w, x, y, z = (quaternion[..., i] for i in range(4))
    first = [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)]
    second = [2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)]
    return xp.stack([*first, *second], axis=-1)
