"""Stored artefacts of the present and earlier formats can be opened, and compute what they did."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from privileges import give_to_other_user, without_privileges
from tiny import TEACHER

from export import describe_artefact, runtime, unpack
from students import load_student
from teachers import InputError, evaluate_agent, load_teacher, teacher_config, train_teacher
from teachers.runs.checkpoints import was_saved_with
from teachers.runs.metadata import FORMAT_VERSION

FIXTURES = Path(__file__).parent / "fixtures"
sys.path.append(str(FIXTURES))
from make import agent_outputs, onnx_outputs  # noqa: E402

FORMATS = sorted(int(folder.name.partition("-")[2]) for folder in FIXTURES.glob("format-*"))
CONTRACTS = sorted(int(folder.name.partition("-")[2]) for folder in FIXTURES.glob("contract-*"))
FORMAT_BEFORE_ARCHIVES = 3  # its runs are plain zip files
LOAD = {"teacher": load_teacher, "student": load_student}


class StoredRuns(NamedTuple):
    """The unpacked runs of a format, by kind, and what their agents computed when they were stored."""

    format_version: int
    folders: dict[str, Path]
    outputs: dict[str, Any]


@pytest.fixture(scope="module", params=FORMATS)
def stored(request, tmp_path_factory) -> StoredRuns:
    artefacts = FIXTURES / f"format-{request.param}"
    runs = tmp_path_factory.mktemp("stored")
    for kind in LOAD:
        if request.param == FORMAT_BEFORE_ARCHIVES:
            shutil.unpack_archive(artefacts / f"{kind}.zip", runs / kind)
        else:
            unpack(artefacts / f"{kind}.zip", runs / kind)
    outputs = json.loads((artefacts / "answers.json").read_text())
    return StoredRuns(request.param, {kind: runs / kind for kind in LOAD}, outputs)


def assert_same(outputs, expected) -> None:
    for name in ("action", "value"):
        np.testing.assert_allclose(outputs[name], expected[name], atol=1e-5)


def test_fixtures_include_the_present_formats() -> None:
    assert FORMATS[-1] == FORMAT_VERSION, "run tests/fixtures/make.py once"
    assert runtime.FORMAT_VERSION == FORMAT_VERSION
    assert CONTRACTS[-1] == runtime.CONTRACT_VERSION, "run tests/fixtures/make.py once"


@pytest.mark.parametrize("kind", list(LOAD))
def test_load_teacher_and_load_student_open_stored_runs(stored, kind) -> None:
    agent = LOAD[kind](stored.folders[kind])
    assert agent.metadata.format_version == stored.format_version
    assert_same(agent_outputs(agent), stored.outputs[kind])


ONNX = [f"format-{version}" for version in FORMATS if version < 5]  # later files have a contract
ONNX += [f"contract-{version}" for version in CONTRACTS]


@pytest.mark.parametrize("folder", ONNX)
def test_policy_and_critic_open_stored_files(folder) -> None:
    for role in ("policy", "critic"):
        assert describe_artefact(FIXTURES / folder / f"{role}.onnx").kind == "onnx"
    expected = json.loads((FIXTURES / folder / "answers.json").read_text())
    assert_same(onnx_outputs(FIXTURES / folder), expected["onnx"])


def test_train_teacher_resumes_stored_runs_of_the_present_format(stored) -> None:
    config = teacher_config("reacher", overrides={**TEACHER, "steps": TEACHER["steps"] + 40})
    run = stored.folders["teacher"]
    if stored.format_version < FORMAT_VERSION:
        with pytest.raises(InputError, match="it can be used, but not resumed"):
            train_teacher(config, run, resume=True)
        return
    # It was saved without the count of steps skipped in a row, which begins at 0.
    assert not was_saved_with(run, TEACHER["steps"], "training", ("learner", "skipped_in_a_row"))
    resumed = train_teacher(config, run, resume=True)
    assert resumed.metadata.metrics["steps"] == config.steps
    assert resumed.metadata.metrics["skipped_in_a_row"] == 0
    assert was_saved_with(run, config.steps, "training", ("learner", "skipped_in_a_row"))


OPEN = """
import json, sys
from export import open_policy
from students import load_student
from teachers import evaluate_agent, load_teacher
sys.path.append(sys.argv[1])
from make import agent_outputs
outputs = {}
for kind, load in (("teacher", load_teacher), ("student", load_student)):
    agent = load(sys.argv[2] + "/" + kind)
    outputs[kind] = agent_outputs(agent)
    outputs[kind]["time_at_goal"] = evaluate_agent(agent, 4, 1).time_at_goal.tolist()
print(json.dumps(outputs))
"""
PRINTABLE = "".join(chr(code) for code in range(32, 127) if chr(code) != "/")


@pytest.mark.slow
@pytest.mark.parametrize("condition", ["x64", "read-only", "elsewhere", "printable"])
def test_load_teacher_and_load_student_open_stored_runs_under_conditions(
    condition, stored, tmp_path, monkeypatch
) -> None:
    """Runs are opened with 64-bit numbers, by another user who may not write, from anywhere, whatever their name."""
    folder = tmp_path / (PRINTABLE if condition == "printable" else "runs")
    shutil.copytree(stored.folders["teacher"].parent, folder)
    path, command = str(folder), [sys.executable, "-c", OPEN, str(FIXTURES)]
    if condition == "x64":
        monkeypatch.setenv("JAX_ENABLE_X64", "1")
    elif condition == "read-only":
        give_to_other_user(folder, 0o444)
        command = without_privileges(command)
    elif condition == "elsewhere":
        path = "runs"
    monkeypatch.setenv("PYTHONPATH", f"{FIXTURES.parent}:{FIXTURES.parent.parent}")
    result = subprocess.run(
        [*command, path], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    outputs = json.loads(result.stdout)
    for kind, load in LOAD.items():
        assert_same(outputs[kind], stored.outputs[kind])
        expected = evaluate_agent(load(stored.folders[kind]), 4, 1).time_at_goal
        np.testing.assert_array_equal(outputs[kind]["time_at_goal"], expected)
