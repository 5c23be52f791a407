"""The deep networks of a teacher: residual MLPs whose blocks are stacked and scanned.

After Wang et al., "1000 Layer Networks for Self-Supervised RL" (arXiv 2503.14858), section 3.
"""

from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key

LAYERS_PER_BLOCK = 4
LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0

Params = Any  # a pytree of arrays, as Flax makes it

_lecun_uniform = nn.initializers.lecun_uniform()


class ResidualBlock(nn.Module):
    """Four layers of (Dense, LayerNorm, swish) whose output is added to the block's input."""

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        """Applies the block."""
        y = x
        for _layer in range(LAYERS_PER_BLOCK):
            y = nn.Dense(self.width, kernel_init=_lecun_uniform)(y)
            y = nn.swish(nn.LayerNorm()(y))
        return x + y


class ResidualMLP(nn.Module):
    """An input layer, `depth` / 4 residual blocks and a linear head.

    The blocks' parameters are stacked on a leading axis and the blocks applied by `lax.scan`, so that
    the time to compile does not grow with depth.

    Attributes:
        depth: number of Dense layers in the residual trunk, a multiple of 4.
        width: units of each of them.
        outputs: size of the head.
    """

    depth: int
    width: int
    outputs: int

    @nn.compact
    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        """Applies the network."""
        x = nn.Dense(self.width, kernel_init=_lecun_uniform, name="input")(x)
        x = nn.swish(nn.LayerNorm(name="input_norm")(x))
        block = ResidualBlock(self.width, parent=None)
        blocks = self.param("blocks", self._init_blocks, block, x)
        x, _ = jax.lax.scan(lambda x, params: (apply(block, params, x), None), x, blocks)
        return nn.Dense(self.outputs, kernel_init=_lecun_uniform, name="head")(x)

    def _init_blocks(self, key: Key[Array, ""], block: ResidualBlock, x: Array) -> Params:
        keys = jax.random.split(key, self.depth // LAYERS_PER_BLOCK)
        return jax.vmap(lambda key: block.init(key, x))(keys)


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
    phi: Float[Array, "rows embed"], psi: Float[Array, "columns embed"]
) -> Float[Array, "rows columns"]:
    """The critic's logits: f of every row of `phi` with every row of `psi`."""
    return -_norm(phi[:, None] - psi[None, :])


def _norm(x: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
    # The small constant keeps the gradient finite where the embeddings coincide.
    return jnp.sqrt((x**2).sum(-1) + 1e-12)


def count_parameters(params: Params) -> int:
    """Numbers in a pytree of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
