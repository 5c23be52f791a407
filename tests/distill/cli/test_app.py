"""Each command through Typer's runner, with good and bad input."""

import signal
import subprocess
import sys
import time

import pytest
from commands import assert_refused, run, run_json, sets
from tiny import DISTILL, TEACHER

from distill import demo
from distill.cli.experiments import estimate_table

COMMANDS = [
    *("tasks", "train-teacher", "sweep", "distill", "compare"),
    *("export", "evaluate", "play", "info", "demo"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_a_worked_example(command) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"  crl-distill {command}" in result.stdout.split("Example:")[1]


def test_no_command_shows_all_of_them() -> None:
    result = run()
    assert result.exit_code == 0
    assert all(command in result.stdout for command in COMMANDS)


def test_tasks_lists_the_declared_fields() -> None:
    listed = {task["name"]: task for task in run_json("tasks")}
    assert {"reacher", "point_u_maze"} <= set(listed)
    tip = listed["reacher"]["observation"][-1]
    assert (tip["name"], tip["start"], tip["stop"], tip["unit"]) == ("fingertip", 6, 8, "m")
    assert "reacher" in run("tasks").stdout


def test_the_whole_path_from_task_to_video(tmp_path) -> None:
    teacher, student, out = tmp_path / "teacher", tmp_path / "student", tmp_path / "export"
    trained = run_json(
        "train-teacher", "reacher", "--depth", 8, "--width", 8, "--steps", 40, "--out", teacher,
        *sets({k: v for k, v in TEACHER.items() if "depth" not in k and "width" not in k and k != "steps"}),
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
        "distill", teacher, "--layers", 1, "--width", 8, "--out", student, "--force",
        *sets({k: v for k, v in DISTILL.items() if "width" not in k}),
    )  # fmt: skip
    assert distilled["kind"] == "student"
    assert {"retention", "retention_ci95"} <= set(distilled)
    assert run_json("info", student)["networks"]["actor"]["layers"] == 1

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


@pytest.mark.parametrize("kind", ["teacher", "student", "onnx"])
def test_info_has_stable_keys(teacher_run, student_run, export_folder, kind) -> None:
    path = {"teacher": teacher_run, "student": student_run, "onnx": export_folder / "policy.onnx"}[
        kind
    ]
    described = run_json("info", path)
    assert described["kind"] == kind
    assert {"task", "networks", "config", "metrics", "lineage", "versions"} <= set(described)
    assert "reacher" in run("info", path).stdout


def test_figures_are_printed_for_people_too(export_folder) -> None:
    result = run("evaluate", export_folder / "policy.onnx", "--episodes", 4)
    assert result.exit_code == 0
    assert "success_at_end" in result.stdout


@pytest.mark.slow
def test_an_estimate_trains_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    needed = run_json("train-teacher", "reacher", "--estimate", *sets(TEACHER))
    assert needed["fits"]
    assert needed["seconds"]["run"] > 0
    assert not any(tmp_path.iterdir())
    shown = [str(cell) for cell in estimate_table(needed).columns[0].cells]
    assert {"memory: replay", "seconds: update", "duration"} <= set(shown)
    full = {**needed, "fits": False}
    assert "lower rollout.environments" in list(estimate_table(full).columns[1].cells)[-1]


def test_a_sweep_is_planned_run_and_shown(tmp_path) -> None:
    spec = tmp_path / "experiment.toml"
    settings = "".join(f"{key} = {value!r}\n" for key, value in TEACHER.items())
    spec.write_text(
        'task = "reacher"\nseeds = 1\nfigures = ["depth"]\n'
        f"[settings]\n{settings}[grid]\ndepth = [8]\n"
    )
    (planned,) = run_json("sweep", spec, "--dry-run")
    assert planned == {"cell": "depth=8", "task": "reacher", "seeds": 1, "steps": 160}
    out = tmp_path / "out"
    (row,) = run_json("sweep", spec, "--out", out)
    assert row["steps"] == 160
    assert (out / "depth.png").is_file()
    assert "depth=8" in run("sweep", spec, "--out", out).stdout  # nothing is left to train
    spec.write_text(spec.read_text().replace("seeds", "sedes"))
    assert_refused(run("sweep", spec), "'sedes'", "did you mean 'seeds'")


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
        (["distill", "/nowhere", "--method", "dager"], ["'dager'", "bc, dagger"]),
        (["distill", "/nowhere", "--set", "collect.disturbances.delay=0,9"], ["collect.disturbances.delay", "3"]),
        (["export", "/nowhere"], ["/nowhere", "does not exist"]),
        (["evaluate", "/nowhere.onnx"], ["/nowhere.onnx", "does not exist"]),
        (["evaluate", "/nowhere", "--episodes", "0"], ["--episodes"]),
        (["play", "/nowhere.onnx"], ["/nowhere.onnx"]),
        (["play", "/nowhere.onnx", "--video", "film.avi"], ["film.avi", ".gif or .mp4"]),
        (["info", "/nowhere"], ["/nowhere"]),
        (["nonsense"], ["nonsense"]),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_line(arguments, words) -> None:
    assert_refused(run(*arguments), *words)


def test_the_wrong_kind_of_artefact_is_refused(teacher_run, student_run, tmp_path) -> None:
    assert_refused(run("distill", student_run, "--out", tmp_path / "x"), "a student, not a teacher")
    result = run("export", teacher_run, "--format", "c", "--out", tmp_path / "x")
    assert_refused(result, "a teacher is too deep for a microcontroller")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--opset", 12], ["opset 12", "from 13 to"]),
        (["--dtype", "float64"], ["'float64'", "float32 or float16"]),
        (["--dtype", "float16", "--quantize", "int8"], ["cannot be written"]),
        (["--format", "tflite"], ["'tflite'", "onnx or c"]),
        (["--format", "c", "--combined"], ["leave out --combined"]),
    ],
)
def test_files_that_cannot_be_written_are_refused(student_run, tmp_path, options, said) -> None:
    assert_refused(run("export", student_run, *options, "--out", tmp_path / "x"), *said)
    assert not (tmp_path / "x").exists()


def test_folders_in_use_are_refused_and_left_alone(teacher_run, student_run, tmp_path) -> None:
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


def test_a_demo_replaces_only_a_demo(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(demo, "train_teacher", lambda *_, **__: 1 / 0)  # far enough
    ours = tmp_path / "ours"
    for _ in range(2):  # the second time over what an interrupted one left
        with pytest.raises(ZeroDivisionError):
            demo.run_demo(ours)
        (ours / "teacher").mkdir()
    (ours / "thesis.txt").write_text("mine")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "summary.json").write_text("{}")
    for folder in (ours, theirs):
        before = sorted(folder.rglob("*"))
        assert_refused(run("demo", "--out", folder), str(folder), "nothing was overwritten")
        assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("path", ["x" * 300, f"{'x' * 300}.onnx"])
def test_a_path_that_cannot_be_is_refused(path) -> None:
    for command in (["info"], ["evaluate"], ["train-teacher", "reacher", "--out"]):
        assert_refused(run(*command, path), "xxx")


@pytest.mark.slow
def test_interrupting_says_so_and_leaves_a_checkpoint_that_resumes(tmp_path) -> None:
    out = tmp_path / "run"
    command = [
        sys.executable, "-c", "from distill.cli import main; main()", "train-teacher", "reacher",
        "--out", str(out), *sets({**TEACHER, "steps": 10**9, "logging.checkpoint_every": 1}),
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


def test_a_file_that_is_no_model_is_refused(tmp_path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    for command in ("evaluate", "play", "info"):
        assert_refused(run(command, tmp_path / "text.onnx"), "text.onnx")


def test_an_existing_video_is_refused(export_folder, tmp_path) -> None:
    (tmp_path / "film.gif").write_text("mine")
    result = run("play", export_folder / "policy.onnx", "--video", tmp_path / "film.gif")
    assert_refused(result, "film.gif", "nothing was overwritten")
    assert (tmp_path / "film.gif").read_text() == "mine"
