import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import DISTILL

from distill import distill_config, distill_teacher
from distill.run import compare, make_round, teacher_share
from students import load_student, student_networks
from teachers import InputError, load_teacher
from teachers.runlog import read_metrics


@pytest.fixture(scope="module")
def after_two_rounds(teacher_run):
    teacher = load_teacher(teacher_run)
    config = distill_config(overrides=DISTILL)
    networks = student_networks(teacher.task, config.student, 4)
    init, one_round = make_round(config, teacher.networks, networks)
    first = jax.jit(init)(jax.random.key(0))
    step = jax.jit(one_round)
    states = [first]
    for _ in range(2):
        states.append(step(states[-1], teacher.params)[0])
    return teacher, config, states


def test_every_visited_state_carries_the_teachers_own_labels(after_two_rounds) -> None:
    teacher, config, states = after_two_rounds
    rows = jax.tree.map(lambda x: x[: 2 * config.states_per_round], states[-1].ring.rows)
    mean, log_std = teacher.networks.actor(teacher.params, rows.observation, rows.goal)
    np.testing.assert_allclose(rows.mean, mean, atol=1e-5)
    np.testing.assert_allclose(rows.log_std, log_std, atol=1e-5)
    phi = teacher.networks.phi(teacher.params, rows.observation, rows.action)
    np.testing.assert_allclose(rows.phi, phi, atol=1e-5)
    np.testing.assert_allclose(rows.psi, teacher.networks.psi(teacher.params, rows.goal), atol=1e-5)
    assert len(np.unique(np.asarray(rows.observation), axis=0)) == 2 * config.states_per_round


def test_the_teacher_acts_at_first(after_two_rounds) -> None:
    _, config, states = after_two_rounds
    rows = jax.tree.map(lambda x: np.asarray(x[: config.states_per_round]), states[1].ring.rows)
    by_teacher = np.abs(rows.action - np.tanh(rows.mean))
    assert by_teacher.max() < 5 * config.collect.noise
    assert by_teacher.std() > 0  # the noise is there


def test_rounds_change_every_network_of_the_student(after_two_rounds) -> None:
    _, _, states = after_two_rounds
    for name in ("actor", "phi", "psi"):
        for before, after in zip(
            jax.tree.leaves(states[1].params[name]),
            jax.tree.leaves(states[2].params[name]),
            strict=True,
        ):
            assert not np.array_equal(before, after), name


def test_share_of_the_teacher_falls_linearly_to_zero() -> None:
    config = distill_config(overrides={"collect.rounds": 20, "collect.handover": 0.5})
    shares = [float(teacher_share(jnp.int32(i), config)) for i in range(20)]
    np.testing.assert_allclose(shares[:11], np.linspace(1, 0, 11), atol=1e-6)
    assert shares[11:] == [0.0] * 9


def test_handover_of_zero_leaves_the_teacher_the_first_round_alone() -> None:
    config = distill_config(overrides={"collect.handover": 0.0})
    assert [float(teacher_share(jnp.int32(i), config)) for i in range(3)] == [1.0, 0.0, 0.0]


def test_a_run_leaves_what_it_promises(student_run) -> None:
    rows = read_metrics(student_run)
    assert [row["step"] for row in rows] == [40, 80, 120, 160]
    assert "retention" in rows[-1]
    assert rows[0]["teacher_share"] == 1.0
    student = load_student(student_run)
    assert student.metadata.metrics["steps"] == 160
    assert student.metadata.config["student"]["policy"]["width"] == 8


def test_the_same_seed_gives_the_same_student(teacher_run, student_run, tmp_path) -> None:
    teacher = load_teacher(teacher_run)
    again = distill_teacher(teacher, distill_config(overrides=DISTILL), tmp_path / "again")
    jax.tree.map(np.testing.assert_array_equal, again.params, load_student(student_run).params)


def test_a_teacher_retains_all_of_itself(teacher_run) -> None:
    teacher = load_teacher(teacher_run)
    figures = compare(teacher, teacher, episodes=8, seed=0)
    assert figures["retention"] == (1.0 if figures["time_at_goal"] else None)


def test_a_taken_folder_is_refused(teacher_run, student_run) -> None:
    with pytest.raises(InputError, match="already holds files"):
        distill_teacher(load_teacher(teacher_run), distill_config(overrides=DISTILL), student_run)
