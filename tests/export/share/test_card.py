"""Model cards of runs: their metadata for the hub, and their text."""

import re

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from export.share.card import render_run_card
from teachers.runs.checkpoints import read_metadata
from teachers.runs.metadata import Metadata


@pytest.mark.parametrize("kind", ["teacher", "student"])
def test_render_run_card_writes_the_hub_s_front_matter(teacher_run, student_run, kind) -> None:
    metadata = read_metadata({"teacher": teacher_run, "student": student_run}[kind])
    data = ModelCard(render_run_card(metadata, 160)).data
    assert data.to_dict()["library_name"] == "crl-distill"
    assert data.pipeline_tag == "reinforcement-learning"
    assert {"reacher", kind} <= set(data.tags)
    results = {result.metric_type: result for result in data.eval_results}
    assert results["time_at_goal"].dataset_name == "reacher"
    assert results["time_at_goal"].metric_value == round(metadata.metrics["time_at_goal"], 4)
    assert ("retention" in results) == (kind == "student")


def test_render_run_card_describes_a_teacher(teacher_run) -> None:
    card = render_run_card(read_metadata(teacher_run), 160, "ada/reach")
    assert "# reacher: teacher" in card
    assert "| observation | fingertip | 2 | m | - |" in card
    assert "| action | shoulder_torque | 1 | N m | -0.1 to 0.1 |" in card
    assert "| policy | 8 | 8 | 844 |" in card
    assert "crl-distill share pull ada/reach --out runs/reacher-teacher" in card
    assert "crl-distill distill runs/reacher-teacher" in card
    assert "## Its teacher" not in card


def test_render_run_card_says_what_a_student_reads(student_run) -> None:
    metadata = read_metadata(student_run)
    assert "in place of the observation" not in render_run_card(metadata, 160)
    config = {"student": {**metadata.config["student"], "sees": "sensors"}}
    changed = metadata.model_copy(update={"config": {**metadata.config, **config}})
    assert "| joint_cos | 2 | 1 | 50 Hz, noise 0.002 |" in render_run_card(changed, 160)


def test_render_run_card_names_a_student_s_teacher(student_run) -> None:
    metadata = read_metadata(student_run)
    card = render_run_card(metadata, 160)
    assert f"`{metadata.lineage['teacher']['digest']}`" in card
    assert "| retention | " in card
    assert "crl-distill share pull OWNER/NAME" in card
    assert "crl-distill export runs/reacher-student" in card


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["teacher", "student"])
def test_render_run_card_shows_python_that_runs(teacher_run, student_run, kind, capsys) -> None:
    run = {"teacher": teacher_run, "student": student_run}[kind]
    card = render_run_card(read_metadata(run), 160)
    (program,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    program = program.replace(f"runs/reacher-{kind}", str(run)).replace(
        "episodes=256",
        "episodes=8",  # as many as in the runs, so that the compiled program is the same
    )
    exec(compile(program, "card", "exec"), {})
    assert "time_at_goal" in capsys.readouterr().out


def test_render_run_card_needs_no_task_of_the_user(teacher_run) -> None:
    known = read_metadata(teacher_run)
    origin = {"task_source": "/nowhere/arm.py:MyArm", "task_digest": "1a2b"}
    metadata = known.model_copy(update={"task": "my_arm", **origin})
    card = render_run_card(metadata, 160)
    assert "Numbers in each array: observation 8, goal 2, action 2." in card
    assert "| array | field |" not in card
    assert "--task FILE.py:Class" in card
    assert "`arm.py:MyArm`, SHA-256 `1a2b`" in card
    assert "/nowhere" not in card


def test_render_run_card_leaves_out_missing_figures() -> None:
    metadata = Metadata(
        kind="teacher", task="reacher", networks={}, config={}, lineage={}, versions={},
        metrics={"time_at_goal": None, "steps": 40},
    )  # fmt: skip
    card = render_run_card(metadata, 40)
    assert "model-index" not in card
    assert "## Figures" not in card


@pytest.mark.parametrize("kind", ["teacher", "student"])
@pytest.mark.parametrize("has_lineage", [True, False])
def test_render_run_card_shows_backticks_of_the_task_s_file(kind, has_lineage) -> None:
    teacher = {"networks": {"actor": {"parameters": 8}}, "digest": "3c`4d"}
    metadata = Metadata(
        kind=kind, task="my `arm`", task_source="a`rm.py:My_Arm", task_digest="1a`2b", networks={},
        config={}, versions={}, metrics={}, lineage={"teacher": teacher} if has_lineage else {},
    )  # fmt: skip
    tokens = MarkdownIt().enable("table").parse(render_run_card(metadata, 40).partition("# ")[2])
    inline = [child for token in tokens for child in token.children or ()]
    codes = [child.content for child in inline if child.type == "code_inline"]
    expected = ["my `arm`", *["3c`4d"] * has_lineage, "my `arm`", "a`rm.py:My_Arm", "1a`2b"]
    assert codes[: len(expected)] == expected
    assert codes[len(expected)] == "--task"
