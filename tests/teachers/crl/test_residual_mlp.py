import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from teachers.crl.parameters import count_parameters
from teachers.crl.residual_mlp import ResidualBranch, ResidualMLP

DEPTH, WIDTH = 12, 8


@pytest.fixture(scope="module")
def scanned():
    network = ResidualMLP(DEPTH, WIDTH, 3)
    x = jax.random.normal(jax.random.key(1), (5, 6))
    return network, network.init(jax.random.key(0), x), x


def unrolled(params, x):
    """The same function written as a Python loop over blocks, and what each block adds."""
    p, shares = params["params"], []
    x = nn.Dense(WIDTH).apply({"params": p["input"]}, x)
    x = nn.swish(nn.LayerNorm().apply({"params": p["input_norm"]}, x))
    for i in range(DEPTH // 4):
        block = jax.tree.map(operator.itemgetter(i), p["blocks"])
        added = ResidualBranch(WIDTH).apply(block, x)
        x = x + added
        shares.append(jnp.linalg.norm(added) / jnp.linalg.norm(x))
    return nn.Dense(3).apply({"params": p["head"]}, x), shares


def test_residual_mlp_computes_what_unrolled_blocks_do(scanned) -> None:
    network, params, x = scanned
    np.testing.assert_allclose(
        network.apply(params, x), unrolled(params, x)[0], rtol=1e-5, atol=1e-5
    )


def test_residual_mlp_has_the_gradients_of_unrolled_blocks(scanned) -> None:
    network, params, x = scanned
    found = jax.jit(jax.grad(lambda p: jnp.sum(network.apply(p, x) ** 2)))(params)
    expected = jax.jit(jax.grad(lambda p: jnp.sum(unrolled(p, x)[0] ** 2)))(params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected
    )


def test_residual_mlp_initialises_every_block_differently(scanned) -> None:
    _, params, _ = scanned
    kernels = params["params"]["blocks"]["params"]["Dense_0"]["kernel"]
    assert kernels.shape == (DEPTH // 4, WIDTH, WIDTH)
    assert not np.allclose(kernels[0], kernels[1])


@pytest.mark.parametrize(("zero_branches", "variance"), [(False, 1 / 3), (True, 1.0)])
def test_residual_mlp_starts_every_layer_with_the_stated_variance(zero_branches, variance) -> None:
    width, x = 64, jnp.ones((1, 48))
    network = ResidualMLP(DEPTH, width, 64, zero_branches=zero_branches)
    params = network.init(jax.random.key(0), x)["params"]
    branches = params["blocks"]["params"]
    kernels = {
        name: layer["kernel"] for name, layer in {**params, **branches}.items() if "kernel" in layer
    }
    assert set(kernels) == {"input", "head", *(f"Dense_{i}" for i in range(4))}
    for name, kernel in kernels.items():
        fan_in = kernel.shape[-2]
        # The variance of a uniform distribution of this range, which the largest of thousands of weights nearly reaches.
        limit = np.sqrt(3 * variance / fan_in)
        assert np.var(kernel) * fan_in == pytest.approx(variance, rel=0.1), name
        assert 0.99 * limit < np.abs(kernel).max() <= limit, name


def test_residual_mlp_with_remat_has_the_same_gradients() -> None:
    x = jax.random.normal(jax.random.key(1), (5, 6))
    saving, recomputing = (ResidualMLP(DEPTH, WIDTH, 3, remat=remat) for remat in (False, True))
    params = saving.init(jax.random.key(0), x)
    one, other = (
        jax.jit(jax.grad(lambda p: jnp.sum(network.apply(p, x) ** 2)))(params)  # noqa: B023
        for network in (saving, recomputing)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, other)


def test_residual_mlp_with_zero_branches_is_shallow_and_learns_in_every_block(
    scanned,
) -> None:
    _, _, x = scanned
    network = ResidualMLP(DEPTH, WIDTH, 3, zero_branches=True)
    params = network.init(jax.random.key(0), x)
    assert_same = np.testing.assert_array_equal
    outputs, state = network.apply(params, x, mutable="intermediates")
    assert_same(state["intermediates"]["branch_share"][0], np.zeros(DEPTH // 4))

    @jax.jit
    def step(params):
        grads = jax.grad(lambda p: jnp.sum(network.apply(p, x) ** 2))(params)
        return jax.tree.map(lambda p, g: p - 0.01 * g, params, grads), grads

    after, _ = step(params)
    _, grads = step(after)  # after the first step, the branches differ from zero
    by_block = jax.tree.map(
        lambda g: jnp.abs(g).max(axis=range(1, g.ndim)), grads["params"]["blocks"]
    )
    assert all((leaf > 0).all() for leaf in jax.tree.leaves(by_block))
    assert not np.array_equal(network.apply(after, x), outputs)


def test_residual_mlp_records_what_each_block_adds(scanned) -> None:
    network, params, x = scanned
    _, state = network.apply(params, x, mutable="intermediates")
    shares = state["intermediates"]["branch_share"][0]
    np.testing.assert_allclose(shares, unrolled(params, x)[1], rtol=1e-5)


def test_residual_mlp_in_bfloat16_keeps_parameters_and_outputs_in_float32(scanned) -> None:
    network, params, x = scanned
    rounded = ResidualMLP(DEPTH, WIDTH, 3, dtype="bfloat16")
    grads = jax.jit(jax.grad(lambda p: jnp.sum(rounded.apply(p, x) ** 2)))(params)
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
    outputs, exact = rounded.apply(params, x), network.apply(params, x)
    assert outputs.dtype == jnp.float32
    assert 0 < np.abs(outputs - exact).max() < 0.1


def test_residual_mlp_parameters_grow_with_depth_in_the_blocks_alone() -> None:
    x = jnp.zeros((1, 6))
    small, large = (
        count_parameters(ResidualMLP(depth, WIDTH, 3).init(jax.random.key(0), x))
        for depth in (4, 8)
    )
    dense_and_norm = WIDTH * WIDTH + WIDTH + 2 * WIDTH
    assert large - small == 4 * dense_and_norm
