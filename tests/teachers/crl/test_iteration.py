import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TEACHER

from teachers import teacher_config
from teachers.crl import iteration
from teachers.crl.networks import teacher_networks
from teachers.crl.training_programs import teacher_programs
from teachers.tasks.disturbance import randomized_settings

CONFIG = teacher_config("reacher", overrides=TEACHER)


def test_make_iteration_returns_pure_function(tiny_programs) -> None:
    # Each call gets its own copy of the state, because the state is donated.
    state, *copies = (tiny_programs.init(jnp.uint32(0)) for _ in range(3))
    first, again = (tiny_programs.iterate(copy) for copy in copies)
    jax.tree.map(np.testing.assert_array_equal, first[0].learner.params, again[0].learner.params)
    assert int(first[0].iteration) == 1
    assert not np.array_equal(jax.random.key_data(first[0].key), jax.random.key_data(state.key))


def test_make_iteration_trains_every_network(tiny_programs) -> None:
    state = tiny_programs.init(jnp.uint32(0))
    after, _ = tiny_programs.iterate(tiny_programs.init(jnp.uint32(0)))
    for name in ("actor", "phi", "psi"):
        before, now = state.learner.params[name], after.learner.params[name]
        moved = [
            not np.array_equal(a, b)
            for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(now), strict=True)
        ]
        assert all(moved), name
    assert after.learner.log_temperature != state.learner.log_temperature
    assert int(after.replay.inserted) == CONFIG.rollout.steps


def test_make_iteration_computes_no_gradient_step_while_it_fills_the_replay(
    tiny_programs, monkeypatch
) -> None:
    batches = []

    def count_batches(*args):
        jax.debug.callback(lambda: batches.append(1))
        return sample_pairs(*args)

    sample_pairs = iteration.sample_pairs
    monkeypatch.setattr(iteration, "sample_pairs", count_batches)
    # 11 steps are two iterations of 10.
    config = teacher_config("reacher", overrides={**TEACHER, "rollout.prefill_steps": 11})
    iterate = jax.jit(iteration.make_iteration(config, teacher_networks(config, training=True)))
    start = state = tiny_programs.init(jnp.uint32(0))
    for number in (1, 2):
        state, metrics = iterate(state)
        assert int(state.replay.inserted) == number * CONFIG.rollout.steps
        assert metrics["skipped_updates"] == 0
        assert 0 <= metrics["saturated_actions"] <= 1
        assert all(jnp.isnan(metrics[name]) for name in ("critic_loss", "actor_loss", "entropy"))
    jax.effects_barrier()
    assert not batches
    jax.tree.map(np.testing.assert_array_equal, state.learner, start.learner)
    after, metrics = iterate(state)
    jax.effects_barrier()
    assert len(batches) == CONFIG.learning.gradient_steps
    # The same as an iteration that never fills the replay.
    expected, expected_metrics = tiny_programs.iterate(state)
    for found, other in ((after.learner, expected.learner), (metrics, expected_metrics)):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), found, other
        )


@pytest.mark.parametrize("falling", ["learning.entropy_fall", "learning.rate_fall"])
def test_gradient_steps_know_how_much_of_the_training_is_over(monkeypatch, falling) -> None:
    def make_update(*_):
        return lambda learner, batch, key, progress: (learner, {"progress": progress})

    monkeypatch.setattr(iteration, "make_update", make_update)
    settings = {falling: 1.0, "steps": 10 * CONFIG.steps_per_iteration}
    config = teacher_config("reacher", overrides={**TEACHER, **settings})
    programs = teacher_programs(config)
    assert not programs.can_train(config.model_copy(update={"steps": config.steps + 1}), 1)
    state = programs.init(jnp.uint32(0))._replace(iteration=jnp.int32(3))
    assert programs.iterate(state)[1]["progress"] == pytest.approx(0.3)


@pytest.mark.slow
def test_make_iteration_acts_without_noise_or_at_random_in_a_share_of_the_environments() -> None:
    settings = {
        "rollout.deterministic": 0.5,
        "rollout.random": 0.5,
        "rollout.noise_steps": 5,
        "rollout.environments": 64,
    }
    config = teacher_config("reacher", overrides={**TEACHER, **settings})
    networks = teacher_networks(config, training=True)
    iterate = jax.jit(iteration.make_iteration(config, networks))
    policy = jax.jit(networks.policy)
    state = jax.jit(lambda: iteration.init_training(config, networks))()
    for number in range(2):
        params, goal = state.learner.params, state.environments.goal
        is_deterministic, is_random = iteration._draw_behaviour(config, state.key)
        state, _ = iterate(state)
        slots = slice(number * config.rollout.steps, (number + 1) * config.rollout.steps)
        observation, action = state.replay.observation[slots], state.replay.action[slots]
        mean = policy(params, observation, jnp.broadcast_to(goal, (*action.shape[:2], 2)))
        is_mean = np.isclose(action, mean, atol=1e-5).all(axis=2)
        # An environment behaves in one way for the whole iteration, in which none of its episodes ends.
        assert (is_mean.all(axis=0) | ~is_mean.any(axis=0)).all()
        np.testing.assert_array_equal(is_mean.all(axis=0), is_deterministic & ~is_random)
        drawn = np.asarray(action)[:, is_random].reshape(2, 5, -1)
        assert (drawn == drawn[:, :1]).all()
        assert np.abs(drawn).mean() == pytest.approx(0.5, abs=0.1)  # uniform in [-1, 1]


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_draw_behaviour_draws_the_shares(share: float) -> None:
    settings = {"rollout.deterministic": share, "rollout.random": 1 - share}
    config = teacher_config("reacher", overrides={**settings, "rollout.environments": 10_000})
    is_deterministic, is_random = iteration._draw_behaviour(config, jax.random.key(0))
    assert float(is_deterministic.mean()) == pytest.approx(share, abs=0.02)
    assert float(is_random.mean()) == pytest.approx(1 - share, abs=0.02)
    again, _ = iteration._draw_behaviour(config, jax.random.key(1))
    assert share in (0.0, 1.0) or not np.array_equal(again, is_deterministic)


def test_disturbed_training_rolls_out_with_other_masses_and_evaluates_without() -> None:
    config = teacher_config("reacher", overrides={**TEACHER, **randomized_settings("rollout")})
    programs = teacher_programs(config)
    state = programs.init(jnp.uint32(0))
    mass = np.array(state.environments.disturbed.mass)
    assert len(np.unique(mass)) == config.rollout.environments
    after, metrics = programs.iterate(state)
    assert np.isfinite(metrics["critic_loss"])
    np.testing.assert_array_equal(after.environments.disturbed.mass, mass)
    assert programs.evaluator.task.disturbances is None
