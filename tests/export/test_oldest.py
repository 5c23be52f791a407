"""Exported files in the oldest supported ONNX Runtime, which `make oldest` installs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from export import Form, Policy
from export.convert import OLDEST_OPSET
from teachers import get_task

PYTHON = Path(sys.prefix) / "oldest" / "bin" / "python"
ROWS = 100
SCRIPT = """
import sys
import numpy as np
import onnxruntime
from runtime import Policy

policy = Policy(sys.argv[1], margin=None)
inputs = np.load(sys.argv[2])
actions = policy(inputs["observation"], inputs["goal"])
single = policy(inputs["observation"][0], inputs["goal"][0])
probability = policy.reachability(inputs["observation"], inputs["goal"])
np.savez(sys.argv[3], actions=actions, single=single, probability=probability)
print(onnxruntime.__version__)
"""

pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="there is no older ONNX Runtime; `make oldest` installs it"
)


@pytest.mark.parametrize(
    "form",
    [
        Form(combined=True),
        Form(combined=True, opset=OLDEST_OPSET),
        Form(combined=True, precision="float16"),
        Form(combined=True, precision="int8"),
    ],
)
def test_policy_computes_the_same_in_the_oldest_runtime(export_form, tmp_path, form) -> None:
    file = export_form(form)["combined"]
    sizes = get_task("reacher").sizes
    random = np.random.default_rng(0)
    inputs = {
        name: random.normal(0, 0.3, (ROWS, sizes[name])).astype(np.float32)
        for name in ("observation", "goal")
    }
    np.savez(tmp_path / "inputs.npz", **inputs)
    runtime = Path(__file__).parents[2] / "export" / "runtime.py"
    (tmp_path / "runtime.py").write_text(runtime.read_text())
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [PYTHON, "script.py", file, "inputs.npz", "outputs.npz"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1.1")
    outputs, policy = np.load(tmp_path / "outputs.npz"), Policy(file, margin=None)
    # Its kernels for float16 and int8 round otherwise.
    tolerance = 1e-5 if form.precision == "float32" else 2e-2
    actions = policy(inputs["observation"], inputs["goal"])
    assert np.abs(actions).max() > 0.01
    np.testing.assert_allclose(outputs["actions"], actions, atol=tolerance)
    np.testing.assert_allclose(outputs["single"], actions[0], atol=tolerance)
    probability = policy.reachability(inputs["observation"], inputs["goal"])
    np.testing.assert_allclose(outputs["probability"], probability, atol=10 * tolerance)
