"""In the browser's runtime too. `make web` installs it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from export.write import Form, export_student
from students import load_student

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
def test_files_run_unchanged_in_onnxruntime_web(student_run, tmp_path, combined) -> None:
    student = load_student(student_run)
    export_student(student, tmp_path / "export", Form(combined=combined))
    random = np.random.default_rng(0)
    sizes = student.task.sizes
    for file in sorted((tmp_path / "export").glob("*.onnx")):
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        inputs = {
            given.name: random.normal(0, 1, (ROWS, sizes[given.name])).astype(np.float32)
            for given in session.get_inputs()
        }
        names = [each.name for each in session.get_outputs()]
        expected = dict(zip(names, session.run(names, inputs), strict=True))
        found = in_web(file, inputs)
        assert set(found) == set(expected)
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5)


def in_web(file: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
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
