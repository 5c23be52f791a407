"""Runs and outputs on gs://, with the real TensorStore, Orbax and gcsfs, and a stand-in for Google Cloud Storage."""

import json
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from commands import assert_refused, run, run_json, sets
from etils import epath
from metrics import without_clock
from tiny import DISTILL, TEACHER

from distill import demo
from distill.compare import DEFAULT, QUICK, run_compare
from export import Policy
from teachers import load_teacher, teacher_config, train_teacher
from teachers.runs.checkpoint_files import checkpoint_steps
from teachers.runs.checkpoints import CheckpointWarning
from teachers.runs.errors import SaveError
from teachers.runs.paths import _bucket_exists, local_copy
from teachers.runs.run_log import read_metrics

pytest.importorskip("gcsfs", reason="needs gcsfs: pip install 'crl-distill[cloud]'")

from cloud_server import Cloud, RefusedError, environment, served_cloud

RUNS = "gs://lab/my runs/ü"  # names are quoted in URLs
MAIN = "from distill.cli import main; main()"
TRAIN = ["train-teacher", "reacher", *sets({k: v for k, v in TEACHER.items() if k != "steps"})]


@pytest.fixture(scope="module")
def cloud():
    with pytest.MonkeyPatch.context() as patch, served_cloud() as served:
        for name, value in environment(served).items():
            patch.setenv(name, value)
        yield served


@pytest.fixture(scope="module")
def teacher(cloud: Cloud) -> str:
    run_json(*TRAIN, "--steps", TEACHER["steps"], "--out", f"{RUNS}/teacher")
    return f"{RUNS}/teacher"


@pytest.fixture(scope="module")
def student(teacher: str) -> str:
    run_json("distill", teacher, *sets(DISTILL), "--force", "--out", f"{RUNS}/student")
    return f"{RUNS}/student"


@pytest.fixture
def restored(cloud: Cloud):
    """The cloud, whose content is afterwards as it was before."""
    before = {name: dict(objects) for name, objects in cloud.buckets.items()}
    yield cloud
    cloud.buckets.clear()
    cloud.buckets.update(before)
    cloud.failing, cloud.written = 0, str
    _bucket_exists.cache_clear()


def measured(run) -> list[dict]:
    return without_clock(read_metrics(run))


def assert_same_params(one, other) -> None:
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_teacher_in_a_cloud_is_the_one_on_a_disk(teacher, teacher_run, cloud) -> None:
    assert measured(teacher) == measured(teacher_run)
    assert checkpoint_steps(teacher) == checkpoint_steps(teacher_run)
    assert_same_params(load_teacher(teacher), load_teacher(teacher_run))
    top = {name.removeprefix("my runs/ü/teacher/").split("/")[0] for name in cloud.names()}
    assert {name.split(".out.")[0] for name in top} == {
        "checkpoints",
        "config.toml",
        "events",
        "metrics.jsonl",
    }


@pytest.mark.slow
def test_the_whole_path_in_a_cloud(student, student_run, teacher, tmp_path) -> None:
    assert measured(student) == measured(student_run)
    exported = run_json("export", student, "--out", f"{RUNS}/export")
    assert exported["parity_max_abs"] < 1e-4
    assert_refused(run("export", student, "--out", f"{RUNS}/export"), "already holds files")
    policy = exported["policy"]
    assert policy == f"{RUNS}/export/policy.onnx"
    video = f"{RUNS}/films/reach.gif"
    played = run_json("play", policy, "--episodes", 2, "--video", video, "--shown", 1)
    assert played["video"] == video
    assert epath.Path(video).read_bytes().startswith(b"GIF8")
    for path in (teacher, student, policy):
        assert run_json("info", path)["task"] == "reacher"
        assert run_json("evaluate", path, "--episodes", 4)["episodes"] == 4
    with local_copy(policy) as copy:
        assert Policy(copy, margin=None)(np.zeros(8), np.zeros(2)).shape == (2,)


@pytest.mark.slow
def test_a_comparison_in_a_cloud_goes_on_where_it_stopped(restored, teacher) -> None:
    out = epath.Path(f"{RUNS}/compare")
    plan = QUICK._replace(sizes=(DEFAULT,), methods=(), seeds=1, episodes=8)
    found = run_compare(load_teacher(teacher), out, plan, force=True)
    for name in ("students", "robustness"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    students = {path: path.stat().mtime for path in out.glob("students/*/*/config.toml")}
    assert len(students) == 2
    again = run_compare(load_teacher(teacher), out, plan, force=True)
    assert again["students"][0]["retention"] == found["students"][0]["retention"]
    assert students == {path: path.stat().mtime for path in students}


@pytest.mark.slow
def test_a_run_killed_while_it_saves_goes_on(cloud, restored, teacher_run, tmp_path) -> None:
    out = f"{RUNS}/killed"
    command = [*TRAIN, "--steps", TEACHER["steps"], "--out", out]
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, *map(str, command)], stdout=subprocess.DEVNULL
    )
    name = "my runs/ü/killed/checkpoints/160/params/manifest.ocdbt"
    cloud.written = lambda written: process.kill() if written == name else None
    assert process.wait(120) == -signal.SIGKILL
    cloud.written = str
    assert cloud.names("my runs/ü/killed/checkpoints/160/")
    assert checkpoint_steps(out) == [80]
    assert load_teacher(out).metadata.metrics["steps"] == 80
    resumed = run(*command, "--resume")
    assert resumed.exit_code == 0
    assert "160 in gs://" in resumed.stderr
    assert "was not finished" in resumed.stderr
    assert measured(out) == measured(teacher_run)
    assert checkpoint_steps(out) == [80, 160]
    assert_same_params(load_teacher(out), load_teacher(teacher_run))


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over_and_set_aside(cloud, restored, teacher) -> None:
    place = "my runs/ü/teacher/checkpoints/160/params"
    for name in cloud.names(place):
        if "/d/" in name:
            cloud.put(name, b"\0" * 100)
    with pytest.warns(CheckpointWarning, match="160 .* is damaged"):
        assert load_teacher(teacher).metadata.metrics["steps"] == 80
    again = [*TRAIN, "--steps", 240, "--out", teacher, "--resume"]
    result = run(*again)
    assert result.exit_code == 0, result.stderr
    assert checkpoint_steps(teacher) == [160, 240]
    assert cloud.names("my runs/ü/teacher/checkpoints/160.damaged/params/_METADATA")
    assert [row["step"] for row in read_metrics(teacher)] == [40, 80, 120, 160, 200, 240]


@pytest.mark.slow
@pytest.mark.parametrize(("part", "times"), [("checkpoints/160/", 0), ("metrics.jsonl", 1)])
def test_a_bucket_without_room_keeps_what_was_saved(part, times, cloud, restored) -> None:
    out = f"{RUNS}/full"
    seen: list[str] = []

    def fill(name: str) -> None:
        if f"/full/{part}" in name:
            seen.append(name)
            if len(seen) > times:
                raise RefusedError(403, "The bucket's quota is exhausted.")

    cloud.written = fill
    config = teacher_config("reacher", overrides=TEACHER)
    with pytest.raises(SaveError, match=r"(full|exhausted).*--resume.*intact"):
        train_teacher(config, out)
    cloud.written = str
    assert checkpoint_steps(out) == [80]
    train_teacher(config, out, resume=True)
    assert checkpoint_steps(out) == [80, 160]


@pytest.mark.slow
def test_archives_go_between_a_disk_and_a_cloud(cloud, restored, teacher, teacher_run, tmp_path):
    for full in ([], ["--full"]):
        for run_, file, back in (
            (teacher_run, f"{RUNS}/up.zip", f"{RUNS}/unpacked"),
            (teacher, tmp_path / "down.zip", tmp_path / "unpacked"),
        ):
            run_json("share", "pack", run_, "--out", file, *full)
            assert run_json("info", file)["task"] == "reacher"
            run_json("share", "unpack", file, "--out", back)
            assert_same_params(load_teacher(back), load_teacher(teacher_run))
        again = tmp_path / "again.zip"
        run_json("share", "pack", teacher_run, "--out", again, *full)
        assert again.read_bytes() == epath.Path(f"{RUNS}/up.zip").read_bytes()
        assert not [name for name in cloud.names() if "partial" in name]
        if full:  # what was unpacked can be trained further
            for back in (f"{RUNS}/unpacked", tmp_path / "unpacked"):
                run_json(*TRAIN, "--steps", 240, "--out", back, "--resume")
                assert checkpoint_steps(back)[-1] == 240
        epath.Path(f"{RUNS}/unpacked").rmtree()
        epath.Path(f"{RUNS}/up.zip").unlink()
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()


def test_a_run_copied_there_without_its_marks_is_explained(cloud, restored, teacher_run) -> None:
    for file in teacher_run.rglob("*"):
        if file.is_file():
            cloud.put(f"copied/{file.relative_to(teacher_run)}", file.read_bytes())
    assert_refused(run("info", "gs://lab/copied"), "no finished checkpoint", "share pack")


@pytest.mark.slow
def test_runs_go_to_the_hub_and_back(restored, teacher, hub) -> None:
    pushed = run_json("share", "push", teacher, "ada/teacher")
    pulled = run_json("share", "pull", "ada/teacher", "--out", f"{RUNS}/pulled")
    assert pulled["commit"] == pushed["commit"]
    assert_same_params(load_teacher(f"{RUNS}/pulled"), load_teacher(teacher))


@pytest.mark.slow
def test_a_sweep_and_its_specification_in_a_cloud(restored) -> None:
    spec = epath.Path("gs://lab/specs/tiny.toml")
    spec.write_text(
        'task = "reacher"\nseeds = 2\nfigures = ["curves"]\n[settings]\n'
        + "".join(
            f'"{key}" = {json.dumps(value)}\n' for key, value in (TEACHER | {"steps": 80}).items()
        )
    )
    rows = run_json("sweep", spec, "--out", f"{RUNS}/sweep")
    out = epath.Path(f"{RUNS}/sweep")
    assert json.loads((out / "results.json").read_text()) == rows
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    requests = len(restored.requests)
    assert run_json("sweep", spec, "--out", out) == rows  # nothing is trained again
    assert len(restored.requests) < requests + 300


@pytest.mark.slow
def test_a_configuration_is_read_from_a_cloud(restored, teacher) -> None:
    config = f"{teacher}/config.toml"
    again = ["train-teacher", "reacher", "--config", config, "--out", f"{RUNS}/again"]
    assert run_json(*again)["steps"] == TEACHER["steps"]
    missing = run("train-teacher", "reacher", "--config", "gs://lab/none.toml")
    assert_refused(missing, "gs://lab/none.toml", "no such file")
    restored.put("broken.toml", b"\xff = ")
    broken = run("train-teacher", "reacher", "--config", "gs://lab/broken.toml")
    assert_refused(broken, "gs://lab/broken.toml", "not valid TOML")


@pytest.mark.slow
def test_the_demo_in_a_cloud(restored, monkeypatch) -> None:
    monkeypatch.setattr(demo, "TEACHER", TEACHER)
    monkeypatch.setattr(demo, "STUDENT", DISTILL)
    monkeypatch.setattr(demo, "EPISODES", 8)
    out = epath.Path(f"{RUNS}/demo")
    for _ in range(2):  # the second replaces the first
        summary = run_json("demo", "--out", out)
        assert json.loads((out / "summary.json").read_text()) == summary
    assert {each.name for each in out.iterdir()} == {demo.MARKER, *demo.PRODUCTS} - {"onnx"}


def test_listings_are_asked_for_anew(cloud, restored, teacher) -> None:
    assert checkpoint_steps(teacher) == [80, 160]
    for name in cloud.names("my runs/ü/teacher/checkpoints/160/"):
        del cloud.buckets["lab"][name]
    assert checkpoint_steps(teacher) == [80]


def commands(at: str) -> list[list[str]]:
    return [
        ["train-teacher", "reacher", "--out", f"{at}/new"],
        ["train-teacher", "reacher", "--out", f"{at}/new", "--resume"],
        ["train-teacher", "reacher", "--config", f"{at}/config.toml"],
        ["sweep", "cpu/depth", "--out", f"{at}/new"],
        ["distill", f"{at}/teacher"],
        ["export", f"{at}/student"],
        ["evaluate", f"{at}/teacher"],
        ["evaluate", f"{at}/policy.onnx"],
        ["play", f"{at}/policy.onnx", "--video", f"{at}/film.gif"],
        ["info", f"{at}/teacher"],
        ["info", f"{at}/policy.onnx"],
        ["info", f"{at}/teacher.zip"],
        ["share", "pack", f"{at}/teacher", "--out", "teacher.zip"],
        ["share", "unpack", f"{at}/teacher.zip", "--out", "new"],
        ["share", "pull", "ada/teacher", "--out", f"{at}/new"],
        ["demo", "--out", f"{at}/new"],
        ["tasks", "reacher", "--image", f"{at}/reacher.png"],
    ]


@pytest.mark.parametrize("command", commands("gs://nowhere"), ids=" ".join)
def test_a_missing_bucket_is_refused_and_not_made(command, restored) -> None:
    assert_refused(run(*command), "gs://nowhere", "there is no bucket gs://nowhere")
    assert list(restored.buckets) == ["lab"]


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("command", commands("gs://lab"), ids=" ".join)
def test_a_bucket_of_others_is_refused(command, status, restored) -> None:
    restored.failing = status
    _bucket_exists.cache_clear()
    assert_refused(run(*command), "gs://lab", "Anonymous caller", "credentials")


def test_what_is_taken_stays_as_it_is(teacher, restored) -> None:
    before = dict(restored.buckets["lab"])
    for command in (
        ["train-teacher", "reacher", "--out", teacher],
        ["distill", teacher, "--force", "--out", teacher],
        ["share", "unpack", "x.zip", "--out", teacher],
        ["demo", "--out", teacher],
    ):
        assert_refused(run(*command), "already holds files", "nothing was overwritten")
    config = f"{teacher}/config.toml"
    assert_refused(run("train-teacher", "reacher", "--out", config), "is a file")
    assert restored.buckets["lab"] == before


@pytest.mark.parametrize("path", ["gs://lab/none", "gs://lab/none.onnx", "gs://lab/none.zip"])
def test_what_is_not_there_is_refused(path, restored) -> None:
    assert_refused(run("info", path), path, "does not exist")


def test_a_path_without_a_bucket_is_refused(restored) -> None:
    assert_refused(run("info", "gs://"), "names no bucket")


@pytest.mark.slow
def test_a_missing_file_system_is_named() -> None:
    code = f"import sys; sys.modules['gcsfs'] = None; {MAIN}"
    for command in (["info", "gs://lab/teacher"], [*TRAIN, "--out", "gs://lab/new"]):
        result = subprocess.run(
            [sys.executable, "-c", code, *map(str, command)], capture_output=True, text=True
        )
        assert result.returncode == 2
        (line,) = result.stderr.splitlines()
        assert line == f"error: {command[-1]} needs the package gcsfs; pip install gcsfs"
