import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy import stats

from teachers.crl.networks import (
    LOG_STD_MAX,
    LOG_STD_MIN,
    bounded_log_std,
    pairwise_logits,
    sample_action,
)
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


def test_scanned_blocks_compute_what_unrolled_blocks_do(scanned) -> None:
    network, params, x = scanned
    np.testing.assert_allclose(
        network.apply(params, x), unrolled(params, x)[0], rtol=1e-5, atol=1e-5
    )


def test_scanned_and_unrolled_gradients_agree(scanned) -> None:
    network, params, x = scanned
    ours = jax.grad(lambda p: jnp.sum(network.apply(p, x) ** 2))(params)
    theirs = jax.grad(lambda p: jnp.sum(unrolled(p, x)[0] ** 2))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, theirs)


def test_every_block_starts_from_its_own_weights(scanned) -> None:
    _, params, _ = scanned
    kernels = params["params"]["blocks"]["params"]["Dense_0"]["kernel"]
    assert kernels.shape == (DEPTH // 4, WIDTH, WIDTH)
    assert not np.allclose(kernels[0], kernels[1])


def test_activations_computed_again_give_the_same_gradients() -> None:
    x = jax.random.normal(jax.random.key(1), (5, 6))
    kept, again = (ResidualMLP(DEPTH, WIDTH, 3, remat=remat) for remat in (False, True))
    params = kept.init(jax.random.key(0), x)
    one, other = (
        jax.grad(lambda p: jnp.sum(network.apply(p, x) ** 2))(params)  # noqa: B023
        for network in (kept, again)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one, other)


def test_a_network_whose_branches_start_at_zero_is_shallow_and_learns_in_every_block(
    scanned,
) -> None:
    _, _, x = scanned
    network = ResidualMLP(DEPTH, WIDTH, 3, zero=True)
    params = network.init(jax.random.key(0), x)
    assert_same = np.testing.assert_array_equal
    ours, seen = network.apply(params, x, mutable="intermediates")
    assert_same(seen["intermediates"]["branch_share"][0], np.zeros(DEPTH // 4))

    @jax.jit
    def step(params):
        grads = jax.grad(lambda p: jnp.sum(network.apply(p, x) ** 2))(params)
        return jax.tree.map(lambda p, g: p - 0.01 * g, params, grads), grads

    after, _ = step(params)
    _, grads = step(after)  # the first step only opens the branches
    by_block = jax.tree.map(
        lambda g: jnp.abs(g).max(axis=range(1, g.ndim)), grads["params"]["blocks"]
    )
    assert all((leaf > 0).all() for leaf in jax.tree.leaves(by_block))
    assert not np.array_equal(network.apply(after, x), ours)


def test_what_each_block_adds_is_seen(scanned) -> None:
    network, params, x = scanned
    _, seen = network.apply(params, x, mutable="intermediates")
    shares = seen["intermediates"]["branch_share"][0]
    np.testing.assert_allclose(shares, unrolled(params, x)[1], rtol=1e-5)


def test_bfloat16_products_keep_parameters_and_outputs_in_float32(scanned) -> None:
    network, params, x = scanned
    low = ResidualMLP(DEPTH, WIDTH, 3, dtype="bfloat16")
    grads = jax.grad(lambda p: jnp.sum(low.apply(p, x) ** 2))(params)
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
    ours, exact = low.apply(params, x), network.apply(params, x)
    assert ours.dtype == jnp.float32
    assert 0 < np.abs(ours - exact).max() < 0.1


def test_parameters_grow_with_depth_alone_in_the_blocks() -> None:
    x = jnp.zeros((1, 6))
    small, large = (
        count_parameters(ResidualMLP(depth, WIDTH, 3).init(jax.random.key(0), x))
        for depth in (4, 8)
    )
    dense_and_norm = WIDTH * WIDTH + WIDTH + 2 * WIDTH
    assert large - small == 4 * dense_and_norm


def test_log_probability_is_that_of_the_squashed_gaussian() -> None:
    mean, log_std = jnp.array([[0.3, -0.8]]), jnp.array([[-0.5, 0.2]])
    action, log_prob = sample_action(jax.random.key(3), mean, log_std)
    before = np.arctanh(np.asarray(action, np.float64))
    expected = stats.norm.logpdf(before, mean, np.exp(log_std)) - np.log1p(
        -(np.asarray(action) ** 2)
    )
    assert log_prob[0] == pytest.approx(expected.sum(), rel=1e-4)


def test_log_probability_stays_finite_for_saturated_actions() -> None:
    _, log_prob = sample_action(jax.random.key(0), jnp.array([50.0]), jnp.array([-5.0]))
    assert np.isfinite(log_prob)


def test_log_std_is_bounded() -> None:
    bounds = bounded_log_std(jnp.array([-1e6, 0.0, 1e6]))
    np.testing.assert_allclose(bounds, [LOG_STD_MIN, (LOG_STD_MIN + LOG_STD_MAX) / 2, LOG_STD_MAX])


def test_energy_is_the_negative_distance_and_the_diagonal_of_the_pairs() -> None:
    phi, psi = jax.random.normal(jax.random.key(0), (2, 4, 3))
    pairs = pairwise_logits(phi, psi)
    expected = -np.linalg.norm(np.asarray(phi)[:, None] - np.asarray(psi)[None], axis=-1)
    np.testing.assert_allclose(pairs, expected, rtol=1e-5)
    np.testing.assert_allclose(similarity(phi, psi), np.diagonal(expected), rtol=1e-5)


def test_energy_has_a_finite_gradient_where_embeddings_coincide() -> None:
    gradient = jax.grad(lambda phi: similarity(phi, jnp.ones(3)))(jnp.ones(3))
    np.testing.assert_array_equal(gradient, np.zeros(3))
