"""Functions of the parameters of networks."""

from typing import Any, cast

import jax
from flax import linen as nn
from jaxtyping import Array

Params = Any  # a pytree of arrays, as Flax makes it


def apply_module(module: nn.Module, params: Params, x: Array) -> Array:
    """Returns the output of a module with one input and one output."""
    return cast(Array, module.apply(params, x))


def count_parameters(params: Params) -> int:
    """Returns the number of elements in a pytree of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
