"""How long one action takes on one thread of this CPU."""

import time
from pathlib import Path

import numpy as np

from export.runtime import Policy

WARM_UP = 500


def measure_latency(path: Path, calls: int = 5000) -> dict[str, float]:
    """Times an exported policy at batch 1 on one thread, call by call.

    Args:
        path: the ONNX file.
        calls: timed calls, after a warm-up.

    Returns:
        `p50` and `p99` in microseconds.
    """
    policy = Policy(path)
    random = np.random.default_rng(0)
    observation, goal = (
        random.standard_normal(fields[-1]["stop"]).astype(np.float32)
        for fields in (policy.metadata["inputs"][name] for name in policy.inputs)
    )
    nanoseconds = np.empty(calls)
    for i in range(-WARM_UP, calls):
        begun = time.perf_counter_ns()
        policy(observation, goal)
        if i >= 0:
            nanoseconds[i] = time.perf_counter_ns() - begun
    return {f"p{q}": round(float(np.percentile(nanoseconds, q)) / 1000, 2) for q in (50, 99)}
