"""Unusual paths of runs that work, and the errors for those that cannot work."""

import os

import pytest
from commands import assert_refused, run
from tiny import TEACHER

from export import pack, unpack
from teachers import InputError, load_teacher, teacher_config, train_teacher
from teachers.runs.checkpoint_files import checkpoint_steps
from teachers.runs.outputs import local_draft
from teachers.runs.paths import absolute_path, create_folder, is_local

CONFIG = teacher_config("reacher", overrides={**TEACHER, "steps": 80})
LONGER = teacher_config("reacher", overrides=TEACHER)


def test_train_teacher_accepts_unusual_paths(tmp_path, monkeypatch) -> None:
    out = "./relative/with spaces and ünïcode/trailing/"
    monkeypatch.chdir(tmp_path)
    train_teacher(CONFIG, out)
    train_teacher(LONGER, out, resume=True)
    assert load_teacher(tmp_path / out).metadata.metrics["steps"] == 160
    pack(out, "run ü.zip")
    unpack("run ü.zip", "there/again/")
    assert load_teacher("there/again").metadata.metrics["steps"] == 160


def test_train_teacher_follows_link(tmp_path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    train_teacher(CONFIG, tmp_path / "run")
    train_teacher(LONGER, tmp_path / "run", resume=True)
    assert (tmp_path / "run").is_symlink()
    assert checkpoint_steps(tmp_path / "disk") == [80, 160]


@pytest.mark.parametrize(
    "command",
    [["train-teacher", "reacher", "--out"], ["info"], ["demo", "--out"]],
)
def test_require_reachable_refuses_tilde(command, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(run(*command, "~/runs/x"), "~/runs/x", os.path.expanduser("~/runs/x"))
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("command", [["train-teacher", "reacher"], ["demo"]])
def test_create_folder_refuses_read_only_folder(command, tmp_path, monkeypatch) -> None:
    # Even root cannot write in /proc.
    assert_refused(run(*command, "--out", "/proc/new"), "cannot create /proc/new", "another --out")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert_refused(run(*command, "--out", tmp_path), f"cannot write in {tmp_path}", "another --out")
    assert not os.listdir(tmp_path)


def test_create_folder_names_path_that_cannot_be_created(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot create .*choose another --out"):
        create_folder(tmp_path / "file" / "run")


def test_absolute_path_keeps_cloud_paths() -> None:
    assert not is_local("gs://lab/run")
    assert str(absolute_path("gs://lab/run/")) == "gs://lab/run"


def test_local_draft_is_the_local_file_itself(tmp_path) -> None:
    with local_draft(tmp_path / "a.png") as draft:
        assert draft == tmp_path / "a.png"
