"""Push and pull against a stand-in of the hub that stores what it is given."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from hub_server import Hub, served_hub

from export import describe_artefact, pull, push
from export.manifest import NAME
from students import load_student
from teachers import InputError, load_teacher
from teachers.metadata import digest

REPO = "ada/reacher-teacher"


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Iterator[Hub]:
    with served_hub() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setenv("HF_TOKEN", "hf_ada")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        # These are read from the environment when huggingface_hub is imported.
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        huggingface_hub.close_session()  # it reads the proxy's settings when it is opened
        yield served
        huggingface_hub.close_session()


def test_pull_gives_what_was_pushed(hub, teacher_run, tmp_path) -> None:
    pushed = push(teacher_run, REPO)
    assert pushed["url"] == f"{hub.url}/{REPO}"
    pulled = pull(REPO, tmp_path / "run")
    assert pulled["commit"] == pushed["commit"]
    assert pulled["files"] == pushed["files"]
    there, here = load_teacher(teacher_run), load_teacher(tmp_path / "run")
    assert digest(there.params) == digest(here.params)
    assert there.metadata == here.metadata
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    assert not (tmp_path / "run" / ".cache").exists()


def test_a_student_travels_too_and_both_ways_of_upload_are_used(hub, student_run, tmp_path) -> None:
    push(student_run, "ada/student", private=True)
    assert hub.repositories["ada/student"].private
    assert hub.objects  # binary files went through LFS
    card = hub.tree("ada/student")["README.md"].decode()
    assert "crl-distill share pull ada/student" in card
    pull("ada/student", tmp_path / "run")
    assert digest(load_student(student_run).params) == digest(load_student(tmp_path / "run").params)
