"""Model cards, read as the hub and as people do."""

import re

import pytest
from huggingface_hub import ModelCard

from export.share.card import model_card
from teachers.runs.checkpoints import read_metadata
from teachers.runs.metadata import Metadata


@pytest.mark.parametrize("kind", ["teacher", "student"])
def test_the_front_matter_follows_the_hub(teacher_run, student_run, kind) -> None:
    metadata = read_metadata({"teacher": teacher_run, "student": student_run}[kind])
    data = ModelCard(model_card(metadata, 160)).data
    assert data.to_dict()["library_name"] == "crl-distill"
    assert data.pipeline_tag == "reinforcement-learning"
    assert {"reacher", kind} <= set(data.tags)
    results = {result.metric_type: result for result in data.eval_results}
    assert results["time_at_goal"].dataset_name == "reacher"
    assert results["time_at_goal"].metric_value == round(metadata.metrics["time_at_goal"], 4)
    assert ("retention" in results) == (kind == "student")


def test_a_teacher_is_described(teacher_run) -> None:
    card = model_card(read_metadata(teacher_run), 160, "ada/reach")
    assert "# reacher: teacher" in card
    assert "| observation | fingertip | 2 | m | - |" in card
    assert "| action | shoulder_torque | 1 | N m | -0.1 to 0.1 |" in card
    assert "| policy | 8 | 8 | 844 |" in card
    assert "crl-distill share pull ada/reach --out runs/reacher-teacher" in card
    assert "crl-distill distill runs/reacher-teacher" in card
    assert "## Its teacher" not in card


def test_a_student_names_its_teacher(student_run) -> None:
    metadata = read_metadata(student_run)
    card = model_card(metadata, 160)
    assert f"`{metadata.lineage['teacher']['digest']}`" in card
    assert "| retention | " in card
    assert "crl-distill share pull OWNER/NAME" in card
    assert "crl-distill export runs/reacher-student" in card


@pytest.mark.parametrize("kind", ["teacher", "student"])
def test_its_python_runs(teacher_run, student_run, kind, capsys) -> None:
    run = {"teacher": teacher_run, "student": student_run}[kind]
    card = model_card(read_metadata(run), 160)
    (program,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    program = program.replace(f"runs/reacher-{kind}", str(run)).replace(
        "episodes=256", "episodes=4"
    )
    exec(compile(program, "card", "exec"), {})
    assert "time_at_goal" in capsys.readouterr().out


def test_a_task_of_the_users_own_is_not_needed(teacher_run) -> None:
    known = read_metadata(teacher_run)
    metadata = known.model_copy(update={"task": "my_arm", "task_source": "/nowhere/arm.py:MyArm"})
    card = model_card(metadata, 160)
    assert "Numbers in each array: observation 8, goal 2, action 2." in card
    assert "| array | field |" not in card
    assert "--task FILE.py:Class" in card
    assert "/nowhere" not in card


def test_figures_that_were_not_measured_are_left_out() -> None:
    metadata = Metadata(
        kind="teacher", task="reacher", networks={}, config={}, lineage={}, versions={},
        metrics={"time_at_goal": None, "steps": 40},
    )  # fmt: skip
    card = model_card(metadata, 40)
    assert "model-index" not in card
    assert "## Figures" not in card
