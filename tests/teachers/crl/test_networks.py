import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from tiny import TEACHER

from teachers import teacher_config
from teachers.crl.networks import (
    LOG_STD_MAX,
    LOG_STD_MIN,
    bounded_log_std,
    pairwise_logits,
    sample_action,
    similarity,
    teacher_networks,
)


def test_sample_action_has_the_density_of_the_squashed_gaussian() -> None:
    mean, log_std = jnp.array([[0.3, -0.8]]), jnp.array([[-0.5, 0.2]])
    action, log_prob = sample_action(jax.random.key(3), mean, log_std)
    before = np.arctanh(np.asarray(action, np.float64))
    expected = stats.norm.logpdf(before, mean, np.exp(log_std)) - np.log1p(
        -(np.asarray(action) ** 2)
    )
    assert log_prob[0] == pytest.approx(expected.sum(), rel=1e-4)


def test_sample_action_has_finite_density_for_saturated_actions() -> None:
    _, log_prob = sample_action(jax.random.key(0), jnp.array([50.0]), jnp.array([-5.0]))
    assert np.isfinite(log_prob)


def test_bounded_log_std_stays_in_its_range() -> None:
    bounds = bounded_log_std(jnp.array([-1e6, 0.0, 1e6]))
    np.testing.assert_allclose(bounds, [LOG_STD_MIN, (LOG_STD_MIN + LOG_STD_MAX) / 2, LOG_STD_MAX])


def test_similarity_is_the_negative_distance_and_the_diagonal_of_pairwise_logits() -> None:
    phi, psi = jax.random.normal(jax.random.key(0), (2, 4, 3))
    pairs = pairwise_logits(phi, psi)
    expected = -np.linalg.norm(np.asarray(phi)[:, None] - np.asarray(psi)[None], axis=-1)
    np.testing.assert_allclose(pairs, expected, rtol=1e-5)
    np.testing.assert_allclose(similarity(phi, psi), np.diagonal(expected), rtol=1e-5)


def test_similarity_has_a_finite_gradient_where_embeddings_coincide() -> None:
    gradient = jax.grad(lambda phi: similarity(phi, jnp.ones(3)))(jnp.ones(3))
    np.testing.assert_array_equal(gradient, np.zeros(3))


@pytest.fixture(scope="module")
def drawn():
    """Networks with parameters, and rows to act on: keys, observations and goals."""
    networks = teacher_networks(teacher_config("reacher", overrides=TEACHER))
    keys = jax.random.split(jax.random.key(1), 64)
    observation = jax.random.normal(jax.random.key(2), (64, networks.task.observation_size))
    goal = jax.random.normal(jax.random.key(3), (64, networks.task.goal_size))
    return networks, networks.init(jax.random.key(0)), keys, observation, goal


def test_explore_is_deterministic_where_it_is_told(drawn) -> None:
    networks, *arguments = drawn
    is_deterministic = jnp.arange(64) % 2 == 0
    found = networks.explore(*arguments, is_deterministic)
    params, _, observation, goal = arguments
    np.testing.assert_array_equal(found[::2], networks.policy(params, observation, goal)[::2])
    np.testing.assert_array_equal(found[1::2], networks.explore(*arguments)[1::2])


def test_explore_takes_the_best_action_of_several(drawn) -> None:
    networks, params, keys, observation, goal = drawn
    several = jax.vmap(lambda key: jax.random.split(key, 8))(keys).T
    each = jnp.stack([networks.explore(params, keys, observation, goal) for keys in several])
    values = jnp.stack([networks.critic(params, observation, goal, action) for action in each])
    best = each[values.argmax(axis=0), jnp.arange(64)]
    found = networks.explore(params, keys, observation, goal, best_of=8)
    np.testing.assert_allclose(found, best, atol=1e-5)
    assert (values.argmax(axis=0) != 0).any()


def test_commanded_critic_reads_the_goal_that_the_policy_was_given(drawn) -> None:
    published, params, _, observation, goal = drawn
    config = teacher_config("reacher", overrides=TEACHER | {"commanded_critic": True})
    networks = teacher_networks(config)
    action = jnp.ones((len(goal), networks.task.action_size))
    np.testing.assert_array_equal(
        published.phi(params, observation, goal, action),
        published.phi(params, observation, -goal, action),
    )
    params = networks.init(jax.random.key(0))
    phi = networks.phi(params, observation, goal, action)
    assert not np.allclose(phi, networks.phi(params, observation, -goal, action))
    # As a policy's critic it is asked for the goal that the policy is given.
    value = similarity(phi, networks.psi(params, goal))
    np.testing.assert_allclose(networks.critic(params, observation, goal, action), value, rtol=1e-5)
