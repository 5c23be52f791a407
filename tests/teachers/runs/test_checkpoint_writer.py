import errno
import os
import resource
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from commands import set_options
from tiny import TEACHER

from teachers.runs.checkpoint_files import checkpoint_steps
from teachers.runs.checkpoint_writer import CheckpointWriter, SaveError, means_full_disk
from teachers.runs.checkpoints import read_items, read_metadata


@pytest.fixture
def describe(teacher_run):
    metadata = read_metadata(teacher_run)

    def describe_step(step, score=None):
        figures = {"steps": step, "evaluated_at": step, "time_at_goal": score}
        return metadata.model_copy(update={"metrics": figures})

    return describe_step


def save_all(run, describe, scores, **options):
    """Saves a checkpoint for each step and score, and returns the steps of those that are left."""
    with CheckpointWriter(run, **options) as checkpoints:
        for step, score in scores.items():
            checkpoints.save(step, describe(step, score), {"params": {"x": jnp.full(3, step)}})
    return checkpoint_steps(run)


def test_checkpoint_writer_keeps_newest(tmp_path, describe) -> None:
    scores = {1: 0.9, 2: 0.2, 3: 0.1, 4: 0.1}
    assert save_all(tmp_path, describe, scores, keep=2) == [3, 4]
    items = read_items(tmp_path, 4, {"params": {"x": jnp.zeros(3, jnp.int32)}}, describe(4))
    np.testing.assert_array_equal(items["params"]["x"], np.full(3, 4))


def test_checkpoint_writer_keeps_best_also_after_resume(tmp_path, describe) -> None:
    scores = {1: 0.3, 2: 0.9, 3: 0.1, 4: 0.1}
    assert save_all(tmp_path, describe, scores, keep=2, keep_best=True) == [2, 3, 4]
    assert save_all(tmp_path, describe, {5: 0.2, 6: 0.5}, keep=1, keep_best=True) == [2, 6]
    assert save_all(tmp_path, describe, {7: 0.95, 8: 0.5}, keep=1, keep_best=True) == [7, 8]


def test_checkpoint_writer_saves_arrays_that_are_deleted_afterwards(tmp_path, describe) -> None:
    array = np.arange(100_000, dtype=np.float32)
    state = jnp.array(array)
    with CheckpointWriter(tmp_path) as checkpoints:
        checkpoints.save(1, describe(1), {"params": {"x": state}})
        state.delete()
        others = [jnp.zeros(100_000) for _ in range(8)]  # may reuse its memory
    assert len(others) == 8
    items = read_items(tmp_path, 1, {"params": {"x": jnp.zeros(100_000)}}, describe(1))
    np.testing.assert_array_equal(items["params"]["x"], array)


@pytest.fixture
def small_files():
    """Makes writing more than a megabyte to a file fail, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_checkpoint_writer_reports_full_disk_and_keeps_old_checkpoints(
    describe, tmp_path, small_files
) -> None:
    big = jnp.asarray(np.random.default_rng(0).standard_normal(2_000_000, np.float32))
    save_all(tmp_path, describe, {1: 0.5}, keep=2)
    with (
        pytest.raises(SaveError, match="the disk is full; make room there") as caught,
        CheckpointWriter(tmp_path, keep=2) as checkpoints,
    ):
        checkpoints.save(2, describe(2), {"params": {"x": big}})
    assert "with --resume" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path / "checkpoints") == ["1"]


COMMAND_ON_FULL_DISK = """
import resource, signal, sys
from distill.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
main()
"""


@pytest.mark.slow
def test_train_teacher_command_reports_full_disk(tmp_path) -> None:
    settings = set_options({**TEACHER, "rollout.replay_steps": 4000})
    command = [
        sys.executable,
        "-c",
        COMMAND_ON_FULL_DISK,
        "train-teacher",
        "reacher",
        "--out",
        tmp_path / "run",
    ]
    ended = subprocess.run([*command, *settings], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert ended.stdout == ""
    *_, last = ended.stderr.strip().splitlines()
    assert last.startswith("error: cannot write a checkpoint in ")
    assert "the disk is full; make room there; to go on, give the same command" in last
    assert "Traceback" not in ended.stderr


def test_means_full_disk_recognises_errors() -> None:
    assert means_full_disk(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert means_full_disk(
        ValueError("RESOURCE_EXHAUSTED: Error writing file: No space left on device")
    )
    assert not means_full_disk(OSError(errno.EACCES, os.strerror(errno.EACCES)))
    outer = RuntimeError("save failed")
    outer.__cause__ = OSError(errno.ENOSPC, "no room")
    assert means_full_disk(outer)


def test_checkpoint_writer_names_unwritable_folder(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match=r"cannot write a checkpoint in .*file"):
        CheckpointWriter(tmp_path / "file")
