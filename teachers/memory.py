"""Refuses what cannot fit before anything is allocated."""

import os
from typing import Any

import jax
import jax.numpy as jnp

from teachers.tasks import InputError

GIB = 2**30


def require_memory(state: Any, scratch: int, remedy: str) -> None:
    """Checks that a state and some scratch memory fit the default device.

    Args:
        state: a pytree of arrays or `jax.ShapeDtypeStruct`, such as `jax.eval_shape` gives.
        scratch: bytes needed beside it, at least.
        remedy: what to lower.

    Raises:
        InputError: they do not fit.
    """
    needed = scratch + sum(_bytes(leaf) for leaf in jax.tree.leaves(state))
    there = device_memory()
    if needed > there:
        raise InputError(
            f"this needs at least {needed / GIB:,.1f} GiB of memory and the device has "
            f"{there / GIB:,.1f} GiB; lower {remedy}"
        )


def device_memory() -> int:
    """Bytes of memory of the default device; on a CPU, of the machine."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(statistics.get("bytes_limit", machine))


def _bytes(leaf: Any) -> int:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return 0
    return int(leaf.size) * int(leaf.dtype.itemsize)
