"""A fingerprint of arrays, by which a checkpoint that is no longer what was saved is recognised.

It is computed where the arrays lie, in whole numbers, so that it is fast and the same on any kind and number of devices.
Against damage alone: whoever wants to can make other arrays with the same fingerprint.
"""

import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

from teachers.runs.devices import replicated

STARTS = (0x243F6A88, 0x85A308D3)  # two sums, which start differently


def fingerprint(tree: Any) -> str:
    """Sixteen hexadecimal digits that depend on every bit, the shapes, the types and the names of a pytree's arrays.

    Args:
        tree: of JAX arrays of at most 32 bits, keys among them.
    """
    total = hashlib.sha256()
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    # All are begun before the first is waited for.
    sums = [_summed()(leaf) for _, leaf in leaves]
    for (path, leaf), each in zip(leaves, sums, strict=True):
        total.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}\n".encode())
        total.update(np.asarray(each).tobytes())
    return total.hexdigest()[:16]


@lru_cache(maxsize=1)
def _summed() -> Callable[[Array], UInt32[Array, "starts"]]:
    # Compiled once for each shape; made on first use, as devices are looked for then.
    return jax.jit(_sum, out_shardings=replicated())


def _sum(leaf: Array) -> UInt32[Array, "starts"]:
    words = _words(leaf)
    place = jnp.zeros(words.shape, jnp.uint32)
    for axis, size in enumerate(words.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    mixed = [_mix(words ^ _mix(place + jnp.uint32(start))) for start in STARTS]
    return jnp.stack([jnp.sum(each, dtype=jnp.uint32) for each in mixed])


def _words(leaf: Array) -> UInt32[Array, "*shape"]:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if leaf.dtype.itemsize == 4:
        return jax.lax.bitcast_convert_type(leaf, jnp.uint32)
    if leaf.dtype.itemsize == 2:
        return jax.lax.bitcast_convert_type(leaf, jnp.uint16).astype(jnp.uint32)
    return leaf.astype(jnp.uint32)


def _mix(x: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """A bijection of 32 bits in which every bit depends on every other: the end of MurmurHash3."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
