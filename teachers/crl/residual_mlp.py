"""The deep network of a teacher: a residual MLP whose blocks are stacked and scanned.

After Wang et al., "1000 Layer Networks for Self-Supervised RL" (arXiv 2503.14858), section 3.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from teachers.config import LAYERS_PER_BLOCK
from teachers.crl.parameters import Params, apply_module

PRODUCT = "matrix product"  # what the gradient keeps of a layer


_lecun_uniform = nn.initializers.lecun_uniform()


class ResidualBranch(nn.Module):
    """Four layers of (Dense, LayerNorm, swish): what a residual block adds to its input.

    Attributes:
        width: units of each layer.
        zero: whether the branch starts at zero, by the scale of its last LayerNorm.
        dtype: in which the matrix products are computed; parameters and all else are float32.
    """

    width: int
    zero: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        """Applies the layers."""
        for layer in range(LAYERS_PER_BLOCK):
            product = nn.Dense(self.width, dtype=self.dtype, kernel_init=_lecun_uniform)(x)
            product = checkpoint_name(product.astype(residual_dtype(self.dtype)), PRODUCT)
            silent = self.zero and layer == LAYERS_PER_BLOCK - 1
            scale = nn.initializers.zeros if silent else nn.initializers.ones
            norm = nn.LayerNorm(dtype=jnp.float32, scale_init=scale)
            x = nn.swish(norm(product))
        return x


class ResidualMLP(nn.Module):
    """An input layer, `depth` / 4 residual blocks and a linear head.

    The blocks' parameters are stacked on a leading axis and the blocks applied by `lax.scan`, so that
    the time to compile does not grow with depth.

    For the gradient it keeps the matrix products of every layer and computes the rest of a block again: beside a
    matrix product that costs less than writing it to memory and reading it back.

    Attributes:
        depth: number of Dense layers in the residual trunk, a multiple of 4.
        width: units of each of them.
        outputs: size of the head.
        zero: whether each block's branch starts at zero, so that a new network is a shallow one, whatever its depth
            (Goyal et al., arXiv 1706.02677, section 5.1). The published network starts with all blocks at work, and
            learns the later the deeper it is: benchmarks/stability.py.
        remat: whether the gradient keeps the blocks' inputs alone and computes the matrix products again too.
        dtype: in which the trunk's matrix products are computed.
    """

    depth: int
    width: int
    outputs: int
    zero: bool = False
    remat: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        """Applies the network.

        Where the collection `intermediates` is mutable, it gets `branch_share`: for each block the norm of what
        it adds over the norm of the sum, `[blocks]`.
        """
        x = nn.Dense(self.width, kernel_init=_lecun_uniform, name="input")(x)
        x = nn.swish(nn.LayerNorm(name="input_norm")(x))
        branch = ResidualBranch(self.width, self.zero, self.dtype, parent=None)
        blocks = self.param("blocks", self._init_blocks, branch, x)
        observed = self.is_mutable_collection("intermediates")

        def block(x: Array, params: Params) -> tuple[Array, Array | None]:
            added = apply_module(branch, params, x)
            share = jnp.linalg.norm(added) / jnp.linalg.norm(x + added) if observed else None
            return x + added, share

        kept = [] if self.remat else [PRODUCT]
        policy = jax.checkpoint_policies.save_only_these_names(*kept)
        # Inside a scan nothing is merged with the forward pass anyway.
        x, shares = jax.lax.scan(jax.checkpoint(block, policy=policy, prevent_cse=False), x, blocks)
        if observed:
            self.sow("intermediates", "branch_share", shares)
        return nn.Dense(self.outputs, kernel_init=_lecun_uniform, name="head")(x)

    def _init_blocks(self, key: Key[Array, ""], branch: ResidualBranch, x: Array) -> Params:
        keys = jax.random.split(key, self.depth // LAYERS_PER_BLOCK)
        # One after the other, so that the random numbers of each are made in the processor's cache.
        return jax.lax.map(lambda key: branch.init(key, x), keys)


def residual_dtype(dtype: DTypeLike) -> DTypeLike:
    """In what a block keeps its matrix products of type `dtype` for the gradient.

    On a CPU in float32: there XLA converts all that is kept in bfloat16 at every block, in time quadratic in depth.
    """
    return jnp.float32 if jax.default_backend() == "cpu" else dtype
