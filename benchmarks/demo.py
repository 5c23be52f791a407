"""Measures the demo with several seeds: success, retention, parity, latency, and the seconds of each stage.

Run it with `python benchmarks/demo.py --seeds 0 1 2 3 4 --json FILE`; a seed takes one to three minutes on two cores.
"""

import tempfile
from pathlib import Path
from typing import Any

from common import make_parser, report

from distill.demo import run_demo


def measure(seed: int) -> dict[str, Any]:
    """Runs the demo with this seed and returns its row."""
    with tempfile.TemporaryDirectory() as folder:
        result = run_demo(Path(folder) / "demo", seed)
    return {
        "seed": seed,
        "teacher_success": result["teacher"]["success_at_end"],
        "teacher_time": result["teacher"]["time_at_goal"],
        "student_success": result["student"]["success_at_end"],
        "onnx_success": result["onnx"]["success_at_end"],
        "retention": result["retention"],
        "retention_low": result["retention_ci95"][0],
        "retention_high": result["retention_ci95"][1],
        "parity": result["parity_max_abs"],
        "p50_us": result["latency_us"]["p50"],
        "p99_us": result["latency_us"]["p99"],
        "teacher_p50_us": result["teacher"]["latency_us"]["p50"],
        **{f"{stage}_s": seconds for stage, seconds in result["seconds"].items()},
    }


def main() -> None:
    """Runs the demo with each seed and prints the table."""
    options = make_parser(__doc__, default_seeds=(0, 1, 2)).parse_args()
    report([measure(seed) for seed in options.seeds], options.json)


if __name__ == "__main__":
    main()
