"""The deep networks of a teacher: residual MLPs whose blocks are stacked and scanned.

After Wang et al., "1000 Layer Networks for Self-Supervised RL" (arXiv 2503.14858), section 3.
"""

from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

LAYERS_PER_BLOCK = 4
PRODUCT = "matrix product"  # what the gradient keeps of a layer
LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0

Params = Any  # a pytree of arrays, as Flax makes it

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
            product = checkpoint_name(product.astype(kept_dtype(self.dtype)), PRODUCT)
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
            added = apply(branch, params, x)
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


def kept_dtype(dtype: DTypeLike) -> DTypeLike:
    """In what a block keeps its matrix products of type `dtype` for the gradient.

    On a CPU in float32: there XLA converts all that is kept in bfloat16 at every block, in time quadratic in depth.
    """
    return jnp.float32 if jax.default_backend() == "cpu" else dtype


def apply(module: nn.Module, params: Params, x: Array) -> Array:
    """What a module of one input and one output makes of `x` with these parameters."""
    return cast(Array, module.apply(params, x))


def bounded_log_std(raw: Float[Array, "*batch act"]) -> Float[Array, "*batch act"]:
    """Maps any number smoothly into the range of log standard deviations, as the published actor does."""
    return LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (jnp.tanh(raw) + 1.0)


def sample_action(
    key: Key[Array, ""], mean: Float[Array, "*batch act"], log_std: Float[Array, "*batch act"]
) -> tuple[Float[Array, "*batch act"], Float[Array, "*batch"]]:
    """An action of the tanh-Gaussian policy, and its log probability density.

    The density carries the change of variables of the squashing (SAC, arXiv 1812.05905, eq. 26), in the
    form log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2u)), which stays finite for saturated actions.
    """
    noise = jax.random.normal(key, mean.shape, mean.dtype)
    before = mean + jnp.exp(log_std) * noise
    gaussian = -0.5 * noise**2 - log_std - 0.5 * jnp.log(2.0 * jnp.pi)
    squashing = 2.0 * (jnp.log(2.0) - before - jax.nn.softplus(-2.0 * before))
    return jnp.tanh(before), (gaussian - squashing).sum(-1)


def energy(
    phi: Float[Array, "*batch embed"], psi: Float[Array, "*batch embed"]
) -> Float[Array, "*batch"]:
    """The critic f = -||phi - psi||, row by row."""
    return -_norm(phi - psi)


def pairwise_energy(
    phi: Float[Array, "batch embed"], psi: Float[Array, "batch embed"]
) -> Float[Array, "batch batch"]:
    """The critic's logits: f of every row of `phi` with every row of `psi`.

    By a matrix product, as |a|^2 + |b|^2 - 2 ab. Close to zero that loses digits, so the diagonal, the positives
    of contrastive learning, is computed from the differences.
    """
    products = jnp.matmul(phi, psi.T, precision=jax.lax.Precision.HIGHEST)
    squared = (phi**2).sum(-1)[:, None] + (psi**2).sum(-1)[None, :] - 2.0 * products
    logits = -_root(jnp.maximum(squared, 0.0))
    return jnp.where(jnp.eye(len(phi), dtype=bool), energy(phi, psi)[:, None], logits)


def _norm(x: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
    return _root((x**2).sum(-1))


def _root(squared: Float[Array, "*n"]) -> Float[Array, "*n"]:
    # The small constant keeps the gradient finite where the embeddings coincide.
    return jnp.sqrt(squared + 1e-12)


def count_parameters(params: Params) -> int:
    """Numbers in a pytree of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
