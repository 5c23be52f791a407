"""Measures how long one action takes on one thread of this CPU."""

import tempfile
import time
from pathlib import Path

import numpy as np

from export.contract_writer import attach_contract, make_contract
from export.convert import convert
from export.runtime import Policy
from teachers.agent import Agent
from teachers.process import in_32_bits

WARM_UP_CALLS = 500


def measure_latency(path: Path, calls: int = 5000) -> dict[str, float]:
    """Times each call of an exported policy at batch 1 on one thread.

    Args:
        path: the ONNX file.
        calls: number of timed calls, after a warm-up.

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
    for i in range(-WARM_UP_CALLS, calls):
        start = time.perf_counter_ns()
        policy(observation, goal)
        if i >= 0:
            nanoseconds[i] = time.perf_counter_ns() - start
    return {f"p{q}": round(float(np.percentile(nanoseconds, q)) / 1000, 2) for q in (50, 99, 99.9)}


@in_32_bits
def measure_agent_latency(agent: Agent) -> dict[str, float]:
    """Exports the policy of a teacher or student to a temporary file, and times it; see `measure_latency`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.onnx"
        # Normalized actions can be exported for any task; the units of its actuators may be unknown.
        model = convert(agent, "policy", units="normalized")
        contract = make_contract(
            agent,
            "policy",
            model,
            units="normalized",
            observed_ranges={},
            range_source="export",
        )
        attach_contract(model, contract)
        path.write_bytes(model.SerializeToString())
        return measure_latency(path)
