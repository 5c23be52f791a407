import json

import imageio.v3 as imageio
import numpy as np
import pytest
from pydantic import ValidationError
from tiny import TEACHER

from teachers import InputError, load_teacher
from teachers.measures import interquartile_mean
from teachers.runs.checkpoint_files import checkpoint_steps
from teachers.sweeps import sweep
from teachers.sweeps.figures import plot_sweep
from teachers.sweeps.specification import SweepSpec, cells, read_spec, shipped
from teachers.sweeps.sweep import run_sweep

# Depth 8 is that of the other tests' teacher: its programs are compiled once.
TINY = {**TEACHER, "steps": 80}


def spec(**fields) -> SweepSpec:
    return SweepSpec(**{"task": "reacher", "settings": TINY, "seeds": 2, **fields})


def stamps(folder):
    return {file: file.stat().st_mtime_ns for file in folder.glob("**/metrics.jsonl")}


def test_a_grid_and_further_cells() -> None:
    planned = cells(
        spec(
            grid={"depth": [4, 8], "learning": {"batch": [8, 16]}},
            cells=[{"actor.depth": 4, "critic": {"depth": 12}}],
        )
    )
    assert [cell.name for cell in planned] == [
        "depth=4,learning.batch=8",
        "depth=4,learning.batch=16",
        "depth=8,learning.batch=8",
        "depth=8,learning.batch=16",
        "actor.depth=4,critic.depth=12",
    ]
    first, last = planned[0].config, planned[-1].config
    assert (first.actor.depth, first.phi.depth, first.psi.depth) == (4, 4, 4)
    assert (last.actor.depth, last.phi.depth, last.psi.depth) == (4, 12, 12)
    assert last.learning.batch == TINY["learning.batch"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"grid": {"dept": [4]}}, "unknown key 'dept' in the experiment"),
        ({"grid": {"depth": [5]}}, "depth must be a multiple of 4"),
        ({"task": "reachr"}, "reachr"),
        ({"settings": {"learning.batsch": 3}}, "did you mean 'learning.batch'"),
        ({"cells": [{"depth": 4}, {"depth": 4}]}, "cells 'depth=4' and 'depth=4' are the same"),
        ({"preset": "papr"}, "unknown preset"),
    ],
)
def test_bad_specifications_are_refused(fields, words) -> None:
    with pytest.raises(InputError, match=words):
        cells(spec(**fields))


def test_a_sweep_without_seeds_is_refused() -> None:
    with pytest.raises(ValidationError):
        spec(seeds=0)


@pytest.mark.parametrize("name", shipped())
def test_shipped_experiments_can_be_planned(name) -> None:
    title, experiment = read_spec(name)
    assert title == name.replace("/", "-")
    assert len(cells(experiment)) > 1
    assert experiment.seeds >= 3
    assert experiment.about


def test_a_missing_specification_is_refused_with_the_shipped_ones() -> None:
    with pytest.raises(InputError, match="cpu/depth"):
        read_spec("nowhere.toml")


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep") / "out"
    experiment = spec(grid={"depth": [4, 8]}, figures=["depth", "parameters", "curves"])
    return experiment, out, run_sweep(experiment, out)


def test_a_sweep_leaves_runs_results_and_figures(swept) -> None:
    _, out, rows = swept
    assert json.loads((out / "results.json").read_text()) == json.loads(json.dumps(rows))
    assert [row["cell"] for row in rows] == ["depth=4", "depth=8"]
    assert rows[0]["parameters"] < rows[1]["parameters"]
    for row in rows:
        assert len(row["success_by_seed"]) == 2
        assert row["success_ci95"][0] <= row["success"] <= row["success_ci95"][1]
        assert row["curve"]["step"] == [80]
    other = load_teacher(out / "depth=8" / "seed-1")
    assert other.metadata.config["seed"] == 1
    for figure in ("depth", "parameters", "curves"):
        picture = imageio.imread(out / f"{figure}.png")
        assert len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 20


@pytest.mark.slow
def test_a_sweep_goes_on_where_it_stopped(swept, tmp_path, monkeypatch) -> None:
    experiment, out, rows = swept
    before = stamps(out)
    reports = []
    wider = experiment.model_copy(update={"cells": [{"depth": 8, "logging.keep_checkpoints": 3}]})

    def interrupt(done, total, figures):
        reports.append((done, total))
        if done == 4 * 80 + 40:  # in the middle of the new cell's first run
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(wider, out, progress=interrupt)
    assert stamps(out).items() >= before.items()  # nothing was trained again
    again = run_sweep(wider, out)
    assert again[:2] == rows
    assert again[2]["cell"] == "depth=8,logging.keep_checkpoints=3"
    assert stamps(out).items() >= before.items()
    assert {total for _, total in reports} == {6 * 80}


def test_a_run_that_was_interrupted_goes_on_at_its_checkpoint(tmp_path) -> None:
    experiment = spec(grid={"depth": [8]}, seeds=1, settings={**TINY, "steps": 160})

    def interrupt(done, total, figures):
        if done == 120:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(experiment, tmp_path / "out", progress=interrupt)
    steps = []
    run_sweep(experiment, tmp_path / "out", progress=lambda done, total, _: steps.append(done))
    assert steps == [120, 160]


@pytest.mark.slow
def test_all_seeds_at_once_on_request(tmp_path) -> None:
    experiment = spec(grid={"depth": [8]}, at_once="all", settings={**TINY, "steps": 160})
    steps = []
    run_sweep(experiment, tmp_path / "out", progress=lambda done, total, _: steps.append(done))
    assert steps == [80, 160, 240, 320]  # of both
    seeds = [load_teacher(tmp_path / "out" / "depth=8" / f"seed-{seed}") for seed in (0, 1)]
    assert [seed.metadata.config["seed"] for seed in seeds] == [0, 1]


def test_runs_of_other_settings_are_refused_and_left_alone(swept) -> None:
    experiment, out, _ = swept
    before = stamps(out)
    other = experiment.model_copy(update={"settings": {**TINY, "learning.discount": 0.5}})
    with pytest.raises(InputError, match="trained with other settings; choose another --out"):
        run_sweep(other, out)
    assert stamps(out) == before


def test_a_run_that_diverges_is_a_result(tmp_path, monkeypatch) -> None:
    def diverge(config, runs, **_):
        for run in runs.values():
            (run / "checkpoints" / "40").mkdir(parents=True)
            row = {"step": 40, "seconds": 1.0, "skipped_updates": 101}
            (run / "metrics.jsonl").write_text(json.dumps(row))
        raise sweep.DivergedError("diverged")

    monkeypatch.setattr(sweep, "train_seeds", diverge)
    experiment = spec(grid={"depth": [4]})
    (row,) = run_sweep(experiment, tmp_path / "out")
    assert row["diverged"] == 2
    assert row["success"] == 0
    assert (tmp_path / "out" / "curves.png").is_file()
    monkeypatch.setattr(sweep, "train_seeds", lambda *_, **__: 1 / 0)
    assert run_sweep(experiment, tmp_path / "out")[0]["diverged"] == 2  # and is not trained again


def test_actor_against_critic_is_drawn(tmp_path) -> None:
    row = {"task": "reacher", "cell": "x", "varied": {}, "batch": 8, "parameters": 1}
    rows = [
        {
            **row,
            "actor_depth": a,
            "critic_depth": c,
            "time_at_goal": 0.1,
            "time_at_goal_ci95": (0, 0.2),
        }
        for a in (4, 8)
        for c in (4, 8)
    ]
    for figure in ("actor_critic", "batch"):
        plot_sweep(rows, figure, tmp_path / f"{figure}.png")
        assert imageio.imread(tmp_path / f"{figure}.png").std() > 5


def test_interquartile_mean_leaves_out_the_outer_quarters() -> None:
    assert interquartile_mean(np.array([0.0, 1.0, 2.0, 100.0])) == 1.5
    assert interquartile_mean(np.array([0.0, 1.0, 5.0])) == 2.0


@pytest.mark.slow
def test_finished_seeds_train_no_more_when_others_are_missing(swept) -> None:
    experiment, out, _ = swept
    before = stamps(out)
    run_sweep(experiment.model_copy(update={"seeds": 3}), out)
    assert stamps(out).items() >= before.items()
    assert checkpoint_steps(out / "depth=8" / "seed-2") == [80]
