import warnings
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import DISTILL, TEACHER

from distill import distill_config, distill_teacher, measure_retention
from distill.run import distillation_cost, warn_if_larger
from students import load_student, student_networks
from teachers import InputError, evaluate_agent, teacher_config, train_teacher
from teachers.agent import Agent
from teachers.runs.run_log import read_metrics


def test_distill_teacher_writes_metrics_and_student(student_run, student) -> None:
    rows = read_metrics(student_run)
    assert [row["step"] for row in rows] == [40, 80, 120, 160]
    assert "retention" in rows[-1]
    assert rows[0]["teacher_share"] == 1.0
    metrics = student.metadata.metrics
    assert metrics["steps"] == 160
    assert metrics["steps_share"] == 1.0  # of the tiny teacher's 160
    stages = ("compile", "rollout", "label", "learn")
    assert all(metrics[f"seconds_{stage}"] > 0 for stage in stages)
    assert sum(metrics[f"seconds_{stage}"] for stage in stages) <= metrics["seconds"]
    assert student.metadata.config["student"]["policy"]["width"] == 8


def test_distill_teacher_repeats_student_with_programs_of_another_seed(
    teacher, student_run, tiny_distill_programs, tmp_path
) -> None:
    students = []
    for seed in (1, 0):
        config = distill_config(overrides={**DISTILL, "seed": seed})
        run = tmp_path / str(seed)
        students.append(
            distill_teacher(teacher, config, run, force=True, programs=tiny_distill_programs)
        )
    other, again = (jax.tree.leaves(student.params) for student in students)
    expected = jax.tree.leaves(load_student(student_run).params)
    jax.tree.map(np.testing.assert_array_equal, again, expected)
    assert not np.array_equal(other[0], expected[0])


def test_distill_teacher_refuses_programs_of_other_settings(
    teacher, tiny_distill_programs, tmp_path
) -> None:
    longer = distill_config(overrides={**DISTILL, "steps": 200})
    with pytest.raises(ValueError, match="made for another configuration"):
        distill_teacher(
            teacher, longer, tmp_path / "run", force=True, programs=tiny_distill_programs
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_distill_teacher_saves_student_with_two_heads(teacher, tmp_path) -> None:
    settings = {**DISTILL, "student.heads": True, "student.embedding": 2}
    settings |= {"student.policy.activation": "tanh", "student.critic.normalisation": True}
    config = distill_config(overrides={**settings, "learning.order": "sequential"})
    student = distill_teacher(teacher, config, tmp_path / "run", force=True)
    loaded = load_student(tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, loaded.params, student.params)
    observation, goal = jnp.ones((3, 8)), jnp.ones((3, 2))
    for agent in (loaded, student):
        action = agent.networks.policy(student.params, observation, goal)
        assert agent.networks.psi(student.params, goal).shape == (3, 2)
        np.testing.assert_array_equal(
            agent.networks.critic(student.params, observation, goal, action),
            student.networks.critic(student.params, observation, goal, action),
        )


@pytest.mark.slow
def test_distill_teacher_gives_the_student_of_a_commanded_critic_one_too(tmp_path) -> None:
    settings = {**TEACHER, "commanded_critic": True}
    teacher = train_teacher(teacher_config("reacher", overrides=settings), tmp_path / "teacher")
    config = distill_config(overrides=DISTILL)
    student = distill_teacher(teacher, config, tmp_path / "student", force=True)
    loaded = load_student(tmp_path / "student")
    assert loaded.networks.commanded_critic
    observation, goal, action = jnp.ones((3, 8)), jnp.ones((3, 2)), jnp.ones((3, 2))
    phi = loaded.networks.phi(loaded.params, observation, goal, action)
    np.testing.assert_array_equal(
        phi, student.networks.phi(student.params, observation, goal, action)
    )
    assert not np.allclose(phi, loaded.networks.phi(loaded.params, observation, -goal, action))


def test_measure_retention_of_teacher_is_one(teacher) -> None:
    figures = measure_retention(teacher, evaluate_agent(teacher, 8, 0), seed=0)
    assert figures["retention"] == (1.0 if figures["time_at_goal"] else None)


def test_distill_teacher_refuses_taken_folder(teacher, student_run) -> None:
    config = distill_config(overrides=DISTILL)
    with pytest.raises(InputError, match="already holds files"):
        distill_teacher(teacher, config, student_run, force=True)


def with_success(teacher: Agent, success: float) -> Agent:
    metrics = {**teacher.metadata.metrics, "success_any": success}
    metadata = teacher.metadata.model_copy(update={"metrics": metrics})
    return replace(teacher, metadata=metadata)


def test_distill_teacher_refuses_unsuccessful_teacher(teacher, tmp_path) -> None:
    unsuccessful = with_success(teacher, 0.0123)
    with pytest.raises(InputError, match=r"its goal in 1.2% of episodes.*--force"):
        distill_teacher(unsuccessful, distill_config(overrides=DISTILL), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_warn_if_larger_names_larger_network(teacher) -> None:
    def shapes(width: int):
        config = distill_config(overrides={**DISTILL, "student.policy.width": width}).student
        return student_networks(teacher.task, config, embedding=4).shapes

    with pytest.warns(UserWarning, match=r"student's actor has 5,124 parameters, more than"):
        warn_if_larger(shapes(64), teacher)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_if_larger(shapes(8), teacher)
    assert caught == []


@pytest.mark.slow
def test_distill_teacher_warns_of_larger_student(teacher, tmp_path) -> None:
    config = distill_config(overrides={**DISTILL, "student.policy.width": 64, "steps": 40})
    with pytest.warns(UserWarning, match=r"student's actor has 5,124 parameters, more than"):
        student = distill_teacher(teacher, config, tmp_path / "large", force=True)
    assert student.metadata.networks["actor"]["parameters"] == 5124  # and goes on


def test_distillation_cost_is_share_of_teachers(teacher) -> None:
    metrics = {"steps": 1000, "seconds": 50.0}
    teacher = replace(teacher, metadata=teacher.metadata.model_copy(update={"metrics": metrics}))
    seconds = {"compile": 5.0, "rollout": 3.0, "label": 1.0, "learn": 0.0}
    found = distillation_cost(teacher, 80, 10.0, seconds)
    assert found["steps_share"] == 0.08
    assert found["seconds_share"] == 0.2
    assert found["label_share"] == 0.25
    assert found["seconds_compile"] == 5.0
