"""Runs and outputs on gs://, with TensorStore, Orbax and gcsfs, and a local server in place of Google Cloud Storage."""

import json
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import jax
import numpy as np
import pytest
from commands import assert_refused, run, run_json, set_options
from etils import epath
from metrics import drop_timings
from tiny import DISTILL, TEACHER

from distill import demo
from distill.compare import DEFAULT_SIZE, QUICK, run_compare
from export import Policy
from teachers import InputError, load_teacher, teacher_config, train_teacher
from teachers.runs import lock
from teachers.runs.checkpoint_files import checkpoint_steps
from teachers.runs.checkpoints import CheckpointWarning
from teachers.runs.errors import SaveError
from teachers.runs.lock import lock_folder
from teachers.runs.paths import _bucket_exists, local_copy, require_reachable
from teachers.runs.run_log import read_metrics

pytest.importorskip("gcsfs", reason="needs gcsfs: pip install 'crl-distill[cloud]'")

from cloud_server import Cloud, RefusedError, environment, serve_cloud

RUNS = "gs://lab/my runs/ü"  # characters that have to be quoted in URLs
MAIN = "from distill.cli import main; main()"
TRAIN = [
    "train-teacher",
    "reacher",
    *set_options({k: v for k, v in TEACHER.items() if k != "steps"}),
]


@pytest.fixture(scope="module")
def cloud():
    with pytest.MonkeyPatch.context() as patch, serve_cloud() as served:
        patch.setattr(lock, "SETTLE", 0.1)
        for name, value in environment(served).items():
            patch.setenv(name, value)
        yield served


@pytest.fixture(scope="module")
def cloud_teacher(cloud: Cloud) -> str:
    run_json(*TRAIN, "--steps", TEACHER["steps"], "--out", f"{RUNS}/teacher")
    return f"{RUNS}/teacher"


@pytest.fixture(scope="module")
def cloud_student(cloud_teacher: str) -> str:
    run_json("distill", cloud_teacher, *set_options(DISTILL), "--force", "--out", f"{RUNS}/student")
    return f"{RUNS}/student"


@pytest.fixture
def restored_cloud(cloud: Cloud):
    """Returns the cloud, and restores its content after the test."""
    before = {name: dict(objects) for name, objects in cloud.buckets.items()}
    yield cloud
    cloud.buckets.clear()
    cloud.buckets.update(before)
    cloud.failing, cloud.written = 0, str
    _bucket_exists.cache_clear()


def read_comparable_metrics(run) -> list[dict]:
    return drop_timings(read_metrics(run))


def assert_same_params(one, other) -> None:
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_train_teacher_is_the_same_in_cloud(cloud_teacher, teacher_run, cloud) -> None:
    assert read_comparable_metrics(cloud_teacher) == read_comparable_metrics(teacher_run)
    assert checkpoint_steps(cloud_teacher) == checkpoint_steps(teacher_run)
    assert_same_params(load_teacher(cloud_teacher), load_teacher(teacher_run))
    top = {name.removeprefix("my runs/ü/teacher/").split("/")[0] for name in cloud.names()}
    assert {name.split(".out.")[0] for name in top} == {
        "checkpoints",
        "config.toml",
        "events",
        "metrics.jsonl",
    }


@pytest.mark.slow
@pytest.mark.end_to_end
def test_commands_work_in_cloud_from_export_to_play(
    cloud_student, student_run, cloud_teacher, tmp_path
) -> None:
    assert read_comparable_metrics(cloud_student) == read_comparable_metrics(student_run)
    exported = run_json("export", cloud_student, "--out", f"{RUNS}/export")
    assert exported["parity_max_abs"] < 1e-4
    assert_refused(run("export", cloud_student, "--out", f"{RUNS}/export"), "already holds files")
    policy = exported["policy"]
    assert policy == f"{RUNS}/export/policy.onnx"
    video = f"{RUNS}/films/reach.gif"
    played = run_json("play", policy, "--episodes", 2, "--video", video, "--shown", 1)
    assert played["video"] == video
    assert epath.Path(video).read_bytes().startswith(b"GIF8")
    for path in (cloud_teacher, cloud_student, policy):
        assert run_json("info", path)["task"] == "reacher"
        assert run_json("evaluate", path, "--episodes", 4)["episodes"] == 4
    with local_copy(policy) as copy:
        assert Policy(copy, margin=None)(np.zeros(8), np.zeros(2)).shape == (2,)


@pytest.mark.slow
def test_run_compare_resumes_in_cloud(restored_cloud, cloud_teacher) -> None:
    out = epath.Path(f"{RUNS}/compare")
    plan = QUICK._replace(sizes=(DEFAULT_SIZE,), methods=(), seeds=1, episodes=8)
    found = run_compare(load_teacher(cloud_teacher), out, plan, force=True)
    for name in ("students", "robustness"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    students = {path: path.stat().mtime for path in out.glob("students/*/*/config.toml")}
    assert len(students) == 2
    again = run_compare(load_teacher(cloud_teacher), out, plan, force=True)
    assert again["students"][0]["retention"] == found["students"][0]["retention"]
    assert students == {path: path.stat().mtime for path in students}


@pytest.mark.slow
def test_train_teacher_resumes_in_cloud_after_kill_during_save(
    cloud, restored_cloud, teacher_run, tmp_path
) -> None:
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
    assert read_comparable_metrics(out) == read_comparable_metrics(teacher_run)
    assert checkpoint_steps(out) == [80, 160]
    assert_same_params(load_teacher(out), load_teacher(teacher_run))


@pytest.mark.slow
def test_train_teacher_sets_damaged_checkpoint_aside_in_cloud(
    cloud, restored_cloud, cloud_teacher
) -> None:
    place = "my runs/ü/teacher/checkpoints/160/params"
    for name in cloud.names(place):
        if "/d/" in name:
            cloud.put(name, b"\0" * 100)
    with pytest.warns(CheckpointWarning, match="160 .* is damaged"):
        assert load_teacher(cloud_teacher).metadata.metrics["steps"] == 80
    again = [*TRAIN, "--steps", 240, "--out", cloud_teacher, "--resume"]
    result = run(*again)
    assert result.exit_code == 0, result.stderr
    assert checkpoint_steps(cloud_teacher) == [160, 240]
    assert cloud.names("my runs/ü/teacher/checkpoints/160.damaged/params/_METADATA")
    assert [row["step"] for row in read_metrics(cloud_teacher)] == [40, 80, 120, 160, 200, 240]


@pytest.mark.slow
@pytest.mark.parametrize(("part", "times"), [("checkpoints/160/", 0), ("metrics.jsonl", 1)])
def test_train_teacher_keeps_checkpoints_in_full_bucket(part, times, cloud, restored_cloud) -> None:
    out = f"{RUNS}/full"
    matching: list[str] = []

    def fill(name: str) -> None:
        if f"/full/{part}" in name:
            matching.append(name)
            if len(matching) > times:
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
def test_share_packs_and_unpacks_between_disk_and_cloud(
    cloud, restored_cloud, cloud_teacher, teacher_run, tmp_path
) -> None:
    for full in ([], ["--full"]):
        for run_, file, back in (
            (teacher_run, f"{RUNS}/up.zip", f"{RUNS}/unpacked"),
            (cloud_teacher, tmp_path / "down.zip", tmp_path / "unpacked"),
        ):
            run_json("share", "pack", run_, "--out", file, *full)
            assert run_json("info", file)["task"] == "reacher"
            run_json("share", "unpack", file, "--out", back)
            assert_same_params(load_teacher(back), load_teacher(teacher_run))
        again = tmp_path / "again.zip"
        run_json("share", "pack", teacher_run, "--out", again, *full)
        assert again.read_bytes() == epath.Path(f"{RUNS}/up.zip").read_bytes()
        assert not [name for name in cloud.names() if "partial" in name]
        if full:  # an unpacked full run can be resumed
            for back in (f"{RUNS}/unpacked", tmp_path / "unpacked"):
                run_json(*TRAIN, "--steps", 240, "--out", back, "--resume")
                assert checkpoint_steps(back)[-1] == 240
        epath.Path(f"{RUNS}/unpacked").rmtree()
        epath.Path(f"{RUNS}/up.zip").unlink()
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()


def test_require_checkpoints_explains_unmarked_copy_in_cloud(
    cloud, restored_cloud, teacher_run
) -> None:
    for file in teacher_run.rglob("*"):
        if file.is_file():
            cloud.put(f"copied/{file.relative_to(teacher_run)}", file.read_bytes())
    assert_refused(run("info", "gs://lab/copied"), "no finished checkpoint", "share pack")


@pytest.mark.slow
def test_share_pushes_and_pulls_run_in_cloud(restored_cloud, cloud_teacher, hub) -> None:
    pushed = run_json("share", "push", cloud_teacher, "ada/teacher")
    pulled = run_json("share", "pull", "ada/teacher", "--out", f"{RUNS}/pulled")
    assert pulled["commit"] == pushed["commit"]
    assert_same_params(load_teacher(f"{RUNS}/pulled"), load_teacher(cloud_teacher))


@pytest.mark.slow
def test_sweep_reads_specification_and_writes_results_in_cloud(restored_cloud) -> None:
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
    requests = len(restored_cloud.requests)
    assert run_json("sweep", spec, "--out", out) == rows  # nothing is trained a second time
    assert len(restored_cloud.requests) < requests + 300


@pytest.mark.slow
def test_read_toml_reads_cloud(restored_cloud, cloud_teacher) -> None:
    config = f"{cloud_teacher}/config.toml"
    again = ["train-teacher", "reacher", "--config", config, "--out", f"{RUNS}/again"]
    assert run_json(*again)["steps"] == TEACHER["steps"]
    missing = run("train-teacher", "reacher", "--config", "gs://lab/none.toml")
    assert_refused(missing, "gs://lab/none.toml", "no such file")
    restored_cloud.put("broken.toml", b"\xff = ")
    broken = run("train-teacher", "reacher", "--config", "gs://lab/broken.toml")
    assert_refused(broken, "gs://lab/broken.toml", "not valid TOML")


@pytest.mark.slow
def test_demo_replaces_earlier_demo_in_cloud(restored_cloud, monkeypatch) -> None:
    monkeypatch.setattr(demo, "TEACHER", TEACHER)
    monkeypatch.setattr(demo, "STUDENT", DISTILL)
    monkeypatch.setattr(demo, "EPISODES", 8)
    out = epath.Path(f"{RUNS}/demo")
    for _ in range(2):  # the second replaces the first
        summary = run_json("demo", "--out", out)
        assert json.loads((out / "summary.json").read_text()) == summary
    assert {each.name for each in out.iterdir()} == {demo.MARKER, *demo.PRODUCTS} - {"onnx"}


@pytest.fixture
def short_lock_times(monkeypatch) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.05)
    monkeypatch.setattr(lock, "PATIENCE", 1.0)
    monkeypatch.setattr(lock, "SETTLE", 0.3)


@pytest.mark.usefixtures("short_lock_times")
def test_lock_folder_has_one_owner_in_cloud(restored_cloud) -> None:
    def hold(_: int) -> bool:
        with suppress(InputError), lock_folder(f"{RUNS}/locked"):
            time.sleep(1)
            return True
        return False

    with ThreadPoolExecutor() as threads:
        assert sum(threads.map(hold, range(3))) == 1
    assert restored_cloud.names("my runs/ü/locked") == []


@pytest.mark.usefixtures("short_lock_times")
def test_lock_folder_takes_lock_of_killed_process_in_cloud(restored_cloud) -> None:
    content = {"host": "elsewhere", "process": 7, "kernel": "x", "token": "x", "beat": 1}
    restored_cloud.put("my runs/ü/killed/.lock", json.dumps(content).encode())
    with (
        lock_folder(f"{RUNS}/killed"),
        pytest.raises(InputError, match="is being written by process"),
        lock_folder(f"{RUNS}/killed"),
    ):
        pass


@pytest.mark.usefixtures("short_lock_times")
def test_lock_is_lost_where_another_process_took_it_in_cloud_and_ended(restored_cloud) -> None:
    folder = f"{RUNS}/taken"
    with lock_folder(folder):
        (epath.Path(folder) / lock.LOCK).unlink()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not lock.lock_is_lost(folder):
            time.sleep(0.01)
        assert lock.lock_is_lost(folder)
    assert restored_cloud.names("my runs/ü/taken") == []


@pytest.mark.parametrize("name", ["lr[0.1]", "exp?", "a*"])
def test_require_reachable_refuses_patterns_in_cloud(name, restored_cloud) -> None:
    with pytest.raises(InputError, match="which its file systems take for a pattern"):
        require_reachable(f"gs://lab/{name}")


def test_checkpoint_steps_lists_cloud_anew(cloud, restored_cloud, cloud_teacher) -> None:
    assert checkpoint_steps(cloud_teacher) == [80, 160]
    for name in cloud.names("my runs/ü/teacher/checkpoints/160/"):
        del cloud.buckets["lab"][name]
    assert checkpoint_steps(cloud_teacher) == [80]


def commands_with_path(path: str) -> list[list[str]]:
    return [
        ["train-teacher", "reacher", "--out", f"{path}/new"],
        ["train-teacher", "reacher", "--out", f"{path}/new", "--resume"],
        ["train-teacher", "reacher", "--config", f"{path}/config.toml"],
        ["sweep", "cpu/depth", "--out", f"{path}/new"],
        ["distill", f"{path}/teacher"],
        ["export", f"{path}/student"],
        ["evaluate", f"{path}/teacher"],
        ["evaluate", f"{path}/policy.onnx"],
        ["play", f"{path}/policy.onnx", "--video", f"{path}/film.gif"],
        ["info", f"{path}/teacher"],
        ["info", f"{path}/policy.onnx"],
        ["info", f"{path}/teacher.zip"],
        ["share", "pack", f"{path}/teacher", "--out", "teacher.zip"],
        ["share", "unpack", f"{path}/teacher.zip", "--out", "new"],
        ["share", "pull", "ada/teacher", "--out", f"{path}/new"],
        ["demo", "--out", f"{path}/new"],
        ["tasks", "reacher", "--image", f"{path}/reacher.png"],
    ]


@pytest.mark.parametrize("command", commands_with_path("gs://nowhere"), ids=" ".join)
def test_require_reachable_refuses_missing_bucket_in_all_commands(command, restored_cloud) -> None:
    assert_refused(run(*command), "gs://nowhere", "there is no bucket gs://nowhere")
    assert list(restored_cloud.buckets) == ["lab"]


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("command", commands_with_path("gs://lab"), ids=" ".join)
def test_translate_storage_errors_reports_refused_access_in_all_commands(
    command, status, restored_cloud
) -> None:
    restored_cloud.failing = status
    _bucket_exists.cache_clear()
    assert_refused(run(*command), "gs://lab", "Anonymous caller", "credentials")


def test_require_unused_protects_used_paths_in_cloud(cloud_teacher, restored_cloud) -> None:
    before = dict(restored_cloud.buckets["lab"])
    for command in (
        ["train-teacher", "reacher", "--out", cloud_teacher],
        ["distill", cloud_teacher, "--force", "--out", cloud_teacher],
        ["share", "unpack", "x.zip", "--out", cloud_teacher],
        ["demo", "--out", cloud_teacher],
    ):
        assert_refused(run(*command), "already holds files", "nothing was overwritten")
    config = f"{cloud_teacher}/config.toml"
    assert_refused(run("train-teacher", "reacher", "--out", config), "is a file")
    assert restored_cloud.buckets["lab"] == before


@pytest.mark.parametrize("path", ["gs://lab/none", "gs://lab/none.onnx", "gs://lab/none.zip"])
def test_info_refuses_missing_path_in_cloud(path, restored_cloud) -> None:
    assert_refused(run("info", path), path, "does not exist")


def test_require_reachable_refuses_path_without_bucket(restored_cloud) -> None:
    assert_refused(run("info", "gs://"), "names no bucket")


@pytest.mark.slow
def test_translate_storage_errors_names_missing_package() -> None:
    code = f"import sys; sys.modules['gcsfs'] = None; {MAIN}"
    for command in (["info", "gs://lab/teacher"], [*TRAIN, "--out", "gs://lab/new"]):
        result = subprocess.run(
            [sys.executable, "-c", code, *map(str, command)], capture_output=True, text=True
        )
        assert result.returncode == 2
        (line,) = result.stderr.splitlines()
        assert line == f"error: {command[-1]} needs the package gcsfs; pip install gcsfs"
