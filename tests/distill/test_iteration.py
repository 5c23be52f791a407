import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import DISTILL

from distill import distill_config
from distill.collect import choose_hindsight_goals
from distill.config import LabelConfig
from distill.iteration import make_stages
from distill.label import choose_goals, improve_mean
from distill.learn import init_optimizers, make_optimiser, networks_by_phase
from students import student_networks


class Distillation:
    """A few rounds by hand, with the state after each stage."""

    def __init__(self, teacher, like=None, **settings) -> None:
        """`like`: another distillation whose rollouts are used here too, so that physics is compiled once."""
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
                optimizer_states=init_optimizers(self.config, params),
                basis=jnp.eye(4, self.config.student.embedding or 4),
            )
        self.states, self.visited = [first], [] if like is None else like.visited
        self.label = jax.jit(stages.label)
        self.learn = [jax.jit(learn) for learn in stages.learn]

    def round(self):
        """Runs another round, on the states that `like` visited in it if it has got that far."""
        state, number = self.states[-1], len(self.states) - 1
        if number == len(self.visited):
            state, visited, _ = self.collect(state, self.teacher.params)
            self.visited.append(visited)
        state = self.label(state, self.teacher.params, self.visited[number])
        state, metrics = self.learn[0](state, self.teacher.params)
        self.states.append(state)
        return metrics


@pytest.fixture(scope="module")
def two_rounds(teacher) -> Distillation:
    rounds = Distillation(teacher, **{"collect.label_batch": 7, "collect.goals_per_state": 3})
    for _ in range(2):
        rounds.round()
    return rounds


def test_label_stage_adds_teachers_outputs_to_every_state(two_rounds) -> None:
    teacher, config = two_rounds.teacher, two_rounds.config
    rows = jax.tree.map(lambda x: x[: 2 * config.rows_per_round], two_rounds.states[-1].ring.rows)
    mean, log_std = teacher.networks.actor(teacher.params, rows.observation, rows.goal)
    np.testing.assert_allclose(rows.mean, mean, atol=5e-5)
    np.testing.assert_allclose(rows.log_std, log_std, atol=5e-5)
    phi = teacher.networks.phi(teacher.params, rows.observation, rows.goal, rows.action)
    np.testing.assert_allclose(rows.phi, phi, atol=5e-5)
    np.testing.assert_allclose(rows.psi, teacher.networks.psi(teacher.params, rows.goal), atol=5e-5)
    assert len(np.unique(np.asarray(rows.observation), axis=0)) == 2 * config.states_per_round
    # Each state has a row for each of its goals.
    for number, visited in enumerate(two_rounds.visited):
        for goal in range(config.collect.goals_per_state):
            begin = number * config.rows_per_round + goal * config.states_per_round
            part = slice(begin, begin + config.states_per_round)
            np.testing.assert_array_equal(rows.observation[part], visited.observation)
            # For a further goal it is the teacher's action.
            action = visited.action if goal == 0 else jnp.tanh(rows.mean[part])
            np.testing.assert_allclose(rows.action[part], action, atol=1e-6)


def test_label_stage_improves_actions_by_teachers_critic(teacher, two_rounds) -> None:
    settings = {"label.actions": 16, "label.temperature": 0.01, "collect.label_batch": 16 * 7}
    rounds = Distillation(teacher, two_rounds, **settings)
    rounds.round()
    rows = jax.tree.map(lambda x: x[: rounds.config.rows_per_round], rounds.states[-1].ring.rows)
    inputs = rows.observation, rows.goal
    mean, log_std = teacher.networks.actor(teacher.params, *inputs)
    np.testing.assert_allclose(rows.log_std, log_std, atol=5e-5)
    own, improved = (
        teacher.networks.critic(teacher.params, *inputs, jnp.tanh(each))
        for each in (mean, rows.mean)
    )
    assert float((improved > own).mean()) > 0.7  # half without a critic
    further = slice(rounds.config.states_per_round, None)
    np.testing.assert_allclose(rows.action[further], jnp.tanh(rows.mean[further]), atol=1e-6)


@pytest.mark.parametrize(("temperature", "expected"), [(1e-5, "best"), (1e5, "mean")])
def test_improve_mean_weights_actions_by_value(teacher, two_rounds, temperature, expected) -> None:
    visited, networks = two_rounds.visited[0], teacher.networks
    keys = jax.random.split(jax.random.key(0), len(visited.goal))
    inputs = keys, visited.observation, visited.goal
    policy = networks.actor(teacher.params, *inputs[1:])
    config = LabelConfig(actions=8, temperature=temperature)
    improved = improve_mean(teacher.params, *inputs, *policy, config=config, teacher=networks)
    actions, values = networks.draw_actions(teacher.params, *inputs, *policy, config.actions)
    rows = np.arange(len(values))
    wanted = actions[rows, values.argmax(1)] if expected == "best" else actions.mean(axis=1)
    np.testing.assert_allclose(jnp.tanh(improved), wanted, atol=1e-3)


def test_collect_stage_lets_teacher_act_in_first_round(two_rounds) -> None:
    config = two_rounds.config
    rows = jax.tree.map(
        lambda x: np.asarray(x[: config.states_per_round]), two_rounds.states[1].ring.rows
    )
    by_teacher = np.abs(rows.action - np.tanh(rows.mean))
    assert by_teacher.max() < 5 * config.collect.noise
    assert by_teacher.std() > 0  # the noise is there


def changed(before, after) -> set[str]:
    """Returns the networks of which every parameter differs."""
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


def test_learn_stage_changes_every_network(two_rounds) -> None:
    _, before, after = two_rounds.states
    assert changed(before.params, after.params) == {"actor", "phi", "psi"}


def test_learn_stage_trains_critic_after_policy_if_sequential(teacher, two_rounds) -> None:
    rounds = Distillation(
        teacher, two_rounds, **{"learning.order": "sequential", "student.heads": True}
    )
    assert len(networks_by_phase(rounds.config)) == 2
    rounds.round()
    first, second = rounds.states
    assert changed(first.params, second.params) == {"actor", "encoder"}
    third, metrics = rounds.learn[1](second, teacher.params)
    assert changed(second.params, third.params) == {"phi", "psi"}
    assert "critic_loss" in metrics
    assert "policy_loss" not in metrics


def test_choose_hindsight_goals_takes_achieved_goals_in_some_environments(two_rounds) -> None:
    state, task = two_rounds.states[-1], two_rounds.teacher.task
    fresh = state.environments._replace(steps=jnp.array([0, 3, 0, 3]))
    state = state._replace(environments=fresh)

    def goals(share: float, state) -> np.ndarray:
        collect = two_rounds.config.collect.model_copy(update={"hindsight_share": share})
        config = two_rounds.config.model_copy(update={"collect": collect})
        return np.asarray(
            choose_hindsight_goals(state, jax.random.key(1), config, task.achieved_goal)
        )

    visited = np.asarray(state.ring.rows.observation[: 2 * two_rounds.config.rows_per_round])
    achieved = {tuple(goal) for goal in np.asarray(task.achieved_goal(visited)).tolist()}
    desired = np.asarray(state.environments.goal)
    np.testing.assert_array_equal(goals(0.0, state), desired)
    assert {tuple(goal) for goal in goals(1.0, state).tolist()} <= achieved
    # The same environments are chosen in every round, so that the others always keep the task's goals.
    half = goals(0.5, state)
    np.testing.assert_array_equal(half[2:], desired[2:])
    assert (half[:2] != desired[:2]).all()
    # An episode keeps its goal.
    running = fresh._replace(steps=jnp.full(4, two_rounds.config.collect.steps + 1))
    np.testing.assert_array_equal(goals(1.0, state._replace(environments=running)), desired)
    # In the first round no goal has been achieved yet.
    first = two_rounds.states[0]
    np.testing.assert_array_equal(goals(1.0, first), np.asarray(first.environments.goal))


def test_choose_goals_takes_desired_and_achieved_goals_of_others(two_rounds) -> None:
    visited, task = two_rounds.visited[0], two_rounds.teacher.task
    rows = len(visited.goal)
    goals, index = choose_goals(visited, jax.random.key(0), 3, task.achieved_goal)
    first, desired, achieved = np.split(np.asarray(goals[index]), 3)
    np.testing.assert_array_equal(first, visited.goal)

    def distinct(goals) -> set[tuple[float, ...]]:
        return {tuple(goal) for goal in np.asarray(goals).tolist()}

    assert distinct(desired) <= distinct(visited.goal)
    assert (desired != first).any()
    assert distinct(achieved) <= distinct(task.achieved_goal(visited.observation))
    assert len(distinct(achieved)) > rows / 3


def test_make_optimiser_uses_muon_for_policy_matrices_and_adam_for_others() -> None:
    settings = {"steps": 100, "policy.learning_rate": 0.5, "critic.learning_rate": 0.25}
    optimiser = make_optimiser(distill_config(overrides=settings).for_teacher(1000))
    layer = {"kernel": jnp.ones((6, 3)), "bias": jnp.ones(3)}
    params = {"actor": layer, "encoder": layer, "phi": layer}
    keys = iter(jax.random.split(jax.random.key(0), 6))
    gradient = jax.tree.map(lambda x: jax.random.normal(next(keys), x.shape), params)
    update, _ = optimiser.update(gradient, optimiser.init(params), params)
    # Adam's first step is equally long in every parameter, Muon's in every direction.
    for step, each in ((0.25, update["phi"]["kernel"]), (0.05 * 1.47, update["actor"]["bias"])):
        np.testing.assert_allclose(jnp.abs(each), jnp.full(each.shape, step), rtol=0.01)
    for part in ("actor", "encoder"):
        kernel, slope = update[part]["kernel"], gradient[part]["kernel"]
        lengths = jnp.linalg.svd(kernel, compute_uv=False) / 0.5
        assert 0.6 < lengths.min() <= lengths.max() < 1.3
        assert jnp.linalg.cond(slope) > 1.5
        assert (kernel * slope).sum() < 0


def test_learn_stage_raises_teachers_value_of_actions(teacher, two_rounds) -> None:
    """The student's actions have a higher value in the gradient steps in which the teacher's critic counts, not before."""
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

    # Another program rounds differently, and 200 gradient steps amplify that.
    without = value(0.0, 1.0)
    assert value(100.0, 0.9) > without + 0.08  # it counts from gradient step 80 on
    assert value(100.0, 0.75) == pytest.approx(without, abs=0.04)


def test_label_stage_fits_basis_in_first_round(teacher, two_rounds) -> None:
    rounds = Distillation(teacher, two_rounds, **{"student.embedding": 2})
    rounds.round()
    basis = rounds.states[-1].basis
    assert basis.shape == (4, 2)
    np.testing.assert_allclose(basis.T @ basis, np.eye(2), atol=1e-5)
    rounds.round()
    np.testing.assert_array_equal(rounds.states[-1].basis, basis)


@pytest.mark.slow
def test_label_stage_labels_clean_state_under_disturbances(teacher) -> None:
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
