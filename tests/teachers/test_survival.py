"""A real run that is killed again and again."""

import random
import subprocess
import sys
import time

import pytest
from commands import sets
from metrics import drop_timings
from tiny import TEACHER

from teachers import load_teacher
from teachers.runs.checkpoint_files import checkpoint_steps
from teachers.runs.metadata import parameter_digest
from teachers.runs.run_log import read_metrics

ITERATIONS, EVERY, PER_ITERATION = 240, 4, 40
SETTINGS = sets({**TEACHER, "steps": ITERATIONS * PER_ITERATION, "logging.checkpoint_every": EVERY})
KILLS = 12


def started(run):
    main = "from distill.cli import main; main()"
    command = [sys.executable, "-c", main, "train-teacher", "reacher", "--out", run, "--resume"]
    return subprocess.Popen(
        [*command, *SETTINGS], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def until(process, reached) -> None:
    deadline = time.monotonic() + 120
    while not reached() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def saving(run) -> bool:
    return any((run / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


@pytest.mark.slow
def test_a_run_killed_at_any_moment_goes_on_as_if_nothing_had_happened(tmp_path) -> None:
    calm, run, draw = tmp_path / "calm", tmp_path / "run", random.Random(0)
    assert started(calm).wait(300) == 0
    during_a_save = 0
    for kill in range(KILLS):
        there = checkpoint_steps(run)
        process = started(run)
        # Killed while it starts or compiles, at a random moment of the training, or while it saves.
        if kill in (0, 5):
            time.sleep(draw.uniform(0.5, 6.0))
        else:
            until(process, lambda before=there: checkpoint_steps(run)[-1:] != before[-1:])
            time.sleep(draw.uniform(0.0, 0.2))
        if kill % 2:
            until(process, lambda: saving(run))
            during_a_save += process.poll() is None
        process.kill()
        assert process.wait() == -9, process.stderr.read().decode()
        now = checkpoint_steps(run)
        assert now[-1:] >= there[-1:]
        if now:
            # What is lost is what came after the last checkpoint, and what was trained while the next was written.
            assert read_metrics(run)[-1]["step"] - now[-1] <= 2 * EVERY * PER_ITERATION
    last = started(run)
    assert last.wait(300) == 0, last.stderr.read().decode()
    assert during_a_save >= 3
    ours, others = (drop_timings(read_metrics(each)) for each in (run, calm))
    assert [row["step"] for row in ours] == [PER_ITERATION * (i + 1) for i in range(ITERATIONS)]
    assert ours == others
    assert parameter_digest(load_teacher(run).params) == parameter_digest(load_teacher(calm).params)
    assert not saving(run)
