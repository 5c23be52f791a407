"""In the oldest ONNX Runtime that can be installed beside ours. `make oldest` installs it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from export import Form, Policy, export_student
from export.convert import OLDEST
from students import load_student

PYTHON = Path(sys.prefix) / "oldest" / "bin" / "python"
ROWS = 100
SCRIPT = """
import sys
import numpy as np
import onnxruntime
from runtime import Policy

policy = Policy(sys.argv[1], margin=None)
given = np.load(sys.argv[2])
actions = policy(given["observation"], given["goal"])
one = policy(given["observation"][0], given["goal"][0])
chance = policy.reachability(given["observation"], given["goal"])
np.savez(sys.argv[3], actions=actions, one=one, chance=chance)
print(onnxruntime.__version__)
"""

pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="there is no older ONNX Runtime; `make oldest` installs it"
)


@pytest.mark.parametrize(
    "form",
    [
        Form(combined=True),
        Form(combined=True, opset=OLDEST),
        Form(combined=True, precision="float16"),
        Form(combined=True, precision="int8"),
    ],
)
def test_the_oldest_runtime_computes_the_same(student_run, tmp_path, form) -> None:
    student = load_student(student_run)
    file = export_student(student, tmp_path / "export", form, min_retention=0)["combined"]
    random = np.random.default_rng(0)
    inputs = {
        name: random.normal(0, 0.3, (ROWS, student.task.sizes[name])).astype(np.float32)
        for name in ("observation", "goal")
    }
    np.savez(tmp_path / "given.npz", **inputs)
    runtime = Path(__file__).parents[2] / "export" / "runtime.py"
    (tmp_path / "runtime.py").write_text(runtime.read_text())
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [PYTHON, "script.py", file, "given.npz", "found.npz"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1.1")
    found, ours = np.load(tmp_path / "found.npz"), Policy(file, margin=None)
    # Its kernels for fewer bits round otherwise.
    most = 1e-5 if form.precision == "float32" else 2e-2
    actions = ours(inputs["observation"], inputs["goal"])
    assert np.abs(actions).max() > 0.01
    np.testing.assert_allclose(found["actions"], actions, atol=most)
    np.testing.assert_allclose(found["one"], actions[0], atol=most)
    chance = ours.reachability(inputs["observation"], inputs["goal"])
    np.testing.assert_allclose(found["chance"], chance, atol=10 * most)
