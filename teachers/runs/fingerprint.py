"""A fingerprint of arrays, with which a checkpoint that differs from what was saved is found.

It is computed in integers on the devices that hold the arrays, so that it is fast and the same for any kind and number
of devices. It protects against damage, not against people, who can construct other arrays with the same fingerprint.
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

SEEDS = (0x243F6A88, 0x85A308D3)  # one for each of two sums


def fingerprint(tree: Any) -> str:
    """Returns sixteen hexadecimal digits that depend on every bit, shape, type and name of a pytree's arrays.

    Args:
        tree: pytree of JAX arrays with elements of at most 32 bits; random keys may be among them.
    """
    total = hashlib.sha256()
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    # All sums are started before the first is waited for.
    sums = [_jitted_sums()(leaf) for _, leaf in leaves]
    for (path, leaf), leaf_sums in zip(leaves, sums, strict=True):
        total.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}\n".encode())
        total.update(np.asarray(leaf_sums).tobytes())
    return total.hexdigest()[:16]


@lru_cache(maxsize=1)
def _jitted_sums() -> Callable[[Array], UInt32[Array, "seeds"]]:
    # Created at the first use and not at import, because it makes JAX initialise its devices.
    return jax.jit(_mixed_sums, out_shardings=replicated())


def _mixed_sums(leaf: Array) -> UInt32[Array, "seeds"]:
    """Returns for each seed the sum, modulo 2^32, of the elements mixed with their flat index."""
    words = _to_words(leaf)
    index = jnp.zeros(words.shape, jnp.uint32)
    for axis, size in enumerate(words.shape):
        index = index * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    mixed = [_mix(words ^ _mix(index + jnp.uint32(seed))) for seed in SEEDS]
    return jnp.stack([jnp.sum(each, dtype=jnp.uint32) for each in mixed])


def _to_words(leaf: Array) -> UInt32[Array, "*shape"]:
    """Returns the bits of each element as an unsigned integer; of random keys, their data."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if leaf.dtype.itemsize == 4:
        return jax.lax.bitcast_convert_type(leaf, jnp.uint32)
    if leaf.dtype.itemsize == 2:
        return jax.lax.bitcast_convert_type(leaf, jnp.uint16).astype(jnp.uint32)
    return leaf.astype(jnp.uint32)


def _mix(x: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """Maps 32 bits one to one, so that every bit depends on all others: the finaliser of MurmurHash3."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
