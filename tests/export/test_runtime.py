import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import export.runtime
from export import Critic, Policy

OBSERVATION, GOAL, ACTION = np.ones(8), np.ones(2), np.zeros(2)


def test_single_and_batched_calls_agree(export_folder) -> None:
    policy, critic = Policy(export_folder / "policy.onnx"), Critic(export_folder / "critic.onnx")
    one = policy(OBSERVATION, GOAL)
    assert one.shape == (2,)
    assert one.dtype == np.float32
    many = policy(np.tile(OBSERVATION, (5, 1)), np.tile(GOAL, (5, 1)))
    np.testing.assert_allclose(many, np.tile(one, (5, 1)), atol=1e-6)
    assert critic(OBSERVATION, GOAL, ACTION).shape == ()
    assert critic(OBSERVATION[None], GOAL[None], ACTION[None]).shape == (1,)


def test_the_file_alone_says_what_goes_where(export_folder) -> None:
    metadata = Policy(export_folder / "policy.onnx").metadata
    assert metadata["kind"] == "onnx"
    assert metadata["task"] == "reacher"
    assert metadata["control_period"] == pytest.approx(0.02)
    velocity = metadata["inputs"]["observation"][2]
    assert (velocity["name"], velocity["start"], velocity["stop"]) == ("joint_velocity", 4, 6)
    assert velocity["unit"] == "rad/s"
    assert metadata["outputs"]["action"][0]["high"] == pytest.approx(0.1)
    assert metadata["lineage"]["teacher"]["networks"]["actor"]["depth"] == 8
    assert metadata["metrics"]["parity_max_abs"] < 1e-4


def test_it_runs_copied_alone_without_jax_or_this_package(export_folder, tmp_path) -> None:
    shutil.copy(export.runtime.__file__, tmp_path / "robot.py")
    shutil.copy(export_folder / "policy.onnx", tmp_path)
    script = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"jax", "flax", "onnx", "mujoco", "teachers", "students", "distill", "export"}:
            raise ImportError(name + " is not on the robot")
sys.meta_path.insert(0, Blocker())
from robot import Policy
print(Policy("policy.onnx")([1.0] * 8, [1.0] * 2).tolist())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    expected = Policy(export_folder / "policy.onnx")(OBSERVATION, GOAL)
    np.testing.assert_allclose(eval(done.stdout), expected, atol=1e-6)


def foreign(path: Path) -> Path:
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    ends = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in "xy"]
    graph = onnx.helper.make_graph([node], "relu", ends[:1], ends[1:])
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def test_a_foreign_or_broken_file_is_refused(tmp_path, export_folder) -> None:
    with pytest.raises(ValueError, match="crl-distill did not export it"):
        Policy(foreign(tmp_path / "relu.onnx"))
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ValueError, match="not a model that ONNX Runtime can load"):
        Policy(tmp_path / "text.onnx")
    with pytest.raises(ValueError, match=r"is a critic, not a policy; give the policy\.onnx"):
        Policy(export_folder / "critic.onnx")
    with pytest.raises(ValueError, match=r"is a policy, not a critic; give the critic\.onnx"):
        Critic(export_folder / "policy.onnx")
