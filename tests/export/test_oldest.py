"""What runs on robots, in the oldest Python and with the oldest ONNX Runtime that `make oldest` finds."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import hostile
import numpy as np
import pytest

import export.runtime
from export import Form, Policy
from export.convert import OLDEST_OPSET
from teachers import get_task

PYTHON = Path(sys.prefix) / "oldest" / "bin" / "python"
ROWS = 100
COMPUTE = """
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
REMEMBER = """
import sys
import numpy as np
from runtime import Policy

policy = Policy(sys.argv[1], critic=sys.argv[2], margin=None)
inputs = np.load(sys.argv[3])
actions = [policy(*row) for row in zip(inputs["read"], inputs["goal"])]
probability = policy.reachability(inputs["read"][-1], inputs["goal"][-1])
policy.reset()
single = [policy(*row) for row in zip(inputs["read"][:, 0], inputs["goal"][:, 0])]
np.savez(sys.argv[4], actions=actions, single=single, probability=probability)
"""
GUARD = """
import json
import sys
import warnings
import hostile
import numpy as np
from runtime import ControlLoop, Critic, FaultError, Policy

def call(function, *inputs):
    try:
        return np.asarray(function(*inputs)).tolist()
    except FaultError as error:
        return str(error)

np.seterr(all="raise")
warnings.simplefilter("error")
sound = [1.0, 0.0, 0.0, 1.0, 0.0, 0.5, 0.125, 0.125], [0.0625, 0.125]
policy, holding = Policy("policy.onnx", critic="critic.onnx"), Policy("policy.onnx", on_fault="hold", max_held=1)
critic = Critic("critic.onnx")
results = {"action": call(policy, *sound), "reachability": call(policy.reachability, *sound)}
results["small"] = call(policy, sound[0], [1e-300, 1e-45])
results["faults"] = {
    name: [call(policy, make(8), sound[1]), call(critic, *sound, make(2)), call(policy.reachability, sound[0], make(2))]
    for name, make in {**hostile.FAULTS, **hostile.BATCH_FAULTS}.items()
}
results["sound"] = {
    name: call(policy, make(sound[0]), make(sound[1])) for name, make in hostile.SOUND.items()
}
readings, acted = iter([sound, (None, None), (None, None), sound]), []
loop = ControlLoop(holding, lambda: next(readings), lambda action: acted.append(action.tolist()), fallback=[0.0, 0.05])
report = loop.run(4)
results["loop"] = acted, report.held, report.fallbacks, report.steps
try:
    policy(*sound, out=[0.0, 0.0])
except ValueError as error:
    results["out"] = str(error)
results["python"] = sys.version_info[:2]
print(json.dumps(results))
"""

pytestmark = pytest.mark.skipif(
    not PYTHON.exists(),
    reason="there is no environment with older versions; `make oldest` makes it",
)


def run(folder: Path, script: str, *arguments: str | Path) -> str:
    """Runs a script beside the files for robots in the oldest Python, and returns what it prints."""
    for module in (export.runtime, hostile):
        shutil.copy(str(module.__file__), folder)
    (folder / "script.py").write_text(script)
    done = subprocess.run(
        [PYTHON, "script.py", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


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
    version = run(tmp_path, COMPUTE, file, "inputs.npz", "outputs.npz")
    assert [int(part) for part in version.split(".")[:2]] < [1, 23]
    outputs, policy = np.load(tmp_path / "outputs.npz"), Policy(file, margin=None)
    # Its kernels for float16 and int8 round otherwise.
    tolerance = 1e-5 if form.precision == "float32" else 2e-2
    actions = policy(inputs["observation"], inputs["goal"])
    assert np.abs(actions).max() > 0.01
    np.testing.assert_allclose(outputs["actions"], actions, atol=tolerance)
    np.testing.assert_allclose(outputs["single"], actions[0], atol=tolerance)
    probability = policy.reachability(inputs["observation"], inputs["goal"])
    np.testing.assert_allclose(outputs["probability"], probability, atol=10 * tolerance)


@pytest.mark.parametrize("memory", ["history", "gru"])
def test_policy_remembers_in_the_oldest_runtime(sensing_files, tmp_path, memory) -> None:
    files, random = sensing_files(memory), np.random.default_rng(0)
    read, goal = (random.normal(0, 0.3, (20, 3, n)).astype(np.float32) for n in (4, 2))
    np.savez(tmp_path / "inputs.npz", read=read, goal=goal)
    run(tmp_path, REMEMBER, files["policy"], files["critic"], "inputs.npz", "outputs.npz")
    outputs = np.load(tmp_path / "outputs.npz")
    policy = Policy(files["policy"], critic=files["critic"], margin=None)
    actions = [policy(*row) for row in zip(read, goal, strict=True)]
    np.testing.assert_allclose(outputs["actions"], actions, atol=1e-5)
    np.testing.assert_allclose(outputs["single"], np.array(actions)[:, 0], atol=1e-5)
    probability = policy.reachability(read[-1], goal[-1])
    np.testing.assert_allclose(outputs["probability"], probability, atol=1e-4)


def test_guard_and_control_loop_do_the_same_in_the_oldest_python(export_folder, tmp_path) -> None:
    for name in ("policy", "critic"):
        shutil.copy(export_folder / f"{name}.onnx", tmp_path)
    results = json.loads(run(tmp_path, GUARD))
    assert results["python"] >= [3, 8]
    policy = Policy(export_folder / "policy.onnx", critic=export_folder / "critic.onnx")
    observation = [1.0, 0.0, 0.0, 1.0, 0.0, 0.5, 0.125, 0.125]
    action = results["action"]
    np.testing.assert_allclose(action, policy(observation, [0.0625, 0.125]), atol=1e-6)
    np.testing.assert_allclose(
        results["reachability"], policy.reachability(observation, [0.0625, 0.125]), atol=1e-5
    )
    np.testing.assert_allclose(results["small"], policy(observation, [0.0, 0.0]), atol=1e-6)
    assert set(results["faults"]) == {*hostile.FAULTS, *hostile.BATCH_FAULTS}
    for name, responses in results["faults"].items():
        assert all(isinstance(response, str) for response in responses), name
    assert results["sound"] == dict.fromkeys(hostile.SOUND, action)
    assert results["out"] == "out is a list; give a float32 array (2,)"
    acted, held, fallbacks, steps = results["loop"]
    np.testing.assert_allclose(acted, [action, action, [0.0, 0.05], action])
    assert (held, fallbacks, steps) == (1, 1, 4)
