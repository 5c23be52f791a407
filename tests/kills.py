"""Processes that are killed at random moments, for tests of what survives that."""

import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence


def start_python(code: str, *arguments: object) -> subprocess.Popen[bytes]:
    """Starts a Python program in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def kill_again_and_again(
    start: Callable[[], subprocess.Popen[bytes]],
    seconds: Sequence[float],
    signal_number: int,
    has_progress: Callable[[], bool],
) -> int:
    """Starts a process again and again, sends it a signal after so many seconds, and lets the last one end.

    Args:
        start: starts the process.
        seconds: until the signal, of each process but the last.
        signal_number: the signal.
        has_progress: returns whether the next process goes on from a checkpoint.

    Returns:
        How many of the processes were still running when they got the signal, and left a checkpoint to go on from.
    """
    killed = 0
    for delay in seconds:
        process = start()
        time.sleep(delay)
        was_running = process.poll() is None
        process.send_signal(signal_number)
        _, error = process.communicate(timeout=600)
        killed += was_running and has_progress()
        assert b"Traceback" not in error, error.decode()
        if process.returncode == 0:  # it was faster
            return killed
    last = start()
    _, error = last.communicate(timeout=600)
    assert last.returncode == 0, error.decode()
    return killed


def random_moments(count: int, first: float, last: float) -> list[float]:
    """Returns so many moments between two, in seconds; the same ones at every call."""
    draw = random.Random(0)
    return [draw.uniform(first, last) for _ in range(count)]
