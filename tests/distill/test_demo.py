"""The demo: what it leaves, and which folders it replaces."""

import json
import os
import subprocess
import sys

import imageio.v3 as imageio
import pytest
from commands import assert_refused, run

from distill import demo
from export import describe_artefact


def test_run_demo_replaces_only_a_demo(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(demo, "train_teacher", lambda *_, **__: 1 / 0)  # far enough
    ours = tmp_path / "ours"
    for _ in range(2):  # the second time over what an interrupted one left
        with pytest.raises(ZeroDivisionError):
            demo.run_demo(ours)
        (ours / "teacher").mkdir()
    (ours / "thesis.txt").write_text("mine")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "summary.json").write_text("{}")
    for folder in (ours, theirs):
        before = sorted(folder.rglob("*"))
        assert_refused(run("demo", "--out", folder), str(folder), "nothing was overwritten")
        assert sorted(folder.rglob("*")) == before


@pytest.mark.slow
@pytest.mark.end_to_end
def test_run_demo_leaves_teacher_student_and_onnx(tmp_path, monkeypatch) -> None:
    out = tmp_path / "demo"
    # In a process of its own, whose programs are optimised: this one may be told to optimise nothing.
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    main = "from distill.cli import main; main()"
    command = [sys.executable, "-c", main, "demo", "--out", out, "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
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

    # A second call replaces a finished demo, before it trains again.
    monkeypatch.setattr(demo, "train_teacher", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        demo.run_demo(out)
    assert not (out / "summary.json").exists()
