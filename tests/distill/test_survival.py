"""Distillations and comparisons that are killed again and again."""

import json
import signal

import jax
import numpy as np
import pytest
from commands import set_options
from kills import kill_again_and_again, random_moments, start_python
from metrics import drop_timings
from tiny import DISTILL

from students import load_student
from teachers.runs.checkpoint_files import checkpoint_steps
from teachers.runs.layout import UNFINISHED
from teachers.runs.run_log import read_metrics

KILLS = 10
MIN_RESUMED = 3
SETTINGS = set_options({**DISTILL, "steps": 40 * 1500, "checkpoint_every": 5})
COMPARE = """
import sys
from distill import compare
from distill.compare import QUICK, run_compare
from teachers import load_teacher
compare.distill_config = lambda overrides, task, config=compare.distill_config: config(
    overrides={"steps": 40_000, "checkpoint_every": 2, **overrides}, task=task
)
plan = QUICK._replace(sizes=((2, 16),), methods=("dagger",), seeds=1, episodes=16, scratch_steps=400)
run_compare(load_teacher(sys.argv[1]), sys.argv[2], plan, force=True)
"""


def start_distillation(teacher_run, out):
    options = ["--out", out, "--resume", "--force", *SETTINGS]
    return start_python("from distill.cli import main; main()", "distill", teacher_run, *options)


def has_progress(folder) -> bool:
    """Returns whether a folder holds a checkpoint of an unfinished distillation."""
    return any(checkpoint_steps(unfinished) for unfinished in folder.rglob(UNFINISHED))


def assert_same_student(run, expected_run) -> None:
    expected, found = load_student(expected_run), load_student(run)
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)
    assert drop_timings(read_metrics(run)) == drop_timings(read_metrics(expected_run))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_distill_teacher_goes_on_after_kills_as_if_nothing_had_happened(
    number, teacher_run, tmp_path
) -> None:
    expected, run = tmp_path / "expected", tmp_path / "run"
    assert start_distillation(teacher_run, expected).wait(600) == 0
    moments = random_moments(KILLS, 8.0, 16.0)
    resumed = kill_again_and_again(
        lambda: start_distillation(teacher_run, run), moments, number, lambda: has_progress(run)
    )
    assert resumed >= MIN_RESUMED
    assert_same_student(run, expected)
    assert sorted(path.name for path in run.iterdir() if "events" not in path.name) == [
        "checkpoints", "config.toml", "metrics.jsonl",
    ]  # fmt: skip


@pytest.mark.slow
def test_compare_goes_on_after_kills_as_if_nothing_had_happened(teacher_run, tmp_path) -> None:
    expected, out = tmp_path / "expected", tmp_path / "out"
    assert start_python(COMPARE, teacher_run, expected).wait(900) == 0
    moments = random_moments(KILLS, 5.0, 40.0)
    resumed = kill_again_and_again(
        lambda: start_python(COMPARE, teacher_run, out),
        moments,
        signal.SIGKILL,
        lambda: has_progress(out),
    )
    assert resumed >= MIN_RESUMED
    for config in expected.rglob("config.toml"):
        assert_same_student(out / config.parent.relative_to(expected), config.parent)
    results = [
        _drop_clocks(json.loads((path / "compare.json").read_text(encoding="utf-8")))
        for path in (out, expected)
    ]
    assert results[0] == results[1]
    assert not list(out.rglob(".lock"))


def _drop_clocks(value):
    if isinstance(value, dict):
        return {
            k: _drop_clocks(v)
            for k, v in value.items()
            if "seconds" not in k and "latency" not in k and "label_share" not in k
        }
    return [_drop_clocks(each) for each in value] if isinstance(value, list) else value
