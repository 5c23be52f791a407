"""How a machine that is needed elsewhere ends a run: by SIGTERM, on which the run saves its state first."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
from jax.experimental import multihost_utils


@contextmanager
def stop_requests() -> Iterator[Callable[[int], bool]]:
    """Within the block, SIGTERM does not end the process.

    Yields:
        From the number of an iteration, whether the run is to end after it: for all processes of a run the same, when
        one of them was asked.
    """
    if jax.process_count() > 1:
        # JAX's own handler, which brings the processes to agree.
        yield multihost_utils.reached_preemption_sync_point
        return
    arrived: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda _: False  # only the main thread can catch signals
        return
    handler = signal.signal(signal.SIGTERM, lambda number, frame: arrived.append(number))
    try:
        yield lambda _: bool(arrived)
    finally:
        signal.signal(signal.SIGTERM, handler)
