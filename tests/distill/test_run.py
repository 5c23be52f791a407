import warnings
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import DISTILL

from distill import distill_config, distill_teacher, measure_retention
from distill.run import cost, warn_of_size
from students import load_student, student_networks
from teachers import InputError, evaluate_agent, load_teacher
from teachers.agent import Agent
from teachers.runs.run_log import read_metrics


def test_a_run_leaves_what_it_promises(student_run) -> None:
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


def test_the_same_seed_gives_the_same_student(teacher_run, student_run, tmp_path) -> None:
    teacher = load_teacher(teacher_run)
    again = distill_teacher(
        teacher, distill_config(overrides=DISTILL), tmp_path / "again", force=True
    )
    jax.tree.map(np.testing.assert_array_equal, again.params, load_student(student_run).params)


@pytest.mark.slow
def test_a_two_headed_student_opens_as_it_was(teacher_run, tmp_path) -> None:
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


def test_a_teacher_retains_all_of_itself(teacher_run) -> None:
    teacher = load_teacher(teacher_run)
    figures = measure_retention(teacher, evaluate_agent(teacher, 8, 0), seed=0)
    assert figures["retention"] == (1.0 if figures["time_at_goal"] else None)


def test_a_taken_folder_is_refused(teacher_run, student_run) -> None:
    config = distill_config(overrides=DISTILL)
    with pytest.raises(InputError, match="already holds files"):
        distill_teacher(load_teacher(teacher_run), config, student_run, force=True)


def hopeless(teacher: Agent, success: float) -> Agent:
    metrics = {**teacher.metadata.metrics, "success_any": success}
    metadata = teacher.metadata.model_copy(update={"metrics": metrics})
    return replace(teacher, metadata=metadata)


def test_a_teacher_that_never_arrives_is_named_before_anything_is_done(
    teacher_run, tmp_path
) -> None:
    teacher = hopeless(load_teacher(teacher_run), 0.0123)
    with pytest.raises(InputError, match=r"its goal in 1.2% of episodes.*--force"):
        distill_teacher(teacher, distill_config(overrides=DISTILL), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_student_larger_than_its_teacher_is_said(teacher_run) -> None:
    teacher = load_teacher(teacher_run)

    def shapes(width: int):
        config = distill_config(overrides={**DISTILL, "student.policy.width": width}).student
        return student_networks(teacher.task, config, embedding=4).shapes

    with pytest.warns(UserWarning, match=r"student's actor has 5,124 parameters, more than"):
        warn_of_size(shapes(64), teacher)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_size(shapes(8), teacher)
    assert caught == []


@pytest.mark.slow
def test_a_distillation_says_that_its_student_is_larger(teacher_run, tmp_path) -> None:
    config = distill_config(overrides={**DISTILL, "student.policy.width": 64, "steps": 40})
    with pytest.warns(UserWarning, match=r"student's actor has 5,124 parameters, more than"):
        student = distill_teacher(load_teacher(teacher_run), config, tmp_path / "large", force=True)
    assert student.metadata.networks["actor"]["parameters"] == 5124  # and goes on


def test_cost_is_a_share_of_the_teachers(teacher_run) -> None:
    teacher = load_teacher(teacher_run)
    metrics = {"steps": 1000, "seconds": 50.0}
    teacher = replace(teacher, metadata=teacher.metadata.model_copy(update={"metrics": metrics}))
    seconds = {"compile": 5.0, "rollout": 3.0, "label": 1.0, "learn": 0.0}
    found = cost(teacher, 80, 10.0, seconds)
    assert found["steps_share"] == 0.08
    assert found["seconds_share"] == 0.2
    assert found["label_share"] == 0.25
    assert found["seconds_compile"] == 5.0
