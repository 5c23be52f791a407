"""The demo with several seeds: its figures, and where its seconds go."""

import tempfile
from pathlib import Path

from common import parser, report

from distill.demo import run_demo


def main() -> None:
    options = parser(__doc__).parse_args()
    rows = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            result = run_demo(Path(folder) / "demo", seed)
        rows.append(
            {
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
                **{f"{stage}_s": s for stage, s in result["seconds"].items()},
            }
        )
    report(rows, options.json)


if __name__ == "__main__":
    main()
