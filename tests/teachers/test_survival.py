"""A training that is killed again and again."""

import random
import subprocess
import sys
import time

import pytest
from commands import set_options
from metrics import drop_timings
from tiny import TEACHER

from teachers import load_teacher
from teachers.runs.checkpoint_files import checkpoint_steps
from teachers.runs.metadata import parameter_digest
from teachers.runs.run_log import read_metrics

ITERATIONS, EVERY, PER_ITERATION = 240, 4, 40
SETTINGS = set_options(
    {**TEACHER, "steps": ITERATIONS * PER_ITERATION, "logging.checkpoint_every": EVERY}
)
# While the process starts or compiles, at a random moment of the training, or while it saves.
MOMENTS = ["starting", "saving", *5 * ("training", "saving")]


def start_training(run):
    main = "from distill.cli import main; main()"
    command = [sys.executable, "-c", main, "train-teacher", "reacher", "--out", run, "--resume"]
    return subprocess.Popen(
        [*command, *SETTINGS], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def wait_until(process, condition) -> None:
    deadline = time.monotonic() + 600
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def is_saving(run) -> bool:
    return any((run / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "moments", [pytest.param(["saving"], marks=pytest.mark.end_to_end), MOMENTS], ids=len
)
def test_train_teacher_goes_on_after_kills_as_if_nothing_had_happened(tmp_path, moments) -> None:
    uninterrupted, run, draw = tmp_path / "uninterrupted", tmp_path / "run", random.Random(0)
    assert start_training(uninterrupted).wait(600) == 0
    killed_while_saving = 0
    for moment in moments:
        steps_before = checkpoint_steps(run)
        process = start_training(run)
        if moment == "starting":
            time.sleep(draw.uniform(0.5, 6.0))
        else:
            wait_until(
                process,
                lambda before=steps_before: checkpoint_steps(run)[-1:] != before[-1:],
            )
            time.sleep(draw.uniform(0.0, 0.2))
        if moment == "saving":
            wait_until(process, lambda: is_saving(run))
            killed_while_saving += process.poll() is None
        process.kill()
        assert process.wait() == -9, process.stderr.read().decode()
        steps = checkpoint_steps(run)
        assert steps[-1:] >= steps_before[-1:]
        if steps:
            # What is lost is what was trained after the last checkpoint, and while the next one was written.
            assert read_metrics(run)[-1]["step"] - steps[-1] <= 2 * EVERY * PER_ITERATION
    last = start_training(run)
    assert last.wait(600) == 0, last.stderr.read().decode()
    assert killed_while_saving >= min(3, len(moments))
    rows = drop_timings(read_metrics(run))
    assert [row["step"] for row in rows] == [PER_ITERATION * (i + 1) for i in range(ITERATIONS)]
    assert rows == drop_timings(read_metrics(uninterrupted))
    expected = load_teacher(uninterrupted)
    assert parameter_digest(load_teacher(run).params) == parameter_digest(expected.params)
    assert not is_saving(run)
