"""What networks read in place of quaternions."""

import jax.numpy as jnp
import mujoco
import numpy as np

from teachers.tasks.declaration import Field
from teachers.tasks.encoding import (
    encode_fields,
    encoded_size,
    plain_places,
    quaternion_places,
)

FIELDS = (
    Field("place", 2, "m", "", 0.5),
    Field("turned", 4, "1", "", quaternion=True),
    Field("speed", 1, "m/s", "", 2.0),
)


def test_encode_fields_divides_by_scales() -> None:
    fields = tuple(field for field in FIELDS if not field.quaternion)
    np.testing.assert_array_equal(encode_fields(fields, np.float32([1, 2, 3])), [2, 4, 1.5])
    assert encoded_size(fields) == 3


def test_encode_fields_reads_rotations_in_place_of_quaternions() -> None:
    random = np.random.default_rng(0)
    rows = random.standard_normal((5, 3, 7)).astype(np.float32)
    rows[..., 2:6] /= np.linalg.norm(rows[..., 2:6], axis=-1, keepdims=True)
    encoded = encode_fields(FIELDS, rows)
    assert encoded.shape == (5, 3, encoded_size(FIELDS)) == (5, 3, 9)
    np.testing.assert_allclose(encoded[..., :2], 2 * rows[..., :2])
    np.testing.assert_allclose(encoded[..., 2], rows[..., 6] / 2)
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, rows[0, 0, 2:6].astype(float))
    np.testing.assert_allclose(encoded[0, 0, 3:], matrix.reshape(3, 3)[:, :2].T.ravel(), atol=1e-6)
    other = rows.copy()
    other[..., 2:6] *= -1
    np.testing.assert_array_equal(encode_fields(FIELDS, other), encoded)
    np.testing.assert_allclose(encode_fields(FIELDS, jnp.asarray(rows)), encoded, atol=1e-6)


def test_places_tell_quaternions_from_other_numbers() -> None:
    np.testing.assert_array_equal(plain_places(FIELDS), [0, 1, 6])
    assert quaternion_places(FIELDS) == [2]
