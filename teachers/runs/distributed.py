"""Training with several processes, on one machine or several, connected by JAX's distributed runtime."""

import os

import jax

from teachers.runs.errors import InputError

TIMEOUT = 300  # seconds to wait for the other processes


def join_processes(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Connects this process with the other processes of a run; does nothing if it is the only one.

    To be called before JAX computes anything. Without arguments, processes that SLURM's `srun` started find each other.

    Args:
        coordinator: `HOST:PORT` of the first process.
        processes: number of processes.
        process: index of this process, from 0.

    Raises:
        InputError: an argument is missing or wrong, or the other processes do not connect in time.
    """
    if (coordinator, processes, process) == (None, None, None):
        # A step of SLURM with one task, such as the batch script itself, is the only process.
        if os.environ.get("SLURM_STEP_NUM_TASKS", "1") not in ("", "1"):
            _initialize()
        return
    if coordinator is None or processes is None or process is None:
        raise InputError(
            "--coordinator, --processes and --process belong together (or the variables JAX_COORDINATOR_ADDRESS, "
            "JAX_NUM_PROCESSES and JAX_PROCESS_ID): give all three"
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(f"--coordinator {coordinator!r}: write it as HOST:PORT")
    if not 0 <= process < processes:
        raise InputError(
            f"--process {process}: of {processes} processes they are 0 to {processes - 1}"
        )
    _initialize(coordinator, processes, process)


def _initialize(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    try:
        jax.distributed.initialize(coordinator, processes, process, initialization_timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"the processes of this run do not find each other: {reason}") from None
