"""How long one action takes on one thread of this CPU."""

import tempfile
import time
from pathlib import Path

import numpy as np

from export.contract import attach, contract
from export.convert import convert
from export.runtime import Policy
from teachers.agent import Agent

WARM_UP = 500


def measure_latency(path: Path, calls: int = 5000) -> dict[str, float]:
    """Times an exported policy at batch 1 on one thread, call by call.

    Args:
        path: the ONNX file.
        calls: timed calls, after a warm-up.

    Returns:
        `p50`, `p99` and `p99.9` in microseconds.
    """
    policy = Policy(path, margin=None)
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
    return {f"p{q}": round(float(np.percentile(nanoseconds, q)) / 1000, 2) for q in (50, 99, 99.9)}


def agent_latency(agent: Agent) -> dict[str, float]:
    """That of the policy of a teacher or student, exported for the purpose; see `measure_latency`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.onnx"
        # Not every task says in which units its actuators are.
        model = convert(agent, "policy", units="normalized")
        entries = contract(agent, "policy", model, units="normalized", seen={}, seen_in="export")
        attach(model, entries)
        path.write_bytes(model.SerializeToString())
        return measure_latency(path)
