import jax
import jax.numpy as jnp
import pytest

from teachers import InputError
from teachers.memory import GIB, device_memory, require_memory


def test_what_fits_passes_and_what_does_not_is_refused_without_allocating() -> None:
    state = {"x": jax.ShapeDtypeStruct((1000,), jnp.float32), "key": jax.random.key(0)}
    require_memory(state, 0, "x")
    with pytest.raises(InputError, match=r"at least .* GiB of memory .*; lower the batch"):
        require_memory(state, device_memory(), "the batch")
    huge = {"x": jax.ShapeDtypeStruct((2**50,), jnp.float32)}
    with pytest.raises(InputError, match=r"4,194,304.0 GiB"):
        require_memory(huge, 0, "x")


def test_this_machine_has_some_memory() -> None:
    assert 0.5 * GIB < device_memory() < 2**50
