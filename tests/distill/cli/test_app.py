"""All commands together: help, bad input, folders in use, Ctrl-C, and the whole path from a task to a video."""

import signal
import subprocess
import sys
import time

import pytest
from commands import assert_refused, run, run_json, set_options
from tiny import DISTILL, TEACHER

COMMANDS = [
    *("tasks", "train-teacher", "sweep", "distill", "compare"),
    *("export", "verify", "evaluate", "play", "info", "demo"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_app_help_has_an_example(command) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"  crl-distill {command}" in result.stdout.split("Example:")[1]


def test_app_without_command_lists_all() -> None:
    result = run()
    assert result.exit_code == 0
    assert all(command in result.stdout for command in COMMANDS)


@pytest.mark.slow
@pytest.mark.end_to_end
def test_app_runs_from_task_to_video(tmp_path) -> None:
    teacher, student, out = tmp_path / "teacher", tmp_path / "student", tmp_path / "export"
    trained = run_json(
        "train-teacher", "reacher", "--depth", 8, "--width", 8, "--steps", 40, "--out", teacher,
        *set_options({k: v for k, v in TEACHER.items() if "depth" not in k and "width" not in k and k != "steps"}),
    )  # fmt: skip
    assert trained["kind"] == "teacher"
    assert trained["steps"] == 40
    assert (teacher / "config.toml").exists()

    resumed = run_json(
        "train-teacher", "reacher", "--config", teacher / "config.toml", "--steps", 80,
        "--out", teacher, "--resume",
    )  # fmt: skip
    assert resumed["steps"] == 80

    distilled = run_json(
        "distill", teacher, "--width", 8, "--out", student, "--force",
        *set_options({k: v for k, v in DISTILL.items() if "width" not in k}),
    )  # fmt: skip
    assert distilled["kind"] == "student"
    assert {"retention", "retention_ci95"} <= set(distilled)
    actor = run_json("info", student)["networks"]["actor"]
    assert (actor["layers"], actor["width"]) == (2, 8)

    exported = run_json("export", student, "--out", out)
    assert exported["parity_max_abs"] < 1e-4

    for path in (teacher, student, out / "policy.onnx"):
        figures = run_json("evaluate", path, "--episodes", 8)
        assert figures["task"] == "reacher"
        assert figures["episodes"] == 8
        for name in ("success_at_end", "success_any", "time_at_goal"):
            low, high = figures[f"{name}_ci95"]
            assert 0 <= low <= figures[name] <= high <= 1

    played = run_json(
        "play", out / "policy.onnx", "--episodes", 3, "--video", tmp_path / "film.gif", "--shown", 1
    )
    assert len(played["by_episode"]) == 3
    assert (tmp_path / "film.gif").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train-teacher", "reachr"], ["'reachr'", "did you mean 'reacher'"]),
        (["train-teacher", "reacher", "--depth", "6"], ["depth", "6", "multiple of 4"]),
        (["train-teacher", "reacher", "--depth", "ten"], ["--depth", "--help"]),
        (["train-teacher", "reacher", "--width", "-1"], ["width = -1"]),
        (["train-teacher", "reacher", "--depth", "4096", "--width", "16384"], ["GiB", "lower", "width"]),
        (["train-teacher", "reacher", "--set", "learning.batch=1000000"], ["GiB", "learning.batch"]),
        (["train-teacher", "reacher", "--set", "rollout.environments=1000000"], ["GiB", "rollout.environments"]),
        (["train-teacher", "reacher", "--steps", "0"], ["steps = 0"]),
        (["train-teacher", "reacher", "--seed", "-1"], ["seed = -1"]),
        (["train-teacher", "reacher", "--set", "learning.btch=1"], ["'learning.btch'", "'learning.batch'"]),
        (["train-teacher", "reacher", "--set", "seed"], ["'seed'", "section.key=value"]),
        (["train-teacher", "reacher", "--config", "/nowhere.toml"], ["/nowhere.toml"]),
        (["train-teacher", "reacher", "--dpeth", "4"], ["--dpeth", "--help"]),
        (["train-teacher"], ["--help"]),
        (["train-teacher", "reacher", "--preset", "papr"], ["'papr'", "choose from paper"]),
        (["sweep", "/nowhere.toml"], ["/nowhere.toml", "cpu/depth"]),
        (["distill", "/nowhere"], ["/nowhere", "does not exist"]),
        (["distill", "/nowhere", "--steps", "0"], ["--steps 0"]),
        (["export", "/nowhere"], ["/nowhere", "does not exist"]),
        (["evaluate", "/nowhere.onnx"], ["/nowhere.onnx", "does not exist"]),
        (["evaluate", "/nowhere", "--episodes", "0"], ["--episodes"]),
        (["play", "/nowhere.onnx"], ["/nowhere.onnx"]),
        (["play", "/nowhere.onnx", "--video", "film.avi"], ["film.avi", ".gif or .mp4"]),
        (["info", "/nowhere"], ["/nowhere"]),
        (["nonsense"], ["nonsense"]),
    ],
)  # fmt: skip
def test_app_refuses_bad_input_in_one_line(arguments, words) -> None:
    assert_refused(run(*arguments), *words)


def test_app_leaves_folders_in_use_alone(teacher_run, student_run, tmp_path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("mine")
    for command in (
        ["train-teacher", "reacher"],
        ["distill", teacher_run, "--force"],
        ["export", student_run],
        ["demo"],
    ):
        assert_refused(run(*command, "--out", taken), str(taken), "nothing was overwritten")
    assert [path.name for path in taken.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("path", ["x" * 300, f"{'x' * 300}.onnx"])
def test_app_refuses_too_long_path(path) -> None:
    for command in (["info"], ["evaluate"], ["train-teacher", "reacher", "--out"]):
        assert_refused(run(*command, path), "xxx")


@pytest.mark.slow
def test_app_interrupted_leaves_checkpoint_that_resumes(tmp_path) -> None:
    out = tmp_path / "run"
    command = [
        sys.executable, "-c", "from distill.cli import main; main()", "train-teacher", "reacher",
        "--out", str(out), *set_options({**TEACHER, "steps": 10**9, "logging.checkpoint_every": 1}),
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not any(out.glob("checkpoints/*[0-9]")) and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stdout == ""
    assert stderr.splitlines()[-1].startswith("error: interrupted; checkpoints already written")
    assert "Traceback" not in stderr
    assert not any(out.glob("checkpoints/*tmp*"))
    done = run_json("info", out)["metrics"]["steps"]
    more = run_json(
        "train-teacher", "reacher", "--config", out / "config.toml", "--steps", done + 40,
        "--out", out, "--resume",
    )  # fmt: skip
    assert more["steps"] == done + 40
