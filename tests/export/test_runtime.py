import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import export.runtime
from export import ControlLoop, Critic, Form, Policy
from export.runtime import FaultError

# The reacher's arm, folded by a right angle: cosines, sines, velocities, and where the fingertip is.
OBSERVATION = np.array([1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.1, 0.1])
GOAL, ACTION = np.array([0.05, 0.1]), np.zeros(2)


def test_policy_gives_single_and_batched_actions_that_agree(export_folder) -> None:
    policy, critic = Policy(export_folder / "policy.onnx"), Critic(export_folder / "critic.onnx")
    one = policy(OBSERVATION, GOAL)
    assert one.shape == (2,)
    assert one.dtype == np.float32
    many = policy(np.tile(OBSERVATION, (5, 1)), np.tile(GOAL, (5, 1)))
    np.testing.assert_allclose(many, np.tile(one, (5, 1)), atol=1e-6)
    assert critic(OBSERVATION, GOAL, ACTION).shape == ()
    assert critic(OBSERVATION[None], GOAL[None], ACTION[None]).shape == (1,)


def test_metadata_describes_every_field(export_folder) -> None:
    metadata = Policy(export_folder / "policy.onnx").metadata
    assert metadata["kind"] == "onnx"
    assert metadata["task"] == "reacher"
    assert metadata["control_period"] == pytest.approx(0.02)
    velocity = metadata["inputs"]["observation"][2]
    assert (velocity["name"], velocity["start"], velocity["stop"]) == ("joint_velocity", 4, 6)
    assert velocity["unit"] == "rad/s"
    assert metadata["outputs"]["action"][0]["high"] == pytest.approx(0.1)
    assert metadata["lineage"]["teacher"]["networks"]["actor"]["depth"] == 8
    assert metadata["parity"]["max_abs"] < 1e-4
    assert len(velocity["seen_low"]) == 2
    assert metadata["seen_in"] == "training"


def test_runtime_runs_alone_without_jax(export_folder, tmp_path) -> None:
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
try:
    Policy("policy.onnx", on_fault="rasie")
except ValueError as error:
    assert "give \\"raise\\" or \\"hold\\"" in str(error)
else:
    raise AssertionError("it took a fault for a fault")
print(Policy("policy.onnx")([1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.1, 0.1], [0.05, 0.1]).tolist())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    expected = Policy(export_folder / "policy.onnx")(OBSERVATION, GOAL)
    np.testing.assert_allclose(eval(done.stdout), expected, atol=1e-6)


def save_relu_model(path: Path) -> Path:
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    ends = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in "xy"]
    graph = onnx.helper.make_graph([node], "relu", ends[:1], ends[1:])
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def test_policy_refuses_foreign_and_broken_files(tmp_path, export_folder) -> None:
    with pytest.raises(ValueError, match="crl-distill did not export it"):
        Policy(save_relu_model(tmp_path / "relu.onnx"))
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ValueError, match="not a model that ONNX Runtime can load"):
        Policy(tmp_path / "text.onnx")
    with pytest.raises(ValueError, match=r"is a critic, not a policy; give a policy or combined"):
        Policy(export_folder / "critic.onnx")
    with pytest.raises(ValueError, match=r"is a policy, not a critic; give a critic\.onnx"):
        Critic(export_folder / "policy.onnx")


@pytest.fixture
def combined(export_form) -> str:
    """A file with both heads, and actions in [-1, 1]."""
    return export_form(Form(combined=True, units="normalized"))["combined"]


def test_policy_acts_in_task_units_by_default(export_folder, combined) -> None:
    physical, plain = Policy(export_folder / "policy.onnx"), Policy(combined)
    assert physical.metadata["action_units"] == "task"
    assert plain.metadata["action_units"] == "normalized"
    torque, action = physical(OBSERVATION, GOAL), plain(OBSERVATION, GOAL)
    assert np.abs(action).max() > 0.01
    np.testing.assert_allclose(torque, 0.1 * action, atol=1e-6)  # the reacher's motors: 0.1 N m
    converted = Policy(export_folder / "policy.onnx", normalized=True)(OBSERVATION, GOAL)
    np.testing.assert_allclose(converted, action, atol=1e-5)
    same = Policy(combined, normalized=True)(OBSERVATION, GOAL)
    np.testing.assert_array_equal(same, action)


def test_policy_writes_into_out(export_folder) -> None:
    policy, out = Policy(export_folder / "policy.onnx"), np.zeros(2, np.float32)
    assert policy(OBSERVATION, GOAL, out) is out
    first = policy(OBSERVATION, GOAL)
    np.testing.assert_array_equal(out, first)
    policy(OBSERVATION, -GOAL)
    np.testing.assert_array_equal(out, first)  # no view of what the next call writes over


def test_reachability_agrees_between_two_files_and_one(export_folder, combined) -> None:
    two = Policy(export_folder / "policy.onnx", critic=export_folder / "critic.onnx")
    probability = two.reachability(OBSERVATION, GOAL)
    value = Critic(export_folder / "critic.onnx")(OBSERVATION, GOAL, two(OBSERVATION, GOAL))
    fitted = Critic(export_folder / "critic.onnx").metadata["reachability"]
    logit = fitted["scale"] * value + fitted["offset"]
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-logit)), rtol=1e-5)
    np.testing.assert_allclose(
        Policy(combined).reachability(OBSERVATION, GOAL), probability, atol=1e-4
    )
    many = two.reachability(np.tile(OBSERVATION, (3, 1)), np.tile(GOAL, (3, 1)))
    np.testing.assert_allclose(many, [probability] * 3, atol=1e-5)
    with pytest.raises(ValueError, match=r'open it as Policy\("policy.onnx", critic='):
        Policy(export_folder / "policy.onnx").reachability(OBSERVATION, GOAL)


def test_policy_refuses_the_critic_of_another_export(export_folder, export_form) -> None:
    other = export_form(Form(units="normalized"))
    with pytest.raises(ValueError, match="differ in action_units; give two files of one export"):
        Policy(export_folder / "policy.onnx", critic=other["critic"])


FAULTS = {
    "shape": (np.ones(7), GOAL, r"observation has shape \(7,\); give \[8\] or \[batch, 8\]"),
    "type": (np.ones(8, int), GOAL, "observation is of type int64; give floating-point"),
    "text": (["x"] * 8, GOAL, "observation is of type <U1"),
    "ragged": ([[1.0], [1.0, 2.0]], GOAL, "observation is not an array"),
    "nan": (np.full(8, np.nan), GOAL, r"observation\[0\] \(joint_cos, 1\) is nan; look for a broken"),
    "infinite": (OBSERVATION, np.array([0, np.inf]), r"goal\[1\] \(fingertip, m\) is inf"),
    "far": (OBSERVATION + 1e6 * (np.arange(8) == 4), GOAL, r"observation\[4\] \(joint_velocity, rad/s\) is 1e\+06, far"),
    "ragged goal": (OBSERVATION, [[1.0], [1.0, 2.0]], "goal is not an array"),
    "batch": (np.stack([OBSERVATION] * 2), GOAL, r"observation has shape \(2, 8\) but goal \(2,\)"),
}  # fmt: skip


@pytest.mark.parametrize("fault", list(FAULTS))
def test_policy_raises_on_a_faulty_input(export_folder, fault) -> None:
    observation, goal, message = FAULTS[fault]
    policy = Policy(export_folder / "policy.onnx")
    policy(OBSERVATION, GOAL)
    with pytest.raises(FaultError, match=message):
        policy(observation, goal)


@pytest.mark.parametrize("fault", list(FAULTS))
def test_policy_holds_the_last_safe_action(export_folder, fault) -> None:
    observation, goal, _ = FAULTS[fault]
    policy = Policy(export_folder / "policy.onnx", on_fault="hold")
    with pytest.raises(FaultError):  # it has not acted yet
        policy(observation, goal)
    safe = policy(OBSERVATION, GOAL)
    assert (policy.held, policy.fault) == (0, "")
    np.testing.assert_array_equal(policy(observation, goal), safe)
    assert policy.held == 1
    assert policy.fault
    np.testing.assert_array_equal(policy(OBSERVATION, GOAL), safe)
    assert policy.held == 1


def test_policy_without_margin_takes_any_finite_input(export_folder) -> None:
    policy = Policy(export_folder / "policy.onnx", margin=None)
    policy(1e6 * OBSERVATION, GOAL)
    with pytest.raises(FaultError, match="broken sensor"):
        policy(np.full(8, np.inf), GOAL)


def test_policy_refuses_an_action_that_is_not_finite(export_folder) -> None:
    policy = Policy(export_folder / "policy.onnx", margin=None, on_fault="hold")
    overflow = np.where(np.arange(8) % 2, -1.0, 1.0) * 3e38
    with pytest.raises(FaultError, match="the action is not finite"):
        policy(overflow, GOAL)
    safe = policy(OBSERVATION, GOAL)
    np.testing.assert_array_equal(policy(overflow, GOAL), safe)
    np.testing.assert_array_equal(policy(np.full(8, np.nan), GOAL), safe)
    assert policy.held == 2


def test_policy_allows_small_changes_of_constant_inputs(export_folder, tmp_path) -> None:
    model = onnx.load(export_folder / "policy.onnx")
    entry = next(p for p in model.metadata_props if p.key == "crl_distill.inputs")
    arrays = json.loads(entry.value)
    arrays["goal"][0] |= {"seen_low": [0.05, 0.1], "seen_high": [0.05, 0.1]}
    entry.value = json.dumps(arrays)
    onnx.save(model, tmp_path / "policy.onnx")
    policy = Policy(tmp_path / "policy.onnx")
    policy(OBSERVATION, GOAL + 0.04 * arrays["goal"][0]["scale"])
    with pytest.raises(FaultError, match=r"goal\[0\]"):
        policy(OBSERVATION, GOAL + arrays["goal"][0]["scale"])


def test_policy_refuses_an_out_of_another_shape(export_folder) -> None:
    policy = Policy(export_folder / "policy.onnx")
    for out in (np.zeros(2, int), np.zeros(3, np.float32), np.zeros((1, 2), np.float32)):
        with pytest.raises(ValueError, match=r"give a float32 array \(2,\)"):
            policy(OBSERVATION, GOAL, out)
    with pytest.raises(ValueError, match="leave it out for a batch"):
        policy(OBSERVATION[None], GOAL[None], np.zeros(2, np.float32))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ((np.ones(1), GOAL, ACTION), r"observation has shape \(1,\)"),
        ((OBSERVATION, GOAL[None], ACTION), r"goal \(1, 2\); give all single"),
        ((OBSERVATION, GOAL, np.full(2, np.nan)), r"action\[0\]"),
        ((OBSERVATION, GOAL, ACTION.astype(int)), "of type int64"),
    ],
)
def test_critic_refuses_faulty_inputs(export_folder, arrays, message) -> None:
    with pytest.raises(FaultError, match=message):
        Critic(export_folder / "critic.onnx")(*arrays)


class Clock:
    """Time that passes when something takes time, and never by itself."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        self.now += 1e-6
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_control_loop_keeps_its_period_and_counts_missed_ticks() -> None:
    clock, acted = Clock(), []
    takes = iter([0.001, 0.001, 0.025, 0.001, 0.010, 0.001])  # the third lasts beyond two ticks

    def policy(observation, goal):
        clock.now += next(takes)
        return observation + goal

    loop = ControlLoop(
        policy, lambda: (1.0, 2.0), acted.append, period=0.01, clock=clock, sleep=clock.sleep
    )
    report = loop.run(5)
    assert acted == [3.0] * 5
    assert report.steps == 5
    assert report.missed == 3  # two ticks that the third step slept through, one that the fifth did
    assert report.latency.max == pytest.approx(0.025, abs=1e-4)
    assert report.period.p50 == pytest.approx(0.01, abs=1e-4)
    assert report.period.max == pytest.approx(0.03, abs=1e-4)
    assert report.jitter.max < 1e-4
    assert report.held == 0


def test_control_loop_takes_the_policy_s_period_and_counts_held_actions(export_folder) -> None:
    policy, clock = Policy(export_folder / "policy.onnx", on_fault="hold"), Clock()
    observations = iter([OBSERVATION, np.full(8, np.nan), OBSERVATION])
    acted = []
    loop = ControlLoop(
        policy, lambda: (next(observations), GOAL), acted.append, clock=clock, sleep=clock.sleep
    )
    assert loop.period == pytest.approx(0.02)
    report = loop.run(3)
    assert report.held == 1
    np.testing.assert_array_equal(acted[0], acted[1])
    with pytest.raises(ValueError, match="give a positive one"):
        ControlLoop(policy, lambda: (OBSERVATION, GOAL), acted.append, period=0.0)
    with pytest.raises(ValueError, match="give at least one"):
        ControlLoop(policy, lambda: (OBSERVATION, GOAL), acted.append, history=0)
