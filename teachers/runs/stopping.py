"""Stopping a run by SIGTERM, which schedulers send when they need the machine: the run saves its state first."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32

from teachers.runs.devices import replicated, sharded


@contextmanager
def catch_stop_requests() -> Iterator[Callable[[], bool]]:
    """Catches SIGTERM within the block, so that it does not end the process.

    Yields:
        A function that returns whether the run has to stop now; it must be called once an iteration. Where several
        processes train together and one receives SIGTERM, it returns True in all of them in the same iteration.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # Python lets only the main thread catch signals
        return
    arrived: list[int] = []
    handler = signal.signal(signal.SIGTERM, lambda number, frame: arrived.append(number))
    try:
        yield _any_process_stopped(arrived) if jax.process_count() > 1 else lambda: bool(arrived)
    finally:
        signal.signal(signal.SIGTERM, handler)


def _any_process_stopped(arrived: list[int]) -> Callable[[], bool]:
    """Returns a function that gives every process the same answer, whether any of them has received a signal.

    The answer is that of the iteration before, so that no device waits for it.

    Args:
        arrived: the signals that this process has received; it grows.
    """
    maximum = jax.jit(jnp.max, out_shardings=replicated())
    newest: Int32[Array, ""] | None = None

    def stop() -> bool:
        nonlocal newest
        counts = np.full(jax.local_device_count(), len(arrived), np.int32)
        previous, newest = (
            newest,
            maximum(jax.make_array_from_process_local_data(sharded(), counts)),
        )
        return previous is not None and bool(previous > 0)

    return stop
