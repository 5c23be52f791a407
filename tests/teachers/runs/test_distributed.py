"""Two processes of this machine that train together, as two machines would do."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import pytest
from commands import set_options
from metrics import assert_same_training
from tiny import TEACHER

from teachers import InputError, load_teacher, teacher_config, train_teacher
from teachers.runs.checkpoint_files import checkpoint_steps
from teachers.runs.distributed import join_processes
from teachers.runs.run_log import read_metrics

MAIN = "from distill.cli import main; main()"


def start_training(run, *options, variables=({}, {})):
    """Starts a process of `train-teacher` for each set of environment variables; they share the folder of the run."""
    settings = set_options(TEACHER)
    return [
        subprocess.Popen(
            [sys.executable, "-c", MAIN, "train-teacher", "reacher", "--out", run, *settings]
            + [str(option) for option in options]
            + ["--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **added},
        )
        for added in variables
    ]


def jax_variables(process: int, port: int) -> dict[str, str]:
    return {
        "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": str(process),
    }


def slurm_variables(process: int, port: int) -> dict[str, str]:
    return {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": str(process),
        "SLURM_LOCALID": str(process),
        "JAX_COORDINATOR_PORT": str(port),
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


def wait_for(processes, timeout=300):
    """Waits for processes, and returns the exit code, stdout and stderr of each."""
    try:
        outputs = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [
        (process.returncode, *output) for process, output in zip(processes, outputs, strict=True)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "make_variables",
    [pytest.param(jax_variables, marks=pytest.mark.end_to_end), slurm_variables],
)
def test_train_teacher_is_the_same_in_two_processes(teacher_run, tmp_path, make_variables) -> None:
    port, run = free_port(), tmp_path / "run"
    first, second = wait_for(
        start_training(run, variables=[make_variables(i, port) for i in range(2)])
    )
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert '"steps": 160' in first[1]
    assert "{" not in second[1]  # only the first process prints
    assert_same_training(run, teacher_run)
    assert checkpoint_steps(run)[-1] == 160
    assert load_teacher(run).metadata.metrics["steps"] == 160
    # One process resumes the run of two.
    shutil.rmtree(run / "checkpoints" / "160")
    train_teacher(teacher_config("reacher", overrides=TEACHER), run, resume=True)
    assert_same_training(run, teacher_run)


@pytest.mark.slow
def test_train_teacher_stops_and_resumes_in_two_processes(teacher_run, tmp_path) -> None:
    run, port = tmp_path / "run", free_port()
    variables = [jax_variables(i, port) for i in range(2)]
    longer = set_options({"steps": 200_000, "logging.checkpoint_every": 100_000})
    processes = start_training(run, *longer, variables=variables)
    deadline = time.monotonic() + 240
    while not (run / "metrics.jsonl").exists() or not (run / "metrics.jsonl").read_text():
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    first, second = wait_for(processes)
    assert (first[0], second[0]) == (143, 143), first[2] + second[2]
    assert "is saved; to go on, give the same command" in first[2]
    (step,) = checkpoint_steps(run)
    assert step == read_metrics(run)[-1]["step"]
    port = free_port()
    variables = [jax_variables(i, port) for i in range(2)]
    more = [*set_options({"steps": step + 80}), "--resume"]
    first, second = wait_for(start_training(run, *more, variables=variables))
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert [row["step"] for row in read_metrics(run)] == list(range(40, step + 81, 40))


@pytest.mark.slow
def test_train_teacher_refuses_used_folder_in_two_processes(tmp_path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("")
    port = free_port()
    options = ["--coordinator", f"localhost:{port}", "--processes", 2, "--process"]
    processes = [start_training(tmp_path / "run", *options, i, variables=[{}])[0] for i in range(2)]
    for code, _, stderr in wait_for(processes):
        assert code == 2
        assert "already holds files" in stderr


def test_join_processes_refuses_incomplete_and_wrong_options() -> None:
    with pytest.raises(InputError, match="belong together"):
        join_processes("localhost:1234", None, None)
    with pytest.raises(InputError, match="write it as HOST:PORT"):
        join_processes("localhost", 2, 0)
    with pytest.raises(InputError, match="--process 2: of 2 processes they are 0 to 1"):
        join_processes("localhost:1234", 2, 2)


def test_join_processes_does_nothing_for_one_process(monkeypatch) -> None:
    join_processes(None, None, None)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")  # a batch script
    join_processes(None, None, None)
    assert jax.process_count() == 1
