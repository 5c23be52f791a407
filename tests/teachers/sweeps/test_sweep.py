import json
import shutil
from hashlib import sha256

import imageio.v3 as imageio
import numpy as np
import pytest
from edited import copy_with_metadata
from tiny import TEACHER

from teachers import InputError, load_teacher, teacher_config
from teachers.runs.checkpoint_files import checkpoint_steps
from teachers.runs.errors import DivergedError
from teachers.sweeps import sweep
from teachers.sweeps.specification import SweepSpec, expand_cells
from teachers.sweeps.sweep import run_sweep

# Cells of depth 8 share the compiled programs of other tests' trainings.
TINY = {**TEACHER, "steps": 80}


def make_spec(**fields) -> SweepSpec:
    return SweepSpec(**{"task": "reacher", "settings": TINY, "seeds": 2, **fields})


def modification_times(folder):
    return {file: file.stat().st_mtime_ns for file in folder.glob("**/metrics.jsonl")}


@pytest.fixture(scope="module")
def finished_sweep(tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep") / "out"
    experiment = make_spec(grid={"depth": [4, 8]}, figures=["depth", "parameters", "curves"])
    return experiment, out, run_sweep(experiment, out)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """A sweep of one run."""
    out = tmp_path_factory.mktemp("run") / "out"
    experiment = make_spec(grid={"depth": [8]}, seeds=1)
    return experiment, out, run_sweep(experiment, out)


@pytest.mark.slow
@pytest.mark.end_to_end
def test_run_sweep_writes_runs_results_and_figures(finished_sweep) -> None:
    _, out, rows = finished_sweep
    assert json.loads((out / "results.json").read_text()) == json.loads(json.dumps(rows))
    assert [row["cell"] for row in rows] == ["depth=4", "depth=8"]
    assert rows[0]["parameters"] < rows[1]["parameters"]
    for row in rows:
        assert len(row["success_by_seed"]) == 2
        assert row["success_ci95"][0] <= row["success"] <= row["success_ci95"][1]
        assert row["curve"]["step"] == [80]
    other = load_teacher(out / "depth=8" / "seed-1")
    assert other.config.seed == 1
    for figure in ("depth", "parameters", "curves"):
        picture = imageio.imread(out / f"{figure}.png")
        assert len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 20


@pytest.mark.slow
def test_run_sweep_goes_on_where_it_stopped(finished_sweep, tmp_path, monkeypatch) -> None:
    experiment, out, rows = finished_sweep
    before = modification_times(out)
    reports = []
    wider = experiment.model_copy(update={"cells": [{"depth": 8, "logging.keep_checkpoints": 3}]})

    def interrupt(done, total, figures):
        reports.append((done, total))
        if done == 4 * 80 + 40:  # in the middle of the new cell's first run
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(wider, out, progress=interrupt)
    assert modification_times(out).items() >= before.items()  # nothing was trained again
    again = run_sweep(wider, out)
    assert again[:2] == rows
    assert again[2]["cell"] == "depth=8,logging.keep_checkpoints=3"
    assert modification_times(out).items() >= before.items()
    assert {total for _, total in reports} == {6 * 80}


def test_run_sweep_resumes_interrupted_run_at_its_checkpoint(tmp_path) -> None:
    experiment = make_spec(grid={"depth": [8]}, seeds=1, settings={**TINY, "steps": 160})

    def interrupt(done, total, figures):
        if done == 120:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(experiment, tmp_path / "out", progress=interrupt)
    steps = []
    run_sweep(experiment, tmp_path / "out", progress=lambda done, total, _: steps.append(done))
    assert steps == [120, 160]


@pytest.mark.slow
def test_run_sweep_trains_all_seeds_at_once_on_request(tmp_path) -> None:
    experiment = make_spec(grid={"depth": [8]}, at_once="all", settings={**TINY, "steps": 160})
    steps = []
    run_sweep(experiment, tmp_path / "out", progress=lambda done, total, _: steps.append(done))
    assert steps == [80, 160, 240, 320]  # of both
    teachers = [load_teacher(tmp_path / "out" / "depth=8" / f"seed-{seed}") for seed in (0, 1)]
    assert [teacher.config.seed for teacher in teachers] == [0, 1]


def test_run_sweep_refuses_runs_of_other_settings(finished_run) -> None:
    experiment, out, _ = finished_run
    before = modification_times(out)
    other = experiment.model_copy(update={"settings": {**TINY, "learning.discount": 0.5}})
    with pytest.raises(InputError, match="trained with other settings; choose another --out"):
        run_sweep(other, out)
    assert modification_times(out) == before


def test_run_sweep_takes_runs_of_another_engine(finished_run, tmp_path) -> None:
    experiment, out, rows = finished_run
    shutil.copytree(out, tmp_path / "out")
    for file in (tmp_path / "out").rglob("config.toml"):
        file.write_text(file.read_text().replace('physics = "auto"', 'physics = "jax"'))
    assert run_sweep(experiment, tmp_path / "out") == rows


def test_run_sweep_refuses_a_cell_without_gradient_steps_before_it_trains(tmp_path) -> None:
    spec = make_spec(settings={**TINY, "rollout.prefill_steps": 20}, grid={"depth": [4, 8]})
    with pytest.raises(InputError, match="prefill_steps"):
        run_sweep(spec, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_known_task_files")
def test_run_sweep_refuses_runs_of_another_file_of_the_task(
    teacher_run, tmp_path, monkeypatch
) -> None:
    text = (
        "from teachers.tasks.reacher import Reacher\n\nclass Mine(Reacher):\n    name = 'robot'\n"
    )
    files = [tmp_path / folder / "robot.py" for folder in "abc"]
    for file, end in zip(files, ("", "    substeps = 1\n", ""), strict=True):
        file.parent.mkdir()
        file.write_text(text + end)
    specs = [make_spec(task=f"{file}:Mine", seeds=1) for file in files]
    out, digest = tmp_path / "out", sha256(files[0].read_bytes()).hexdigest()
    run = copy_with_metadata(teacher_run, out / "only" / "seed-0", task="robot", task_digest=digest)
    (run / "config.toml").write_text(expand_cells(specs[0])[0].config.to_toml())
    (out / "sweep.json").write_text("")
    monkeypatch.setattr(sweep, "train_seeds", lambda *_, **__: 1 / 0)
    for same in (specs[0], specs[2]):  # the folder does not matter
        assert run_sweep(same, out)[0]["task"] == "robot.py:Mine"
    with pytest.raises(InputError, match="seed-0 was made with another file of task 'robot'"):
        run_sweep(specs[1], out)


def test_run_sweep_records_divergence_as_a_result(tmp_path, monkeypatch) -> None:
    def diverge(config, runs, **_):
        for run in runs.values():
            (run / "checkpoints" / "40").mkdir(parents=True)
            row = {"step": 40, "seconds": 1.0, "skipped_updates": 101, "skipped_in_a_row": 101}
            (run / "metrics.jsonl").write_text(json.dumps(row))
        raise DivergedError("diverged")

    monkeypatch.setattr(sweep, "train_seeds", diverge)
    experiment = make_spec(grid={"depth": [4]})
    (row,) = run_sweep(experiment, tmp_path / "out")
    assert row["diverged"] == 2
    assert row["success"] == 0
    assert (tmp_path / "out" / "curves.png").is_file()
    monkeypatch.setattr(sweep, "train_seeds", lambda *_, **__: 1 / 0)
    assert run_sweep(experiment, tmp_path / "out")[0]["diverged"] == 2  # and is not trained again


@pytest.mark.parametrize(
    ("figures", "diverged"),
    [
        ({"skipped_updates": 500, "skipped_in_a_row": 3}, False),
        ({"skipped_updates": 500, "skipped_in_a_row": 101}, True),
        ({"skipped_updates": 101}, True),  # of an early version
        ({"skipped_updates": 100}, False),
    ],
)
def test_has_diverged_counts_skipped_steps_in_a_row(figures, diverged) -> None:
    assert sweep._has_diverged([figures], teacher_config("reacher")) == diverged


@pytest.mark.slow
def test_run_sweep_trains_missing_seeds_alone(finished_sweep) -> None:
    experiment, out, _ = finished_sweep
    before = modification_times(out)
    run_sweep(experiment.model_copy(update={"seeds": 3}), out)
    assert modification_times(out).items() >= before.items()
    assert checkpoint_steps(out / "depth=8" / "seed-2") == [80]
