import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import DISTILL

from distill import distill_config
from distill.iteration import make_optimiser, make_stages, phases, relabelled, with_goals
from students import student_networks
from teachers import load_teacher


class Distillation:
    """A few rounds by hand, with the state after each stage."""

    def __init__(self, teacher, like=None, **settings) -> None:
        """`like`: another one, whose environments and rollouts serve here too, so that physics is compiled once."""
        self.teacher = teacher
        self.config = distill_config(overrides={**DISTILL, **settings})
        self.networks = student_networks(teacher.task, self.config.student, 4)
        stages = make_stages(self.config, teacher.networks, self.networks)
        if like is None:
            first = jax.jit(stages.init)(jax.random.key(0))
            self.collect = jax.jit(stages.collect)
        else:
            first = like.states[0]
            params = self.networks.init(jax.random.key(0))
            first = first._replace(
                params=params,
                optimizers=tuple(stages.start(params)),
                basis=jnp.eye(4, self.config.student.embedding or 4),
            )
        self.states, self.visited = [first], [] if like is None else like.visited
        self.label = jax.jit(stages.label)
        self.learn = [jax.jit(learn) for learn in stages.learn]

    def round(self):
        """Another round, on what another one visited in it where that serves."""
        state, number = self.states[-1], len(self.states) - 1
        if number == len(self.visited):
            state, visited, _ = self.collect(state, self.teacher.params)
            self.visited.append(visited)
        state = self.label(state, self.teacher.params, self.visited[number])
        state, metrics = self.learn[0](state, self.teacher.params)
        self.states.append(state)
        return metrics


@pytest.fixture(scope="module")
def teacher(teacher_run):
    return load_teacher(teacher_run)


@pytest.fixture(scope="module")
def two_rounds(teacher) -> Distillation:
    rounds = Distillation(teacher, **{"collect.label_batch": 7, "collect.goals_per_state": 3})
    for _ in range(2):
        rounds.round()
    return rounds


def test_every_visited_state_carries_the_teachers_own_labels(two_rounds) -> None:
    teacher, config = two_rounds.teacher, two_rounds.config
    rows = jax.tree.map(lambda x: x[: 2 * config.rows_per_round], two_rounds.states[-1].ring.rows)
    mean, log_std = teacher.networks.actor(teacher.params, rows.observation, rows.goal)
    np.testing.assert_allclose(rows.mean, mean, atol=1e-5)
    np.testing.assert_allclose(rows.log_std, log_std, atol=1e-5)
    phi = teacher.networks.phi(teacher.params, rows.observation, rows.action)
    np.testing.assert_allclose(rows.phi, phi, atol=1e-5)
    np.testing.assert_allclose(rows.psi, teacher.networks.psi(teacher.params, rows.goal), atol=1e-5)
    assert len(np.unique(np.asarray(rows.observation), axis=0)) == 2 * config.states_per_round
    # Each state stands there once for each goal.
    for number, visited in enumerate(two_rounds.visited):
        for goal in range(config.collect.goals_per_state):
            begin = number * config.rows_per_round + goal * config.states_per_round
            part = slice(begin, begin + config.states_per_round)
            np.testing.assert_array_equal(rows.observation[part], visited.observation)
            # Beside a further goal, what the teacher would do for it.
            action = visited.action if goal == 0 else jnp.tanh(rows.mean[part])
            np.testing.assert_allclose(rows.action[part], action, atol=1e-6)


def test_the_teacher_acts_at_first(two_rounds) -> None:
    config = two_rounds.config
    rows = jax.tree.map(
        lambda x: np.asarray(x[: config.states_per_round]), two_rounds.states[1].ring.rows
    )
    by_teacher = np.abs(rows.action - np.tanh(rows.mean))
    assert by_teacher.max() < 5 * config.collect.noise
    assert by_teacher.std() > 0  # the noise is there


def changed(before, after) -> set[str]:
    """The networks of which every parameter differs."""
    return {
        name
        for name in before
        if all(
            not np.array_equal(old, new)
            for old, new in zip(
                jax.tree.leaves(before[name]), jax.tree.leaves(after[name]), strict=True
            )
        )
    }


def test_rounds_change_every_network_of_the_student(two_rounds) -> None:
    _, before, after = two_rounds.states
    assert changed(before.params, after.params) == {"actor", "phi", "psi"}


def test_a_sequential_distillation_trains_the_critic_after_the_policy(teacher, two_rounds) -> None:
    rounds = Distillation(
        teacher, two_rounds, **{"learning.order": "sequential", "student.heads": True}
    )
    assert len(phases(rounds.config)) == 2
    rounds.round()
    first, second = rounds.states
    assert changed(first.params, second.params) == {"actor", "encoder"}
    third, metrics = rounds.learn[1](second, teacher.params)
    assert changed(second.params, third.params) == {"phi", "psi"}
    assert "critic_loss" in metrics
    assert "policy_loss" not in metrics


def test_some_environments_head_for_goals_that_were_reached(two_rounds) -> None:
    state, task = two_rounds.states[-1], two_rounds.teacher.task
    fresh = state.environments._replace(steps=jnp.array([0, 3, 0, 3]))
    state = state._replace(environments=fresh)

    def goals(share: float, state) -> np.ndarray:
        collect = two_rounds.config.collect.model_copy(update={"hindsight_share": share})
        config = two_rounds.config.model_copy(update={"collect": collect})
        return np.asarray(relabelled(state, jax.random.key(1), config, task.achieved_goal))

    seen = np.asarray(state.ring.rows.observation[: 2 * two_rounds.config.rows_per_round])
    reached = {tuple(goal) for goal in np.asarray(task.achieved_goal(seen)).tolist()}
    own = np.asarray(state.environments.goal)
    np.testing.assert_array_equal(goals(0.0, state), own)
    assert {tuple(goal) for goal in goals(1.0, state).tolist()} <= reached
    # Always the same environments, so that the others keep the task's goals whatever the number of rounds.
    half = goals(0.5, state)
    np.testing.assert_array_equal(half[2:], own[2:])
    assert (half[:2] != own[:2]).all()
    # A goal is kept for an episode.
    under_way = fresh._replace(steps=jnp.full(4, two_rounds.config.collect.steps + 1))
    np.testing.assert_array_equal(goals(1.0, state._replace(environments=under_way)), own)
    # Before anything was seen there is nothing to go to.
    first = two_rounds.states[0]
    np.testing.assert_array_equal(goals(1.0, first), np.asarray(first.environments.goal))


def test_states_are_labelled_for_goals_of_others_too(two_rounds) -> None:
    visited, task = two_rounds.visited[0], two_rounds.teacher.task
    rows = len(visited.goal)
    goals, chosen = with_goals(visited, jax.random.key(0), 3, task.achieved_goal)
    own, headed_for, reached = np.split(np.asarray(goals[chosen]), 3)
    np.testing.assert_array_equal(own, visited.goal)

    def distinct(goals) -> set[tuple[float, ...]]:
        return {tuple(goal) for goal in np.asarray(goals).tolist()}

    assert distinct(headed_for) <= distinct(visited.goal)
    assert (headed_for != own).any()
    assert distinct(reached) <= distinct(task.achieved_goal(visited.observation))
    assert len(distinct(reached)) > rows / 3


def test_matrices_of_the_policy_are_trained_by_muon_and_all_else_by_adam() -> None:
    settings = {"steps": 100, "policy.learning_rate": 0.5, "critic.learning_rate": 0.25}
    optimiser = make_optimiser(distill_config(overrides=settings).for_teacher(1000))
    layer = {"kernel": jnp.ones((6, 3)), "bias": jnp.ones(3)}
    params = {"actor": layer, "encoder": layer, "phi": layer}
    keys = iter(jax.random.split(jax.random.key(0), 6))
    gradient = jax.tree.map(lambda x: jax.random.normal(next(keys), x.shape), params)
    update, _ = optimiser.update(gradient, optimiser.init(params), params)
    # Adam's first step is as long in every parameter, Muon's in every direction.
    for step, each in ((0.25, update["phi"]["kernel"]), (0.05 * 1.47, update["actor"]["bias"])):
        np.testing.assert_allclose(jnp.abs(each), jnp.full(each.shape, step), rtol=0.01)
    for part in ("actor", "encoder"):
        kernel, slope = update[part]["kernel"], gradient[part]["kernel"]
        lengths = jnp.linalg.svd(kernel, compute_uv=False) / 0.5
        assert 0.6 < lengths.min() <= lengths.max() < 1.3
        assert jnp.linalg.cond(slope) > 1.5
        assert (kernel * slope).sum() < 0


def test_the_teachers_critic_pulls_the_policy_to_what_it_values(teacher, two_rounds) -> None:
    """In the rounds in which it counts: the student's actions are worth more to it then, and no more before."""
    settings = {"learning.gradient_steps": 200, "learning.batch": 32}

    def value(weight: float, share: float) -> float:
        weights = {"policy.value_weight": weight, "policy.value_share": share}
        rounds = Distillation(teacher, two_rounds, **settings, **weights)
        assert rounds.config.rounds == 4
        rounds.round()
        visited = two_rounds.visited[0]
        action = rounds.networks.policy(rounds.states[-1].params, visited.observation, visited.goal)
        values = teacher.networks.critic(teacher.params, visited.observation, visited.goal, action)
        return float(values.mean())

    # Another program rounds otherwise, which 200 gradient steps enlarge.
    without = value(0.0, 1.0)
    assert value(100.0, 0.9) > without + 0.08  # from 80 gradient steps on
    assert value(100.0, 0.75) == pytest.approx(without, abs=0.04)


def test_a_bottleneck_is_fitted_to_the_first_rounds_embeddings(teacher, two_rounds) -> None:
    rounds = Distillation(teacher, two_rounds, **{"student.embedding": 2})
    rounds.round()
    basis = rounds.states[-1].basis
    assert basis.shape == (4, 2)
    np.testing.assert_allclose(basis.T @ basis, np.eye(2), atol=1e-5)
    rounds.round()
    np.testing.assert_array_equal(rounds.states[-1].basis, basis)


def test_under_disturbances_the_teacher_labels_the_clean_state(teacher) -> None:
    settings = {"collect.disturbances.noise": 0.5, "collect.disturbances.delay": (2, 2)}
    rounds = Distillation(teacher, **settings)
    rounds.round()
    rows = jax.tree.map(lambda x: x[: rounds.config.states_per_round], rounds.states[-1].ring.rows)
    mean, _ = teacher.networks.actor(teacher.params, rows.observation, rows.goal)
    np.testing.assert_allclose(rows.mean, mean, atol=1e-5)
    # The reacher's fields depend on each other, which noise would break.
    squares = rows.observation[:, :2] ** 2 + rows.observation[:, 2:4] ** 2
    np.testing.assert_allclose(squares, jnp.ones_like(squares), atol=1e-4)
    assert rounds.states[-1].environments.disturbed.delay.tolist() == [2] * 4
