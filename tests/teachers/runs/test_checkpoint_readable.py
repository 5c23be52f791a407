import errno
import os
import shutil
import subprocess
import sys

import pytest
from privileges import give_to_other_user, without_privileges
from tiny import TEACHER

from teachers import InputError, load_teacher, teacher_config, train_teacher
from teachers.runs import checkpoints
from teachers.runs.checkpoint_files import checkpoint_steps
from teachers.runs.checkpoints import DamagedError

OPEN = """
import sys
from teachers import InputError, load_teacher
try:
    load_teacher(sys.argv[1])
except InputError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""
TENSORSTORE_ERROR = "INTERNAL: Failed to open: Too many open files [os_error_code='24']"
FAULTS = {
    "limit": (ValueError(TENSORSTORE_ERROR), os.strerror(errno.EMFILE)),
    "access": (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "x"), "Permission denied"),
    "time": (ValueError("DEADLINE_EXCEEDED: no answer in 60 s"), "no answer in 60 s"),
    "network": (TimeoutError(), "TimeoutError"),
    "storage": (OSError(errno.EIO, os.strerror(errno.EIO)), os.strerror(errno.EIO)),
}


@pytest.fixture
def run(teacher_run, tmp_path):
    """A copy of the tiny teacher's run."""
    return shutil.copytree(teacher_run, tmp_path / "run")


@pytest.mark.parametrize("item", [pytest.param("metadata", marks=pytest.mark.slow), "params"])
def test_load_teacher_says_that_files_may_not_be_read(item, run) -> None:
    give_to_other_user(run / "checkpoints" / "160" / item, 0o200)
    command = without_privileges([sys.executable, "-c", OPEN, str(run)])
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "UnreadableError: cannot read checkpoint 160 in" in result.stderr
    assert "Permission denied" in result.stderr


@pytest.mark.parametrize("fault", list(FAULTS))
def test_require_readable_gives_reason_and_nothing_is_renamed(fault, run, monkeypatch) -> None:
    error, reason = FAULTS[fault]

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(checkpoints, "_read_with_orbax", fail)
    config = teacher_config("reacher", overrides={**TEACHER, "steps": 200})
    for read in (lambda: load_teacher(run), lambda: train_teacher(config, run, resume=True)):
        with pytest.raises(InputError, match=reason) as caught:
            read()
        assert not isinstance(caught.value, DamagedError)
    assert checkpoint_steps(run)[-1] == 160


def test_restore_items_tries_again_after_a_passing_fault(run, monkeypatch) -> None:
    read, failures = checkpoints._read_with_orbax, [ValueError("a passing fault")]

    def fail_once(*arguments):
        if failures:
            raise failures.pop()
        return read(*arguments)

    monkeypatch.setattr(checkpoints, "_read_with_orbax", fail_once)
    assert load_teacher(run).metadata.metrics["steps"] == 160


def test_restore_items_calls_damaged_what_was_read_and_does_not_match(run) -> None:
    for file in (run / "checkpoints" / "160" / "params").rglob("*"):
        if file.is_file():
            file.write_bytes(b"something else")
    with pytest.raises(DamagedError, match=r"checkpoint 160 in .* is damaged"):
        load_teacher(run, checkpoint=160)
