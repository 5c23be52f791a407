import ast
import json
import math
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hostile
import jaxtyping
import numpy as np
import onnx
import pytest
from onnx_edits import FIXTURES, find_entry, load_fixture, set_entry

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


ROOT = Path(export.runtime.__file__).parents[1]
ON_ROBOTS = [
    Path(export.runtime.__file__),
    Path(hostile.__file__),
    *sorted((ROOT / "export" / "examples").glob("*.py")),
]


@pytest.mark.parametrize("file", ON_ROBOTS, ids=lambda file: file.name)
def test_files_for_robots_have_the_syntax_of_python_3_8(file) -> None:
    tree = ast.parse(file.read_text(), feature_version=(3, 8))
    # Annotations have newer forms of types, which Python 3.8 must not evaluate.
    assert "from __future__ import annotations" in map(ast.unparse, tree.body)


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
    "ragged": ([[1.0], [1.0, 2.0]], GOAL, "observation cannot be read as an array of"),
    "nan": (np.full(8, np.nan), GOAL, r"observation\[0\] \(joint_cos, 1\) is nan; look for a broken"),
    "infinite": (OBSERVATION, np.array([0, np.inf]), r"goal\[1\] \(fingertip, m\) is inf"),
    "far": (OBSERVATION + 1e6 * (np.arange(8) == 4), GOAL, r"observation\[4\] \(joint_velocity, rad/s\) is 1e\+06, far"),
    "ragged goal": (OBSERVATION, [[1.0], [1.0, 2.0]], "goal cannot be read as an array of"),
    "batch": (np.stack([OBSERVATION] * 2), GOAL, r"observation has shape \(2, 8\) but goal \(2,\)"),
}  # fmt: skip


@pytest.mark.parametrize("fault", list(FAULTS))
def test_policy_raises_on_a_faulty_input(export_folder, fault) -> None:
    observation, goal, message = FAULTS[fault]
    policy = Policy(export_folder / "policy.onnx")
    policy(OBSERVATION, GOAL)
    with pytest.raises(FaultError, match=message):
        policy(observation, goal)


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "batch"])
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


@contextmanager
def everything_raises() -> Iterator[None]:
    """Lets numpy and Python raise whatever they can report or warn of."""
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        yield


HOSTILE = hostile.FAULTS | hostile.BATCH_FAULTS


@pytest.mark.parametrize("fault", list(HOSTILE))
def test_policy_raises_or_holds_whatever_an_input_is(export_folder, fault) -> None:
    with everything_raises():
        raising = Policy(export_folder / "policy.onnx")
        holding = Policy(export_folder / "policy.onnx", on_fault="hold")
        safe = holding(OBSERVATION, GOAL)
        for observation, goal in ((HOSTILE[fault](8), GOAL), (OBSERVATION, HOSTILE[fault](2))):
            with pytest.raises(FaultError):
                raising(observation, goal)
            if fault in hostile.BATCH_FAULTS:
                with pytest.raises(FaultError):
                    holding(observation, goal)
            else:
                np.testing.assert_array_equal(holding(observation, goal), safe)
                assert holding.fault


@pytest.mark.parametrize("fault", list(HOSTILE))
def test_critic_and_reachability_raise_whatever_an_input_is(export_folder, fault) -> None:
    with everything_raises():
        critic = Critic(export_folder / "critic.onnx")
        policy = Policy(export_folder / "policy.onnx", critic=export_folder / "critic.onnx")
        for i, size in enumerate((8, 2, 2)):
            inputs = [OBSERVATION, GOAL, ACTION]
            inputs[i] = HOSTILE[fault](size)
            with pytest.raises(FaultError):
                critic(*inputs)
            with pytest.raises(FaultError):
                critic.reachability(*inputs)
            if i < 2:
                with pytest.raises(FaultError):
                    policy.reachability(*inputs[:2])


@pytest.mark.parametrize("kind", list(hostile.SOUND))
def test_policy_takes_every_kind_of_floating_point_array(export_folder, kind) -> None:
    observation, goal = [1.0, 0.0, 0.0, 1.0, 0.0, 0.5, 0.125, 0.125], [0.0625, 0.125]
    policy = Policy(export_folder / "policy.onnx")
    expected = policy(np.array(observation, np.float32), np.array(goal, np.float32))
    convert = hostile.SOUND[kind]
    with everything_raises():
        np.testing.assert_array_equal(policy(convert(observation), convert(goal)), expected)


@pytest.mark.parametrize("small", [1e-300, 1e-45, 5e-324, -1e-40])
def test_policy_takes_numbers_too_small_for_float32_as_zero(export_folder, small) -> None:
    policy = Policy(export_folder / "policy.onnx")
    expected = policy(OBSERVATION, np.zeros(2))
    with everything_raises():
        action = policy(OBSERVATION, np.full(2, small))
        many = policy(OBSERVATION[None], np.full((1, 2), small))
    np.testing.assert_allclose(action, expected, atol=1e-7)
    np.testing.assert_allclose(many[0], expected, atol=1e-6)


def test_policy_takes_a_batch_of_no_observations(export_folder) -> None:
    policy = Policy(export_folder / "policy.onnx", critic=export_folder / "critic.onnx")
    nothing = np.zeros((0, 8), np.float32), np.zeros((0, 2), np.float32)
    assert policy(*nothing).shape == (0, 2)
    assert policy.reachability(*nothing).shape == (0,)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_policy_does_not_hold_back_what_ends_the_program(export_folder, error) -> None:
    policy = Policy(export_folder / "policy.onnx", on_fault="hold")
    policy(OBSERVATION, GOAL)
    with pytest.raises(error):
        policy(hostile.RaisingArray(error()), GOAL)


def test_policy_acts_on_the_numbers_that_it_checked(export_folder, monkeypatch) -> None:
    policy = Policy(export_folder / "policy.onnx")
    single = np.float32(OBSERVATION), np.float32(GOAL)
    batch = tuple(np.stack([array] * 3) for array in single)
    expected, compare = [policy(*inputs) for inputs in (single, batch)], np.greater_equal

    def compare_while_the_sensors_write(array, bound):
        for inputs in (*single, *batch):
            inputs[...] = np.nan
        return compare(array, bound)

    for inputs, action in zip((single, batch), expected, strict=True):
        for array, numbers in zip(inputs, (OBSERVATION, GOAL), strict=True):
            array[...] = numbers
        observation, goal = inputs
        monkeypatch.setattr(np, "greater_equal", compare_while_the_sensors_write)
        # The observation is changed while it is checked, the goal is read after that.
        with pytest.raises(FaultError, match=r"goal\[0\] .* is nan"):
            policy(observation, goal)
        observation[...] = OBSERVATION
        np.testing.assert_array_equal(
            policy(observation, np.broadcast_to(GOAL, goal.shape)), action
        )
        monkeypatch.undo()


def test_policy_holds_for_half_a_second_by_default(export_folder) -> None:
    policy = Policy(export_folder / "policy.onnx", on_fault="hold")
    broken = np.full(8, np.nan)
    safe = policy(OBSERVATION, GOAL)
    for _ in range(25):  # at 50 Hz
        np.testing.assert_array_equal(policy(broken, GOAL), safe)
    for _ in range(3):
        with pytest.raises(
            FaultError, match=r"is nan; .* was held 25 times, the most that max_held"
        ):
            policy(broken, GOAL)
    assert policy.held == 25
    np.testing.assert_array_equal(policy(OBSERVATION, GOAL), safe)  # it is sound again
    np.testing.assert_array_equal(policy(broken, GOAL), safe)
    assert policy.held == 26


def test_policy_counts_the_held_calls_in_a_row(export_folder) -> None:
    policy = Policy(export_folder / "policy.onnx", on_fault="hold", max_held=2)
    for _ in range(10):
        policy(OBSERVATION, GOAL)
        for _ in range(2):
            policy(np.full(8, np.nan), GOAL)
    assert policy.held == 20
    with pytest.raises(FaultError, match="held 2 times"):
        policy(np.full(8, np.nan), GOAL)


@pytest.mark.parametrize(
    ("rows", "goals"), [((8,), ()), ((8,), (8,)), ((), (8,)), ((1,), ())], ids=str
)
def test_policy_does_not_hold_where_an_input_is_a_batch(rows, goals) -> None:
    policy = Policy(FIXTURES / "contract-1" / "policy.onnx", on_fault="hold", max_held=2.0)
    policy(OBSERVATION, GOAL)
    with pytest.raises(FaultError):
        policy(np.full((*rows, 8), np.nan), np.full((*goals, 2), 0.1))
    assert policy.held == 0
    policy(np.full(8, np.nan), GOAL)
    assert policy.held == 1


@pytest.mark.parametrize(
    ("array", "change"),
    [
        ("outputs", {"low": ...}),
        ("outputs", {"high": ...}),
        ("outputs", {"low": "x"}),
        ("outputs", {"low": [0.1]}),
        ("inputs", {"scale": "x"}),
        ("inputs", {"scale": None}),
        ("inputs", {"seen_low": [0.0] * 9}),
        ("inputs", {"seen_high": "x"}),
        ("inputs", {"seen_high": [None]}),
    ],
)
def test_policy_refuses_fields_with_damaged_numbers(tmp_path, array, change) -> None:
    model = load_fixture()
    arrays = json.loads(find_entry(model, array).value)
    for fields in arrays.values():
        fields[0].update(change)
        for key in [key for key, value in change.items() if value is ...]:
            del fields[0][key]
    set_entry(model, array, arrays)
    onnx.save(model, tmp_path / "policy.onnx")
    with pytest.raises(ValueError, match=r"policy\.onnx has damaged metadata; export it again"):
        Policy(tmp_path / "policy.onnx")


@pytest.mark.parametrize("calibration", [None, {}, 3, {"scale": 1.0, "offset": "x"}])
def test_reachability_needs_a_calibration(tmp_path, calibration) -> None:
    model = load_fixture("critic")
    set_entry(model, "reachability", calibration)
    onnx.save(model, tmp_path / "critic.onnx")
    critic = Critic(tmp_path / "critic.onnx")
    with pytest.raises(ValueError, match="no calibration of its values; export it again"):
        critic.reachability(OBSERVATION, GOAL, np.zeros(2, np.float32))


def test_policy_holds_once_where_a_control_step_lasts_longer_than_half_a_second(
    export_folder, tmp_path
) -> None:
    model = onnx.load(export_folder / "policy.onnx")
    entry = next(p for p in model.metadata_props if p.key == "crl_distill.control_period")
    entry.value = "2.0"
    onnx.save(model, tmp_path / "policy.onnx")
    policy = Policy(tmp_path / "policy.onnx", on_fault="hold")
    policy(OBSERVATION, GOAL)
    policy(np.full(8, np.nan), GOAL)
    with pytest.raises(FaultError, match="held 1 times"):
        policy(np.full(8, np.nan), GOAL)
    entry.value = '"often"'
    onnx.save(model, tmp_path / "policy.onnx")
    with pytest.raises(ValueError, match="has damaged metadata"):
        Policy(tmp_path / "policy.onnx")


@pytest.fixture
def unchecked_types(monkeypatch) -> None:
    """Leaves out the tests' check of types, which a robot does not have."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def test_policy_holds_for_ever_only_where_it_is_told_to(export_folder) -> None:
    policy = Policy(export_folder / "policy.onnx", on_fault="hold", max_held=math.inf)
    policy(OBSERVATION, GOAL)
    for _ in range(1000):
        policy(np.full(8, np.nan), GOAL)
    assert policy.held == 1000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_held": 0}, "max_held is 0; give a whole number from 1 on, or math.inf"),
        ({"max_held": math.nan}, "max_held is nan; give a whole number"),
        ({"max_held": 2.5}, "max_held is 2.5; give a whole number"),
        ({"max_held": -math.inf}, "max_held is -inf; give a whole number"),
        ({"max_held": "15"}, "max_held is '15'; give a whole number"),
        ({"margin": "x"}, "margin is 'x'; give at least 0, or None"),
        ({"margin": -0.1}, "margin is -0.1; give at least 0, or None"),
        ({"margin": math.nan}, "margin is nan; give at least 0, or None"),
    ],
)
def test_policy_refuses_limits_that_guard_nothing(
    export_folder, options, message, unchecked_types
) -> None:
    with pytest.raises(ValueError, match=message):
        Policy(export_folder / "policy.onnx", **options)


def test_action_limits_are_those_of_what_the_policy_returns(export_folder, combined) -> None:
    for policy, limit in (
        (Policy(export_folder / "policy.onnx"), 0.1),
        (Policy(export_folder / "policy.onnx", normalized=True), 1.0),
        (Policy(combined), 1.0),
    ):
        np.testing.assert_array_equal(policy.action_limits, np.float32([[-limit] * 2, [limit] * 2]))


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
    fixed = np.broadcast_to(np.float32(0.0), 2)
    with pytest.raises(ValueError, match="out is read-only"):
        policy(OBSERVATION, GOAL, fixed)
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


def test_critic_refuses_a_value_that_is_not_finite(export_folder) -> None:
    critic = Critic(export_folder / "critic.onnx")
    overflow = np.where(np.arange(8) % 2, -1.0, 1.0) * 3e38
    for call in (critic, critic.reachability):
        with everything_raises(), pytest.raises(FaultError, match="the value is not finite"):
            call(overflow, GOAL, ACTION)
    policy = Policy(
        export_folder / "policy.onnx", critic=export_folder / "critic.onnx", margin=None
    )
    with everything_raises(), pytest.raises(FaultError, match="the action is not finite"):
        policy.reachability(overflow, GOAL)


def test_reachability_of_a_value_far_from_zero_is_zero(export_folder, tmp_path) -> None:
    model = onnx.load(export_folder / "critic.onnx")
    entry = next(p for p in model.metadata_props if p.key == "crl_distill.reachability")
    entry.value = json.dumps({**json.loads(entry.value), "scale": 1e6})
    onnx.save(model, tmp_path / "critic.onnx")
    with everything_raises():
        assert Critic(tmp_path / "critic.onnx").reachability(OBSERVATION, GOAL, ACTION) == 0.0


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


def test_control_loop_takes_the_policy_s_period_and_counts_held_actions(
    export_folder, unchecked_types
) -> None:
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
    for period in (0.0, "0.02"):
        with pytest.raises(ValueError, match="give a positive one"):
            ControlLoop(policy, lambda: (OBSERVATION, GOAL), acted.append, period=period)
    for history in (0, "10"):
        with pytest.raises(ValueError, match="give at least one"):
            ControlLoop(policy, lambda: (OBSERVATION, GOAL), acted.append, history=history)


def run_loop(policy, inputs, acted, **options) -> export.runtime.LoopReport:
    """Runs a loop over these inputs, of which an exception is raised in place of a reading."""
    clock, readings = Clock(), iter(inputs)

    def sense():
        reading = next(readings)
        if isinstance(reading, BaseException):
            raise reading
        return reading

    loop = ControlLoop(
        policy, sense, acted.append, **options, clock=clock, sleep=clock.sleep, period=0.02
    )
    return loop.run(len(inputs))


SOUND, BROKEN = (OBSERVATION, GOAL), (np.full(8, np.nan), GOAL)


@pytest.mark.parametrize("fallback", [[0.05, -0.1], np.array([0.05, -0.1])])
def test_control_loop_sends_the_fallback_at_every_fault(export_folder, fallback) -> None:
    policy, acted = Policy(export_folder / "policy.onnx"), []
    action = policy(*SOUND)
    report = run_loop(policy, [SOUND, BROKEN, SOUND, BROKEN, BROKEN], acted, fallback=fallback)
    sent = np.float32([0.05, -0.1])
    np.testing.assert_array_equal(acted, [action, sent, action, sent, sent])
    assert acted[1].dtype == np.float32
    assert (report.steps, report.held, report.fallbacks) == (5, 0, 3)
    assert report.fault.startswith("observation[0]")
    report = run_loop(policy, [SOUND], acted, fallback=fallback)
    assert (report.fallbacks, report.fault) == (0, "")


def test_control_loop_holds_before_it_falls_back(export_folder) -> None:
    policy = Policy(export_folder / "policy.onnx", on_fault="hold", max_held=2)
    action, acted = policy(*SOUND), []
    report = run_loop(policy, [SOUND, *[BROKEN] * 4, SOUND], acted, fallback=[0.0, 0.0])
    np.testing.assert_array_equal(acted, [action] * 3 + [np.zeros(2)] * 2 + [action])
    assert (report.held, report.fallbacks) == (2, 2)
    assert "held 2 times" in report.fault


def test_control_loop_sends_no_fallback_that_it_does_not_have(export_folder) -> None:
    acted = []
    with pytest.raises(FaultError):
        run_loop(Policy(export_folder / "policy.onnx"), [SOUND, BROKEN, SOUND], acted)
    assert len(acted) == 1


@pytest.mark.parametrize(
    "error", [OSError("unplugged"), KeyboardInterrupt(), SystemExit(), FaultError("old")]
)
def test_control_loop_sends_the_fallback_once_when_sense_ends_it(export_folder, error) -> None:
    acted = []
    with pytest.raises(type(error)) as raised:
        run_loop(Policy(export_folder / "policy.onnx"), [SOUND, error], acted, fallback=[0.0, 0.1])
    assert raised.value is error
    np.testing.assert_array_equal(acted[1:], np.float32([[0.0, 0.1]]))


def test_control_loop_sends_the_fallback_once_when_the_policy_ends_it() -> None:
    acted = []
    with pytest.raises(ZeroDivisionError):
        run_loop(lambda observation, goal: 1 / 0, [SOUND, SOUND], acted, fallback=[0.5])
    np.testing.assert_array_equal(acted, [[0.5]])


def test_control_loop_sends_the_fallback_once_when_sleep_or_act_end_it() -> None:
    acted, clock = [], Clock()

    def interrupt(seconds):
        raise KeyboardInterrupt

    loop = ControlLoop(
        lambda observation, goal: np.ones(1),
        lambda: SOUND,
        acted.append,
        fallback=[0.5],
        period=0.02,
        clock=clock,
        sleep=interrupt,
    )
    with pytest.raises(KeyboardInterrupt):
        loop.run(2)
    np.testing.assert_array_equal(acted, [[1.0], [0.5]])

    tried = []

    def act(action):
        tried.append(action)
        raise OSError(f"message {len(tried)} was not sent")

    loop = ControlLoop(lambda *_: np.ones(1), lambda: SOUND, act, fallback=[0.5], period=0.02)
    with pytest.raises(OSError, match="message 1 was not sent") as raised:
        loop.run(2)
    np.testing.assert_array_equal(tried, [[1.0], [0.5]])
    assert str(raised.value.__context__) == "message 2 was not sent"


def test_control_loop_sends_a_new_copy_of_the_fallback(export_folder) -> None:
    acted = []

    def act(action):
        acted.append(action.copy())
        action[:] = 7.0

    clock, fallback = Clock(), np.zeros(2)
    loop = ControlLoop(
        Policy(export_folder / "policy.onnx"),
        lambda: BROKEN,
        act,
        fallback=fallback,
        clock=clock,
        sleep=clock.sleep,
    )
    fallback[:] = 5.0
    assert loop.run(3).fallbacks == 3
    np.testing.assert_array_equal(acted, np.zeros((3, 2)))


@pytest.mark.parametrize(
    ("fallback", "message"),
    [
        ([0.0], "the fallback has 1 numbers, an action 2"),
        ([0.0, np.nan], "numbers that are not finite"),
        ([0.0, 1e300], "numbers that are not finite"),
        ([0.0, 0.2], r"fallback\[1\] is 0.2, outside the action's limits -0.1 to 0.1"),
        ([-0.2, 0.0], r"fallback\[0\] is -0.2, outside"),
        (0.0, r"give an array \[act\] of numbers"),
        ([], r"give an array \[act\] of numbers"),
        ([[0.0, 0.0]], r"give an array \[act\] of numbers"),
        ("zero", r"give an array \[act\] of numbers"),
        ([True, False], r"give an array \[act\] of numbers"),
        ([[0.0], [0.0, 0.0]], r"give an array \[act\] of numbers"),
        (hostile.RaisingArray(RuntimeError()), r"give an array \[act\] of numbers"),
    ],
)
def test_control_loop_refuses_a_fallback_that_is_no_action(
    export_folder, fallback, message
) -> None:
    policy = Policy(export_folder / "policy.onnx")
    with everything_raises(), pytest.raises(ValueError, match=message):
        ControlLoop(policy, lambda: SOUND, print, fallback=fallback)


def test_control_loop_takes_a_fallback_at_the_limits(export_folder) -> None:
    physical = Policy(export_folder / "policy.onnx")
    normalized = Policy(export_folder / "policy.onnx", normalized=True)
    for policy, fallback in ((physical, [0.1, -0.1]), (normalized, [1, -1])):
        sent: list[np.ndarray] = []
        loop = ControlLoop(policy, lambda: (None, None), sent.append, fallback=fallback)
        assert loop.run(1).fallbacks == 1
        np.testing.assert_array_equal(sent, [np.float32(fallback)])
