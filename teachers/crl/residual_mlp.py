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

MATRIX_PRODUCT = "matrix product"  # names what is saved of each layer for the gradient

# The published initialisation of all Dense layers: uniform, with a variance of 1/3 over the number of inputs.
PUBLISHED_KERNELS = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
_LECUN_KERNELS = nn.initializers.lecun_uniform()  # three times this variance


class ResidualBranch(nn.Module):
    """Four layers of (Dense, LayerNorm, swish), whose output a residual block adds to its input.

    Attributes:
        width: units of each layer.
        starts_at_zero: whether the branch's output is zero at first, by the scale of its last LayerNorm.
        dtype: type in which the matrix products are computed; parameters and everything else are float32.
    """

    width: int
    starts_at_zero: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        """Applies the layers."""
        kernels = kernel_init(self.starts_at_zero)
        for layer in range(LAYERS_PER_BLOCK):
            product = nn.Dense(self.width, dtype=self.dtype, kernel_init=kernels)(x)
            product = checkpoint_name(product.astype(residual_dtype(self.dtype)), MATRIX_PRODUCT)
            is_zero = self.starts_at_zero and layer == LAYERS_PER_BLOCK - 1
            scale = nn.initializers.zeros if is_zero else nn.initializers.ones
            norm = nn.LayerNorm(dtype=jnp.float32, scale_init=scale)
            x = nn.swish(norm(product))
        return x


class ResidualMLP(nn.Module):
    """An input layer, `depth` / 4 residual blocks and a linear head.

    The parameters of the blocks are stacked on a leading axis and the blocks are applied by `lax.scan`, so that the
    compile time does not grow with depth.

    For the gradient, the matrix products of every layer are saved and the rest of a block is recomputed, which costs less
    than writing it to memory and reading it back.

    Attributes:
        depth: number of Dense layers in the residual trunk, a multiple of 4.
        width: units of each of these layers.
        outputs: size of the head.
        zero_branches: whether each block's branch starts at zero, so that a new network computes the same as a shallow one
            (Goyal et al., arXiv 1706.02677, section 5.1). In the published network all branches start at random, and
            the deeper it is, the later it learns: see benchmarks/stability.py. It also says how all Dense layers
            start: see `kernel_init`.
        remat: whether only the inputs of the blocks are saved for the gradient and the matrix products are recomputed
            too.
        dtype: type in which the trunk's matrix products are computed.
    """

    depth: int
    width: int
    outputs: int
    zero_branches: bool = False
    remat: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        """Applies the network.

        If the collection `intermediates` is mutable, `branch_share` `[blocks]` is written into it: for each block, the
        norm of what the block adds over the norm of the sum.
        """
        kernels = kernel_init(self.zero_branches)
        x = nn.Dense(self.width, kernel_init=kernels, name="input")(x)
        x = nn.swish(nn.LayerNorm(name="input_norm")(x))
        branch = ResidualBranch(self.width, self.zero_branches, self.dtype, parent=None)
        blocks = self.param("blocks", self._init_blocks, branch, x)
        records_shares = self.is_mutable_collection("intermediates")

        def block(x: Array, params: Params) -> tuple[Array, Array | None]:
            added = apply_module(branch, params, x)
            share = jnp.linalg.norm(added) / jnp.linalg.norm(x + added) if records_shares else None
            return x + added, share

        saved = [] if self.remat else [MATRIX_PRODUCT]
        policy = jax.checkpoint_policies.save_only_these_names(*saved)
        # Inside a scan, XLA cannot merge the recomputation with the forward pass, so that `prevent_cse` is not needed.
        x, shares = jax.lax.scan(jax.checkpoint(block, policy=policy, prevent_cse=False), x, blocks)
        if records_shares:
            self.sow("intermediates", "branch_share", shares)
        return nn.Dense(self.outputs, kernel_init=kernels, name="head")(x)

    def _init_blocks(self, key: Key[Array, ""], branch: ResidualBranch, x: Array) -> Params:
        keys = jax.random.split(key, self.depth // LAYERS_PER_BLOCK)
        # The blocks are initialised one after the other, so that the random numbers of each fit into the processor's cache.
        return jax.lax.map(lambda key: branch.init(key, x), keys)


def kernel_init(zero_branches: bool) -> nn.initializers.Initializer:
    """Returns the initialisation of the weights of all Dense layers: input layer, branches and head.

    Args:
        zero_branches: whether the network's branches start at zero. These networks start from LeCun's uniform distribution,
            the others as in the published code.
    """
    return _LECUN_KERNELS if zero_branches else PUBLISHED_KERNELS


def residual_dtype(dtype: DTypeLike) -> DTypeLike:
    """Returns the type in which a block saves its matrix products of type `dtype` for the gradient.

    On a CPU it is float32, because XLA would otherwise convert the saved products of all blocks at every block, which
    takes time quadratic in depth.
    """
    return jnp.float32 if jax.default_backend() == "cpu" else dtype
