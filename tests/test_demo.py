"""The demo's own promises, kept by running it."""

import json

import imageio.v3 as imageio
import pytest
from typer.testing import CliRunner

from distill.cli import app
from export import describe_artefact


@pytest.mark.slow
def test_the_demo_keeps_its_promises(tmp_path) -> None:
    out = tmp_path / "demo"
    for _ in range(2):  # the second call replaces what the first one left
        result = CliRunner().invoke(app, ["demo", "--out", str(out), "--json"])
        assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary == json.loads((out / "summary.json").read_text())
    assert summary["teacher"]["success_at_end"] >= 0.98
    assert summary["episodes"] >= 256
    assert summary["retention"] >= 0.97
    assert summary["onnx"]["retention"] >= 0.97
    assert summary["parity_max_abs"] <= 1e-4
    for name in ("teacher", "student", "onnx"):
        assert {"success_at_end", "time_at_goal", "time_at_goal_ci95", "parameters"} <= set(
            summary[name]
        )
    assert {"p50", "p99"} <= set(summary["latency_us"])
    for name, kind in (
        ("teacher", "teacher"),
        ("student", "student"),
        ("policy.onnx", "onnx"),
        ("critic.onnx", "onnx"),
    ):
        assert describe_artefact(out / name).kind == kind
    assert (out / "metrics.jsonl").exists()
    assert imageio.imread(out / "learning_curve.png").shape[0] > 100
    assert len(imageio.imread(out / "animation.gif", index=None)) > 50
