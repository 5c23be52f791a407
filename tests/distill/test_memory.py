"""The stages of a distillation whose student reads sensors and remembers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stages import require_fitting_stages
from tiny import DISTILL, TEACHER

from distill import distill_config
from distill.collect import collection_task
from distill.critic_losses import Embeddings, value_loss
from distill.iteration import make_stages
from distill.learn import see_readings
from students import student_networks
from teachers import teacher_config
from teachers.crl.networks import teacher_networks
from teachers.runs.errors import InputError
from teachers.simulation.rollout import reset, rollout_with_memory
from teachers.tasks.registry import get_task

KEY = jax.random.key(0)
# The student acts in all rounds, without noise.
ALONE = {"collect.beta_decay": 0.0, "collect.noise": 0.0, "collect.goals_per_state": 1}


def distill_rounds(teacher, *, learns=False, **settings):
    """Returns configuration, networks, and the states before the first round and after each of two.

    Nothing is learned unless `learns`; in the first round the teacher acts.
    """
    config = distill_config(overrides={**DISTILL, **ALONE, **settings})
    networks = student_networks(teacher.task, config.student, 4)
    stages = make_stages(config, teacher.networks, networks)
    collect, label, learn = (
        jax.jit(stage) for stage in (stages.collect, stages.label, stages.learn[0])
    )
    states = [jax.jit(stages.init)(jax.random.key(0))]
    for _ in range(2):
        state, visited, _ = collect(states[-1], teacher.params)
        state = label(state, teacher.params, visited)
        states.append(learn(state, teacher.params)[0] if learns else state)
    return config, networks, states


MEMORIES = ["history", pytest.param("gru", marks=pytest.mark.slow)]


def remembering(memory):
    """Returns settings of a student with memory."""
    return {
        "student.sees": "sensors",
        "student.memory": memory,
        "student.frames": 3,
        "student.memory_width": 6,
        "learning.burn_in": 0,
        "learning.batch": 20,
        "learning.states_per_window": 10,  # all
    }


@pytest.fixture(scope="module", params=MEMORIES)
def distilled(teacher, request):
    return distill_rounds(teacher, **remembering(request.param))


def test_windows_replay_what_the_student_did(distilled) -> None:
    config, networks, states = distilled
    assert (config.window, config.windows_per_round) == (10, 4)
    # The second round follows the first, so that its windows begin with a memory.
    second = jax.tree.map(lambda x: x[4:8], states[2].ring.rows)
    assert second.observation.shape == (4, 10, 8)
    assert np.abs(second.readings.memory).max() > 0
    params = states[0].params
    seen, goal, rows = see_readings(params, second, config, networks, KEY)
    np.testing.assert_allclose(networks.policy(params, seen, goal), rows.action, atol=1e-5)
    # What was read are the sensors, not the observation.
    assert second.readings.read.shape == (4, 10, 4)
    clean = second.observation[..., :4]
    np.testing.assert_allclose(second.readings.read, clean, atol=0.02)
    assert (second.readings.read != clean).any()


def test_labels_are_those_of_the_observation(distilled, teacher) -> None:
    _, _, states = distilled
    rows = jax.tree.map(lambda x: x[:4], states[1].ring.rows)
    mean, _ = teacher.networks.actor(teacher.params, rows.observation, rows.goal)
    np.testing.assert_allclose(rows.mean, mean, atol=5e-5)


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["none", "history", "gru"])
def test_learning_changes_all_networks(teacher, memory) -> None:
    _, _, states = distill_rounds(teacher, learns=True, **remembering(memory))
    for name, params in states[1].params.items():
        before, after = (jax.tree.leaves(tree) for tree in (params, states[2].params[name]))
        assert any((a != b).any() for a, b in zip(before, after, strict=True)), name


def test_burn_in_leaves_out_first_states(distilled) -> None:
    config, networks, states = distilled
    learning = config.learning.model_copy(update={"burn_in": 3})
    config = config.model_copy(update={"learning": learning})
    windows = jax.tree.map(lambda x: x[:4], states[1].ring.rows)
    _, _, rows = see_readings(states[0].params, windows, config, networks, KEY)
    left_out = 3 if config.student.memory == "gru" else 0
    expected = windows.observation[:, left_out:].reshape(-1, 8)
    np.testing.assert_array_equal(rows.observation, expected)


def test_gradient_step_learns_from_some_states_of_each_window(distilled) -> None:
    config, networks, states = distilled
    learning = config.learning.model_copy(update={"states_per_window": 2})
    some = config.model_copy(update={"learning": learning})
    windows = jax.tree.map(lambda x: x[:4], states[1].ring.rows)
    params = states[0].params
    seen, goal, rows = see_readings(params, windows, some, networks, KEY)
    all_seen, _, all_rows = see_readings(params, windows, config, networks, KEY)
    assert (len(seen), len(goal), len(rows.observation)) == (8, 8, 8)
    by_window = np.asarray(all_rows.observation).reshape(4, 10, 8)
    found = set()
    for row in range(8):
        window = row // 2
        (time,) = np.nonzero((by_window[window] == rows.observation[row]).all(axis=-1))[0]
        np.testing.assert_allclose(seen[row], all_seen[10 * window + time], atol=1e-6)
        found.add(int(time))
    assert len(found) > 2
    # Other states are drawn with another key.
    other, _, _ = see_readings(params, windows, some, networks, jax.random.key(1))
    assert (other != seen).any()


@pytest.mark.slow
def test_student_without_memory_reads_sensors(teacher) -> None:
    config, networks, states = distill_rounds(teacher, **{"student.sees": "sensors"})
    second = slice(config.rows_per_round, 2 * config.rows_per_round)
    rows = jax.tree.map(lambda x: x[second], states[2].ring.rows)
    action = networks.policy(states[0].params, rows.readings.read, rows.goal)
    np.testing.assert_allclose(action, rows.action, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["none", "history", "gru"])
def test_stages_fit_a_walker_that_reads_its_goal(memory) -> None:
    """Nothing is compiled."""
    networks = teacher_networks(teacher_config("ant", overrides=TEACHER))
    own = {"collect.goals_per_state": 1, "collect.hindsight_share": 0.0}
    config = distill_config(overrides={**DISTILL, **remembering(memory), **own})
    student = student_networks(networks.task, config.student, 4)
    assert "critic_loss" in require_fitting_stages(config, networks, student)


def test_memory_is_empty_where_an_episode_begins() -> None:
    task = get_task("reacher").simulated_by("c", 3)

    def act(given):
        return jnp.zeros((3, 2)), given.memory + 1.0

    @jax.jit
    def play(key):
        starts = reset(task, key, 3, "train")
        starts = starts._replace(steps=task.episode_steps - jnp.array([2, 5, 20]))
        return rollout_with_memory(task, act, starts, jnp.full((3, 1), 7.0), key, 8, "train")

    states, memory, _ = play(jax.random.key(0))
    np.testing.assert_array_equal(memory[:, 0], [6.0, 3.0, 15.0])
    np.testing.assert_array_equal(states.steps[:2], [6, 3])


def test_value_loss_is_the_unexplained_share() -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    phi, psi, other = (jax.random.normal(key, (500, 4)) for key in keys)
    teacher = Embeddings(phi, psi)
    assert value_loss(teacher, teacher, jnp.eye(4), 1.0) < 1e-6
    # Turned embeddings have the same values.
    turned = Embeddings(phi[:, ::-1], psi[:, ::-1])
    assert value_loss(turned, teacher, jnp.eye(4), 1.0) < 1e-6
    assert value_loss(Embeddings(phi, other), teacher, jnp.eye(4), 1.0) > 0.5


def test_goals_that_a_sensor_sees_are_those_of_the_episode() -> None:
    task = get_task("ant").with_sensors()
    with pytest.raises(InputError, match=r"goals_per_state = 2 and collect.hindsight_share = 0.25"):
        collection_task(distill_config(), task)
    config = distill_config(
        overrides={"collect.goals_per_state": 1, "collect.hindsight_share": 0.0}
    )
    assert collection_task(config, task).senses
