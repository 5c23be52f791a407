import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import TEACHER

from teachers import teacher_config
from teachers.crl.learner import (
    init_learner,
    learning_rate_share,
    make_gradients,
    make_update,
    target_entropy,
)
from teachers.crl.losses import actor_loss, info_nce
from teachers.crl.networks import sample_action, similarity, teacher_networks
from teachers.crl.replay import Batch

ROWS = 8


def make_parts(settings):
    config = teacher_config("reacher", overrides=TEACHER | settings)
    networks = teacher_networks(config)
    learner = jax.jit(lambda key: init_learner(networks, config.learning, key))(jax.random.key(0))
    observation, future = jax.random.normal(jax.random.key(1), (2, ROWS, 8))
    action = jax.random.uniform(jax.random.key(2), (ROWS, 2), minval=-1, maxval=1)
    goal = jax.random.normal(jax.random.key(4), (ROWS, 2)) if config.commanded_critic else None
    batch = Batch(observation, action, future, goal)
    update = jax.jit(make_update(networks, config.learning))
    return config, networks, learner, batch, update


@pytest.fixture(scope="module")
def parts():
    return make_parts({})


@pytest.fixture(scope="module")
def commanded_parts():
    return make_parts({"commanded_critic": True})


def test_make_update_moves_every_parameter(parts) -> None:
    _, _, learner, batch, update = parts
    after, metrics = update(learner, batch, jax.random.key(3))
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), learner.params, after.params)
    assert all(jax.tree.leaves(moved))
    assert after.log_temperature != learner.log_temperature
    assert after.skipped == after.skipped_in_a_row == metrics["skipped_updates"] == 0
    assert all(np.isfinite(value) for value in metrics.values())


def test_make_update_skips_and_counts_steps_that_are_not_finite(parts) -> None:
    _, _, learner, batch, update = parts
    bad = batch._replace(observation=batch.observation.at[0, 0].set(jnp.nan))
    after, metrics = update(learner, bad, jax.random.key(3))
    before = learner._replace(skipped=jnp.int32(1), skipped_in_a_row=jnp.int32(1))
    jax.tree.map(np.testing.assert_array_equal, after, before)
    assert metrics.pop("skipped_updates") == 1
    assert all(np.isnan(value) for value in metrics.values())
    after, _ = update(after, bad, jax.random.key(3))
    assert (after.skipped, after.skipped_in_a_row) == (2, 2)
    again, _ = update(after, batch, jax.random.key(3))
    assert (again.skipped, again.skipped_in_a_row) == (2, 0)
    assert not np.array_equal(again.log_temperature, after.log_temperature)


def test_target_entropy_falls_over_the_last_quarter(parts) -> None:
    config, networks, learner, batch, _ = parts
    learning = config.learning.model_copy(update={"entropy_fall": 1.5})
    gradients = jax.jit(make_gradients(networks, learning))
    for progress, expected in ((0.2, -0.5), (0.75, -0.5), (0.8, -0.8), (0.9, -1.4), (1.0, -2.0)):
        assert target_entropy(learning, progress) == pytest.approx(expected)
        grads, metrics = gradients(learner, batch, jax.random.key(3), progress)
        excess = metrics["entropy"] - expected * networks.task.action_size
        np.testing.assert_allclose(grads.temperature, metrics["temperature"] * excess, rtol=1e-5)


def test_learning_rate_falls_over_the_last_two_fifths(parts) -> None:
    config, networks, learner, batch, _ = parts
    learning = config.learning.model_copy(update={"rate_fall": 0.9})
    key = jax.random.key(3)
    full, _ = jax.jit(make_update(networks, config.learning))(learner, batch, key)
    update = jax.jit(make_update(networks, learning))
    for progress, expected in ((0.2, 1.0), (0.6, 1.0), (0.8, 0.55), (1.0, 0.1)):
        assert learning_rate_share(learning, progress) == pytest.approx(expected)
        stepped, _ = update(learner, batch, key, progress)
        for old, new, fast in zip(
            *(jax.tree.leaves(each.params) for each in (learner, stepped, full)), strict=True
        ):
            np.testing.assert_allclose(new - old, expected * (fast - old), atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "share", "others"),
    [
        pytest.param("parts", 0.0, 0, marks=pytest.mark.slow),
        ("parts", 0.3, 3),
        pytest.param("parts", 1.0, ROWS, marks=pytest.mark.slow),
        ("commanded_parts", 0.3, 3),
        pytest.param("commanded_parts", 0.0, 0, marks=pytest.mark.slow),
    ],
)
def test_make_gradients_agrees_with_the_losses(
    kind: str, share: float, others: int, request
) -> None:
    """Where the critic reads commanded goals, a share of the actor's goals are those, and else the next row's goals."""
    config, networks, learner, batch, _ = request.getfixturevalue(kind)
    task, params, key = networks.task, learner.params, jax.random.key(3)
    learning = config.learning.model_copy(update={"random_goals": share})
    grads, _ = jax.jit(make_gradients(networks, learning))(learner, batch, key)
    goal = task.achieved_goal(batch.future)
    other = jnp.roll(goal, -1, axis=0) if batch.goal is None else batch.goal
    actor_goal = jnp.concatenate([other[:others], goal[others:]])

    def critic(params):
        phi, psi = (
            networks.phi(params, batch.observation, batch.goal, batch.action),
            networks.psi(params, goal),
        )
        # Every pair by its difference.
        logits = similarity(jnp.repeat(phi[:, None], ROWS, 1), jnp.repeat(psi[None], ROWS, 0))
        return info_nce(logits, config.learning.logsumexp_penalty)[0]

    def actor(actor_params):
        mean, log_std = networks.actor({"actor": actor_params}, batch.observation, actor_goal)
        action, log_probs = sample_action(key, mean, log_std)
        values = networks.critic(params, batch.observation, actor_goal, action)
        return actor_loss(values, log_probs, jnp.exp(learner.log_temperature))

    expected = jax.jit(jax.grad(critic))({name: params[name] for name in ("phi", "psi")})
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), grads.critic, expected
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        grads.actor,
        jax.jit(jax.grad(actor))(params["actor"]),
    )
    assert optax.tree.norm(grads.actor) > 0
