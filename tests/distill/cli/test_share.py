"""`crl-distill share`, through Typer's runner and against a stand-in of the hub."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from commands import assert_refused, run, run_json

from students import load_student

COMMANDS = ["pack", "unpack", "push", "pull"]


@pytest.mark.parametrize("command", COMMANDS)
def test_share_help_has_an_example(command) -> None:
    result = run("share", command, "--help")
    assert result.exit_code == 0
    assert f"  crl-distill share {command}" in result.stdout.split("Example:")[1]


def test_share_without_command_lists_all() -> None:
    result = run("share")
    assert result.exit_code == 0
    assert all(command in result.stdout for command in COMMANDS)


def test_pack_and_unpack_keep_the_run(student_run, tmp_path) -> None:
    file, folder = tmp_path / "student.zip", tmp_path / "student"
    packed = run_json("share", "pack", student_run, "--out", file)
    assert (packed["out"], packed["kind"], packed["full"]) == (str(file), "student", False)
    described = run_json("info", file)
    assert described == {key: value for key, value in packed.items() if key != "out"}
    assert "reacher" in run("info", file).stdout
    unpacked = run_json("share", "unpack", file, "--out", folder)
    assert unpacked["files"] == packed["files"]
    assert run_json("info", folder) == run_json("info", student_run)
    jax.tree.map(
        np.testing.assert_array_equal,
        *(load_student(path).params for path in (folder, student_run)),
    )
    assert "metrics.jsonl" not in os.listdir(folder)
    full = run_json("share", "pack", student_run, "--out", tmp_path / "full.zip", "--full")
    assert full["files"] > packed["files"]


def test_push_and_pull_keep_the_run(hub, student_run, tmp_path) -> None:
    pushed = run_json("share", "push", student_run, "ada/reach", "--private", "--revision", "small")
    assert pushed["url"] == f"{hub.url}/ada/reach"
    assert hub.repositories["ada/reach"].private
    pulled = run_json("share", "pull", "ada/reach", "--out", tmp_path / "s", "--revision", "small")
    assert pulled["commit"] == pushed["commit"]
    assert run_json("info", tmp_path / "s") == run_json("info", student_run)
    assert "ada/reach" in run("share", "push", student_run, "ada/reach").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["share", "pakc"], ["pakc", "share --help"]),
        (["share", "pack"], ["RUN", "share pack --help"]),
        (["share", "pack", "/nowhere"], ["--out"]),
        (["share", "pack", "/nowhere", "--out", "x.zip"], ["/nowhere", "does not exist"]),
        (["share", "pack", "/nowhere", "--out", "x.tar"], ["x.tar", ".zip"]),
        (["share", "unpack", "/nowhere.zip", "--out", "x"], ["/nowhere.zip", "does not exist"]),
        (["share", "unpack", "/", "--out", "x"], ["/ is a folder"]),
        (["share", "push", "/nowhere", "ada/x"], ["/nowhere", "does not exist"]),
        (["share", "push", "/nowhere", "x"], ["'x'", "OWNER/NAME"]),
        (["share", "pull", "x", "--out", "x"], ["'x'", "OWNER/NAME"]),
        (["share", "pull", "ada/x", "--out", "/"], ["/ already holds files"]),
        (["share", "pull", "ada/x", "--out", "x"], ["ada/x", "does not exist", "HF_TOKEN"]),
        (["info", "/nowhere.zip"], ["/nowhere.zip", "does not exist"]),
    ],
)
def test_share_refuses_bad_input_in_one_line(hub, tmp_path, monkeypatch, arguments, words) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(run(*arguments), *words)
    assert not list(tmp_path.iterdir())


def test_pack_interrupted_leaves_nothing(student_run, tmp_path, monkeypatch) -> None:
    from export.share import archive

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(archive, "copy_verified", interrupted)
    result = run("share", "pack", student_run, "--out", tmp_path / "x.zip")
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_push_uses_mirror_from_environment(hub, student_run, tmp_path) -> None:
    """In a process of its own, which has nothing patched."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("HF_")},
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": "hf_ada",
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1,localhost",
    }
    program = "from distill.cli import main; main()"
    command = ["share", "push", str(student_run), "ada/reach"]
    done = subprocess.run(
        [sys.executable, "-c", program, *command],
        env=environment, capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    assert "hf_ada" not in done.stdout + done.stderr
    assert done.stderr == ""
    assert "config.toml" in hub.tree("ada/reach")
