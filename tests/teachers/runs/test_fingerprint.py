import jax
import jax.numpy as jnp
import pytest

from teachers.runs.fingerprint import fingerprint

ARRAYS = {
    "floats": jnp.linspace(-1, 1, 12).reshape(3, 4),
    "integers": jnp.arange(5, dtype=jnp.int32),
    "flags": jnp.array([True, False, True]),
    "small": jnp.ones(6, jnp.bfloat16),
    "key": jax.random.key(3),
    "number": jnp.float32(0.5),
}


def test_fingerprint_is_the_same_for_the_same_arrays() -> None:
    assert fingerprint(ARRAYS) == fingerprint({key: ARRAYS[key] for key in reversed(ARRAYS)})
    assert len(fingerprint(ARRAYS)) == 16


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("floats", ARRAYS["floats"].at[2, 1].add(1e-7)),
        ("floats", ARRAYS["floats"].T.reshape(3, 4)),
        ("floats", ARRAYS["floats"][::-1]),
        ("floats", ARRAYS["floats"].reshape(4, 3)),
        ("floats", -jnp.zeros((3, 4))),
        ("integers", ARRAYS["integers"].at[0].set(-1)),
        ("integers", ARRAYS["integers"].astype(jnp.uint32)),
        ("flags", ~ARRAYS["flags"]),
        ("small", ARRAYS["small"].at[5].set(1.01)),
        ("key", jax.random.key(4)),
        ("number", jnp.float32(0.50000006)),
    ],
)
def test_fingerprint_changes_with_any_change(name, changed) -> None:
    assert fingerprint({**ARRAYS, name: changed}) != fingerprint(ARRAYS)


def test_fingerprint_depends_on_names_and_signs_of_zero() -> None:
    assert fingerprint({"a": jnp.zeros(2)}) != fingerprint({"b": jnp.zeros(2)})
    assert fingerprint({"a": jnp.zeros(2)}) != fingerprint({"a": -jnp.zeros(2)})
