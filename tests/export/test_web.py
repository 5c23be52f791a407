"""Exported files in the browser's runtime, which `make web` installs."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from export import Form

NODE = shutil.which("node")
MODULES = Path(sys.prefix) / "web" / "node_modules"
SCRIPT = Path(__file__).parent / "web" / "run.mjs"
ROWS = 1000

pytestmark = [
    pytest.mark.skipif(NODE is None, reason="there is no Node"),
    pytest.mark.skipif(
        not (MODULES / "onnxruntime-web").is_dir(),
        reason="onnxruntime-web is not installed; `make web` does that",
    ),
]


@pytest.mark.parametrize("combined", [False, True])
def test_exported_files_compute_the_same_in_onnxruntime_web(
    export_folder, export_form, combined
) -> None:
    files = [export_folder / "policy.onnx", export_folder / "critic.onnx"]
    if combined:
        files = [Path(export_form(Form(combined=True))["combined"])]
    for file in files:
        compare_in_web(file)


@pytest.mark.parametrize("memory", [pytest.param("history", marks=pytest.mark.slow), "gru"])
def test_files_that_remember_compute_the_same_in_onnxruntime_web(sensing_files, memory) -> None:
    for role in ("policy", "critic"):
        compare_in_web(Path(sensing_files(memory)[role]))


def compare_in_web(file: Path) -> None:
    """Compares a file's outputs in the browser's runtime with those in ONNX Runtime."""
    random = np.random.default_rng(0)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    inputs = {
        node.name: random.normal(0, 1, (ROWS, node.shape[1])).astype(np.float32)
        for node in session.get_inputs()
    }
    names = [node.name for node in session.get_outputs()]
    expected = dict(zip(names, session.run(names, inputs), strict=True))
    outputs = run_in_web(file, inputs)
    assert set(outputs) == set(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(outputs[name], array, rtol=1e-4, atol=1e-5)


def run_in_web(file: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    request = {"file": str(file), "inputs": {name: rows.tolist() for name, rows in inputs.items()}}
    done = subprocess.run(
        [str(NODE), str(SCRIPT)],
        input=json.dumps(request),
        env={"MODULES": str(MODULES), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    return {
        name: np.array(array, np.float32).reshape(ROWS, -1).squeeze()
        for name, array in answer.items()
    }
