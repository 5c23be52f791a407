"""Files of students that read sensors and remember: the contract, the runtime, and what `verify` says of them."""

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from onnx_edits import set_entry

from export import ControlLoop, Critic, Form, Policy, play_in_c
from export.admission import read_contract, read_model
from export.artefacts import open_policy
from export.c_library import find_compiler
from export.closed_loop import MIN_EPISODES
from export.parity import record_episodes
from export.policies import AgentPolicy
from export.runtime import FaultError
from export.verify import verify
from students.memory import see_episodes
from teachers import InputError

MEMORIES = ["history", "gru"]
SLOWER = [
    pytest.param("history", marks=pytest.mark.slow),
    "gru",
]  # where each needs files of its own
STEPS, ROBOTS = 12, 3


@pytest.fixture(scope="module")
def readings():
    """What three robots read in 12 control steps, and their goals: `[time, robot, n]`."""
    random = np.random.default_rng(0)
    read = random.normal(0, 0.3, (STEPS, ROBOTS, 4)).astype(np.float32)
    goal = np.broadcast_to(random.normal(0, 0.1, (ROBOTS, 2)), (STEPS, ROBOTS, 2))
    return read, np.ascontiguousarray(goal, np.float32)


def play(policy, read, goal):
    return np.stack([np.array(policy(*row)) for row in zip(read, goal, strict=True)])


@pytest.fixture(params=MEMORIES)
def memory(request):
    return request.param


@pytest.fixture
def expected(sensing, memory, readings):
    """The actions that JAX computes, in the task's units."""
    student = sensing(memory)
    return student.task.to_actuator_units(play(AgentPolicy(student), *readings))


@pytest.fixture
def policy(sensing_files, memory):
    files = sensing_files(memory)
    return Policy(files["policy"], critic=files["critic"], margin=None)


def test_policy_remembers_as_jax_does(policy, readings, expected) -> None:
    assert policy.inputs == ("sensors", "goal")
    actions = play(policy, *readings)
    np.testing.assert_allclose(actions, expected, atol=1e-6)
    # What was read before matters, and the order of the robots does not.
    assert np.abs(actions - actions[:1]).max() > 1e-3
    read, goal = readings
    for robot in range(ROBOTS):
        policy.reset()
        one = play(policy, read[:, robot], goal[:, robot])
        np.testing.assert_allclose(one, expected[:, robot], atol=1e-6)


def test_reset_starts_an_episode(policy, readings) -> None:
    read, goal = (each[:, 0] for each in readings)
    first = play(policy, read, goal)
    went_on = play(policy, read, goal)
    assert (first[0] != went_on[0]).any()
    policy.reset()
    np.testing.assert_array_equal(play(policy, read, goal), first)


def test_batch_of_another_size_needs_a_reset(policy, readings) -> None:
    read, goal = readings
    policy(read[0], goal[0])
    for rows in (slice(0, 2), 0):
        with pytest.raises(
            ValueError, match=r"the memory has shape .* call `reset` before another batch"
        ):
            policy(read[1][rows], goal[1][rows])
    policy.reset()
    assert policy(read[1][:2], goal[1][:2]).shape == (2, 2)


def test_fault_leaves_the_memory_as_it_was(sensing_files, memory, readings) -> None:
    read, goal = (each[:, 0] for each in readings)
    file = sensing_files(memory)["policy"]
    policy, other = Policy(file, margin=None, on_fault="hold"), Policy(file, margin=None)
    for step in range(3):
        action = policy(read[step], goal[step])
        np.testing.assert_array_equal(action, other(read[step], goal[step]))
    broken = np.full(4, np.nan, np.float32)
    np.testing.assert_array_equal(policy(broken, goal[3]), action)  # held
    with pytest.raises(FaultError, match=r"sensors\[0\] .* look for a broken sensor"):
        other(broken, goal[3])
    for step in range(4, STEPS):
        np.testing.assert_array_equal(policy(read[step], goal[step]), other(read[step], goal[step]))
    # The last safe action belongs to the episode.
    policy.reset()
    with pytest.raises(FaultError):
        policy(broken, goal[0])


def test_reachability_has_the_memory_of_the_last_action(policy, sensing, memory, readings) -> None:
    student = sensing(memory)
    read, goal = map(jnp.asarray, readings)
    seen, before = see_episodes(student.networks, student.params, read)
    action = student.networks.policy(student.params, seen, goal)
    value = np.asarray(student.networks.critic(student.params, seen, goal, action))
    calibration = policy._critic.metadata["reachability"]
    expected = 1 / (1 + np.exp(-(calibration["scale"] * value + calibration["offset"])))
    critic, (read, goal) = policy._critic, readings
    for step in range(STEPS):
        sent = policy(read[step], goal[step])
        found = policy.reachability(read[step], goal[step])
        np.testing.assert_allclose(found, expected[step], atol=1e-4)
        state = np.asarray(before[step])
        np.testing.assert_allclose(
            critic(read[step], goal[step], sent, state), value[step], atol=1e-4
        )
    with pytest.raises(ValueError, match="the memory has shape"):
        critic(read[0], goal[0], sent, state[0])
    # Without a state it is the start of an episode.
    first = critic(read[0], goal[0], student.task.to_actuator_units(np.asarray(action[0])))
    np.testing.assert_allclose(first, value[0], atol=1e-4)


@pytest.mark.parametrize("memory", SLOWER)
def test_combined_file_does_both(sensing_files, memory, readings, expected) -> None:
    policy = Policy(sensing_files(memory, Form(combined=True))["combined"], margin=None)
    apart = sensing_files(memory)
    both = Policy(apart["policy"], critic=apart["critic"], margin=None)
    for read, goal, action in zip(*readings, expected, strict=True):
        np.testing.assert_allclose(policy(read, goal), action, atol=1e-6)
        both(read, goal)
        np.testing.assert_allclose(
            policy.reachability(read, goal), both.reachability(read, goal), atol=0.05
        )


def test_control_loop_starts_an_episode(policy, readings) -> None:
    read, goal = (each[:, 0] for each in readings)
    acted = []
    for _ in range(2):
        rows = iter(zip(read, goal, strict=True))
        loop = ControlLoop(policy, rows.__next__, acted.append, sleep=lambda _: None, period=1e-6)
        assert loop.run(STEPS).steps == STEPS
    np.testing.assert_array_equal(acted[:STEPS], acted[STEPS:])


def test_contract_describes_sensors_and_memory(sensing_files, memory, sensing) -> None:
    file = sensing_files(memory)["policy"]
    contract = read_contract(read_model(file), file)
    assert contract.contract_version == 2
    assert list(contract.inputs) == ["sensors", "goal", "state"]
    assert list(contract.outputs) == ["action", "next_state"]
    angles, declared = contract.inputs["sensors"][0], sensing(memory).task.sensors[0]
    assert (angles.noise, angles.delay, angles.every) == (
        declared.noise,
        declared.delay,
        declared.every,
    )
    assert angles.seen_low is not None
    assert contract.inputs["state"] == contract.outputs["next_state"]
    assert contract.signature.memory_size == sensing(memory).networks.memory_size
    assert contract.metrics["exported_time_at_goal"] >= 0


def test_student_without_memory_reads_sensors(sensing_files, sensing, readings) -> None:
    policy = Policy(sensing_files("none")["policy"], margin=None)
    student = sensing("none")
    expected = student.task.to_actuator_units(play(AgentPolicy(student), *readings))
    np.testing.assert_allclose(play(policy, *readings), expected, atol=1e-6)
    assert policy.memory_size == 0
    # It has nothing to forget.
    policy(readings[0][0, :2], readings[1][0, :2])


def test_critic_without_memory_takes_no_state(sensing_files, readings) -> None:
    critic = Critic(sensing_files("none")["critic"])
    read, goal = (each[0] for each in readings)
    with pytest.raises(ValueError, match="remembers nothing; leave out its state"):
        critic(read, goal, np.zeros((ROBOTS, 2)), np.zeros((ROBOTS, 1), np.float32))


@pytest.mark.parametrize("memory", [pytest.param("none", marks=pytest.mark.slow), *SLOWER])
def test_verify_passes_files_of_students_that_read_sensors(sensing_files, sensing, memory) -> None:
    files = sensing_files(memory)
    checks = {
        check.name: check
        for check in verify(files["policy"], sensing(memory), episodes=MIN_EPISODES)
    }
    timeless = {name: check for name, check in checks.items() if name != "latency"}
    assert all(check.ok for check in timeless.values()), timeless
    assert ("sequences" in checks) == (memory != "none")
    if memory != "none":
        assert 0 < checks["sequences"].value["jax"] < 1e-4
        assert 0 <= checks["sequences"].value["reference"] < 1e-4
        if find_compiler():
            assert 0 < checks["sequences"].value["c"] < 1e-4
    critic = list(verify(files["critic"], sensing(memory), episodes=MIN_EPISODES))
    assert all(check.ok for check in critic), critic


@pytest.mark.slow
def test_verify_finds_a_memory_that_is_not_carried(sensing_files, sensing, tmp_path) -> None:
    """Where the file returns the memory that it was given, single steps agree and whole episodes do not."""
    model = onnx.load(sensing_files("gru")["policy"])
    (node,) = (node for node in model.graph.node if "next_state" in node.output)
    node.output[:] = ["forgotten"]
    node.name = "last"
    for other in model.graph.node:
        other.input[:] = ["forgotten" if name == "next_state" else name for name in other.input]
    model.graph.node.append(onnx.helper.make_node("Identity", ["state"], ["next_state"]))
    operators = sorted({node.op_type for node in model.graph.node})
    set_entry(model, "operators", operators)
    path = tmp_path / "policy.onnx"
    onnx.save(model, path)
    checks = {c.name: c for c in verify(path, sensing("gru"), episodes=1)}
    assert checks["parity_jax"].ok
    assert not checks["sequences"].ok


def test_open_policy_plays_with_sensors(sensing_files, sensing, memory) -> None:
    opened = open_policy(sensing_files(memory)["policy"])
    assert opened.task.senses
    student = sensing(memory)
    recording = play_in_c(opened.task, opened.act, 3, 5)
    assert recording.read.shape == (100, 3, 4)
    assert recording.observation.shape == (100, 3, 8)
    # The encoders err, the observation does not.
    assert 0 < np.abs(recording.read - recording.observation[..., :4]).max() < 0.1
    in_jax = record_episodes(student, 3, 5)
    np.testing.assert_allclose(recording.action, in_jax.action, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_files_of_other_precisions_remember(
    sensing_files, memory, readings, expected, precision
) -> None:
    file = sensing_files(memory, Form(precision=precision))["policy"]
    actions = play(Policy(file, margin=None), *readings)
    assert 0 < np.abs(actions - expected).max() < 0.02


def test_file_whose_arrays_are_not_those_of_its_version_is_refused(sensing_files, tmp_path) -> None:
    model = onnx.load(sensing_files("history")["policy"])
    set_entry(model, "contract_version", 1)
    path = tmp_path / "policy.onnx"
    onnx.save(model, path)
    with pytest.raises(InputError, match="declares contract_version 1, but has 2"):
        read_contract(read_model(path), str(path))


def test_see_episodes_is_empty_at_the_first_step(sensing, memory, readings) -> None:
    student = sensing(memory)
    _, before = jax.jit(lambda params, read: see_episodes(student.networks, params, read))(
        student.params, readings[0]
    )
    assert not before[0].any()
    assert np.abs(before[1:]).min(axis=(0, 1)).max() > 0
