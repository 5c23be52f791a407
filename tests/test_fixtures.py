"""Artefacts of this and earlier formats, kept as they were written, open and say what they said."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import TEACHER

from export import describe_artefact, runtime, unpack
from students import load_student
from teachers import InputError, load_teacher, teacher_config, train_teacher
from teachers.runs.metadata import FORMAT_VERSION

FIXTURES = Path(__file__).parent / "fixtures"
sys.path.append(str(FIXTURES))
from make import answers, onnx_answers  # noqa: E402

FORMATS = sorted(int(folder.name.partition("-")[2]) for folder in FIXTURES.glob("format-*"))
CONTRACTS = sorted(int(folder.name.partition("-")[2]) for folder in FIXTURES.glob("contract-*"))
UNPACKED_BY_HAND = 3  # before there were archives
LOAD = {"teacher": load_teacher, "student": load_student}


@pytest.fixture(scope="module", params=FORMATS)
def kept(request, tmp_path_factory):
    """A format's version, its folder of artefacts, its runs unpacked, and what they are to say."""
    artefacts = FIXTURES / f"format-{request.param}"
    runs = tmp_path_factory.mktemp("kept")
    for kind in LOAD:
        if request.param == UNPACKED_BY_HAND:
            shutil.unpack_archive(artefacts / f"{kind}.zip", runs / kind)
        else:
            unpack(artefacts / f"{kind}.zip", runs / kind)
    said = json.loads((artefacts / "answers.json").read_text())
    return request.param, artefacts, runs, said


def assert_same(found, said) -> None:
    for name in ("action", "value"):
        np.testing.assert_allclose(found[name], said[name], atol=1e-5)


def test_today_s_format_is_kept() -> None:
    assert FORMATS[-1] == FORMAT_VERSION, "run tests/fixtures/make.py once"
    assert runtime.FORMAT_VERSION == FORMAT_VERSION
    assert CONTRACTS[-1] == runtime.CONTRACT_VERSION, "run tests/fixtures/make.py once"


@pytest.mark.parametrize("kind", list(LOAD))
def test_a_kept_run_opens_and_says_what_it_said(kept, kind) -> None:
    version, _, runs, said = kept
    agent = LOAD[kind](runs / kind)
    assert agent.metadata.format_version == version
    assert_same(answers(agent), said[kind])


ONNX = [f"format-{version}" for version in FORMATS if version < 5]  # later ones have a contract
ONNX += [f"contract-{version}" for version in CONTRACTS]


@pytest.mark.parametrize("folder", ONNX)
def test_kept_onnx_files_open_and_say_what_they_said(folder) -> None:
    for role in ("policy", "critic"):
        assert describe_artefact(FIXTURES / folder / f"{role}.onnx").kind == "onnx"
    said = json.loads((FIXTURES / folder / "answers.json").read_text())
    assert_same(onnx_answers(FIXTURES / folder), said["onnx"])


def test_a_kept_run_is_resumed_or_says_why_not(kept) -> None:
    version, _, runs, _ = kept
    config = teacher_config("reacher", overrides={**TEACHER, "steps": TEACHER["steps"] + 40})
    if version < FORMAT_VERSION:
        with pytest.raises(InputError, match="it can be used, but not resumed"):
            train_teacher(config, runs / "teacher", resume=True)
        return
    resumed = train_teacher(config, runs / "teacher", resume=True)
    assert resumed.metadata.metrics["steps"] == config.steps
