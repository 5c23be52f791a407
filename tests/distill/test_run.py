import warnings
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import DISTILL

from distill import distill_config, distill_teacher, measure_retention
from distill.programs import DistillPrograms
from distill.run import distillation_cost, warn_if_larger
from students import load_student, student_networks
from teachers import InputError, evaluate_agent, load_teacher
from teachers.agent import Agent
from teachers.runs.run_log import read_metrics


def test_distill_teacher_writes_metrics_and_student(student_run) -> None:
    rows = read_metrics(student_run)
    assert [row["step"] for row in rows] == [40, 80, 120, 160]
    assert "retention" in rows[-1]
    assert rows[0]["teacher_share"] == 1.0
    student = load_student(student_run)
    metrics = student.metadata.metrics
    assert metrics["steps"] == 160
    assert metrics["steps_share"] == 1.0  # of the tiny teacher's 160
    stages = ("compile", "rollout", "label", "learn")
    assert all(metrics[f"seconds_{stage}"] > 0 for stage in stages)
    assert sum(metrics[f"seconds_{stage}"] for stage in stages) <= metrics["seconds"]
    assert student.metadata.config["student"]["policy"]["width"] == 8


def test_distill_teacher_repeats_student_with_programs_of_another_seed(
    teacher_run, student_run, tmp_path
) -> None:
    teacher, config = load_teacher(teacher_run), distill_config(overrides=DISTILL)
    programs = DistillPrograms(config, teacher)
    other = distill_teacher(
        teacher,
        config.model_copy(update={"seed": 1}),
        tmp_path / "other",
        force=True,
        programs=programs,
    )
    compiled = programs.compiled
    again = distill_teacher(teacher, config, tmp_path / "again", force=True, programs=programs)
    assert programs.compiled is compiled
    expected = load_student(student_run).params
    jax.tree.map(np.testing.assert_array_equal, again.params, expected)
    assert not np.array_equal(jax.tree.leaves(other.params)[0], jax.tree.leaves(expected)[0])


def test_distill_teacher_refuses_programs_of_other_settings(teacher_run, tmp_path) -> None:
    teacher, config = load_teacher(teacher_run), distill_config(overrides=DISTILL)
    longer = distill_config(overrides={**DISTILL, "steps": 200})
    with pytest.raises(ValueError, match="compiled for other settings"):
        DistillPrograms(longer, teacher).require_match(config.for_teacher(160), teacher)
    with pytest.raises(ValueError, match="or for another teacher"):
        distill_teacher(
            load_teacher(teacher_run),
            config,
            tmp_path / "run",
            force=True,
            programs=DistillPrograms(config, teacher),
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_distill_teacher_saves_student_with_two_heads(teacher_run, tmp_path) -> None:
    teacher = load_teacher(teacher_run)
    settings = {**DISTILL, "student.heads": True, "student.embedding": 2}
    settings |= {"student.policy.activation": "tanh", "student.critic.normalisation": True}
    config = distill_config(overrides={**settings, "learning.order": "sequential"})
    made = distill_teacher(teacher, config, tmp_path / "run", force=True)
    opened = load_student(tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, opened.params, made.params)
    observation, goal = jnp.ones((3, 8)), jnp.ones((3, 2))
    for agent in (opened, made):
        action = agent.networks.policy(made.params, observation, goal)
        assert agent.networks.psi(made.params, goal).shape == (3, 2)
        np.testing.assert_array_equal(
            agent.networks.critic(made.params, observation, goal, action),
            made.networks.critic(made.params, observation, goal, action),
        )


def test_measure_retention_of_teacher_is_one(teacher_run) -> None:
    teacher = load_teacher(teacher_run)
    figures = measure_retention(teacher, evaluate_agent(teacher, 8, 0), seed=0)
    assert figures["retention"] == (1.0 if figures["time_at_goal"] else None)


def test_distill_teacher_refuses_taken_folder(teacher_run, student_run) -> None:
    config = distill_config(overrides=DISTILL)
    with pytest.raises(InputError, match="already holds files"):
        distill_teacher(load_teacher(teacher_run), config, student_run, force=True)


def with_success(teacher: Agent, success: float) -> Agent:
    metrics = {**teacher.metadata.metrics, "success_any": success}
    metadata = teacher.metadata.model_copy(update={"metrics": metrics})
    return replace(teacher, metadata=metadata)


def test_distill_teacher_refuses_unsuccessful_teacher(teacher_run, tmp_path) -> None:
    teacher = with_success(load_teacher(teacher_run), 0.0123)
    with pytest.raises(InputError, match=r"its goal in 1.2% of episodes.*--force"):
        distill_teacher(teacher, distill_config(overrides=DISTILL), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_warn_if_larger_names_larger_network(teacher_run) -> None:
    teacher = load_teacher(teacher_run)

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
def test_distill_teacher_warns_of_larger_student(teacher_run, tmp_path) -> None:
    config = distill_config(overrides={**DISTILL, "student.policy.width": 64, "steps": 40})
    with pytest.warns(UserWarning, match=r"student's actor has 5,124 parameters, more than"):
        student = distill_teacher(load_teacher(teacher_run), config, tmp_path / "large", force=True)
    assert student.metadata.networks["actor"]["parameters"] == 5124  # and goes on


def test_distillation_cost_is_share_of_teachers(teacher_run) -> None:
    teacher = load_teacher(teacher_run)
    metrics = {"steps": 1000, "seconds": 50.0}
    teacher = replace(teacher, metadata=teacher.metadata.model_copy(update={"metrics": metrics}))
    seconds = {"compile": 5.0, "rollout": 3.0, "label": 1.0, "learn": 0.0}
    found = distillation_cost(teacher, 80, 10.0, seconds)
    assert found["steps_share"] == 0.08
    assert found["seconds_share"] == 0.2
    assert found["label_share"] == 0.25
    assert found["seconds_compile"] == 5.0
