"""How a machine that is needed elsewhere ends a run: by SIGTERM, on which the run saves its state first."""

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
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Within the block, SIGTERM does not end the process.

    Yields:
        Whether the run is to end now, to be called once an iteration. Where several processes train together they all
        are told in the same iteration when one of them was asked.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # only the main thread can catch signals
        return
    arrived: list[int] = []
    handler = signal.signal(signal.SIGTERM, lambda number, frame: arrived.append(number))
    try:
        yield _together(arrived) if jax.process_count() > 1 else lambda: bool(arrived)
    finally:
        signal.signal(signal.SIGTERM, handler)


def _together(arrived: list[int]) -> Callable[[], bool]:
    """The same answer in every process: that of the iteration before, so that no device waits for it."""
    most = jax.jit(jnp.max, out_shardings=replicated())
    asked: Int32[Array, ""] | None = None

    def stop() -> bool:
        nonlocal asked
        own = np.full(jax.local_device_count(), len(arrived), np.int32)
        before, asked = asked, most(jax.make_array_from_process_local_data(sharded(), own))
        return before is not None and bool(before > 0)

    return stop
