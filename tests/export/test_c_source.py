import ctypes
import shutil
import subprocess
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from examples.bench import Reach

import export
from export.c_library import CPolicy
from export.c_source import export_c, render_header
from export.convert import convert
from export.policies import AgentPolicy
from export.session import open_session
from students import student_networks
from students.artefact import Student
from students.config import MLPConfig, SavedStudentConfig
from students.networks import layer_shapes
from teachers import InputError
from teachers.agent import Agent
from teachers.tasks import Task
from teachers.tasks.registry import get_task

CC = shutil.which("cc")
FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O2")

pytestmark = pytest.mark.skipif(CC is None, reason="there is no C compiler")


def compile_policy(folder: Path):
    """Returns the function in `policy.c` as a function of numpy arrays."""
    library = folder / "policy.so"
    assert CC
    subprocess.run(
        [CC, *FLAGS, "-shared", "-fPIC", "policy.c", "-o", library, "-lm"], cwd=folder, check=True
    )
    act = ctypes.CDLL(str(library)).policy_act
    array = np.ctypeslib.ndpointer(np.float32, flags="C_CONTIGUOUS")
    act.argtypes, act.restype = [array] * 3, None

    def call(observation: np.ndarray, goal: np.ndarray, size: int) -> np.ndarray:
        actions = np.zeros((len(observation), size), np.float32)
        for row, goals, action in zip(observation, goal, actions, strict=True):
            act(row, goals, action)
        return actions

    return call


@pytest.mark.parametrize("memory", ["history", "gru"])
@pytest.mark.parametrize("task", ["reacher", "ant"])
def test_export_c_remembers_as_jax_does(sensing, memory, task) -> None:
    """Whole episodes, each robot with a state of its own; the ant's sensors see its goal too."""
    agent = sensing(memory, task)
    sizes, random = agent.task.read_sizes, np.random.default_rng(0)
    read, goal = (
        random.normal(0, 0.5, (20, 3, sizes[name])).astype(np.float32)
        for name in ("observation", "goal")
    )
    in_c, in_jax = CPolicy(agent), AgentPolicy(agent)
    expected = []
    for row in zip(read, goal, strict=True):
        expected.append(in_jax(*row))
        np.testing.assert_allclose(in_c(*row), expected[-1], atol=1e-5)
    assert np.ptp(expected, axis=(0, 1)).max() > 0.1
    in_c.reset()
    np.testing.assert_allclose(in_c(read[0], goal[0]), expected[0], atol=1e-5)


def test_policy_reset_empties_the_state(sensing, tmp_path) -> None:
    export_c(sensing("gru"), tmp_path / "c")
    compile_policy(tmp_path / "c")
    state = np.ones(8, np.float32)
    array = np.ctypeslib.ndpointer(np.float32, flags="C_CONTIGUOUS")
    reset = ctypes.CDLL(str(tmp_path / "c" / "policy.so")).policy_reset
    reset.argtypes, reset.restype = [array], None
    reset(state)
    np.testing.assert_array_equal(state, [0.0] * 6 + [1.0] * 2)


def test_render_header_names_sensors_and_state(sensing) -> None:
    header = render_header(sensing("gru", "ant"), "task")
    assert "#define POLICY_SENSORS 22\n#define POLICY_GOAL 3\n" in header
    assert "#define POLICY_MEMORY 6\n" in header
    assert "each with a state of its own" in header
    declaration = (
        "policy_act(policy_state *state, const float *sensors, const float *goal, float *action);"
    )
    assert declaration in header


def make_agent(student: Student, task: Task, shape: MLPConfig, *, heads: bool) -> Student:
    """Returns an untrained student with these networks."""
    config = SavedStudentConfig(policy=shape, critic=shape, heads=heads, embedding=4)
    networks = student_networks(task, config, 4)
    metadata = student.metadata.model_copy(update={"task": task.name})
    assert set(layer_shapes(config)) <= set(networks.shapes)
    return Agent(networks, networks.init(jax.random.key(1)), config, metadata)


# Every two of the three settings occur together.
@pytest.mark.parametrize(
    ("activation", "normalisation", "heads"),
    [
        ("relu", False, False),
        ("relu", True, True),
        ("swish", False, True),
        ("swish", True, False),
        ("tanh", False, False),
        ("tanh", True, True),
    ],
)
def test_export_c_computes_the_same_as_jax(
    student, tmp_path, activation, normalisation, heads
) -> None:
    shape = MLPConfig(layers=2, width=12, activation=activation, normalisation=normalisation)
    agent = make_agent(student, get_task("reacher"), shape, heads=heads)
    export_c(agent, tmp_path / "c", "normalized")
    random = np.random.default_rng(0)
    observation, goal = (random.normal(0, 2, (100, n)).astype(np.float32) for n in (8, 2))
    expected = np.asarray(jax.jit(agent.networks.policy)(agent.params, observation, goal))
    assert np.abs(expected).max() > 0.1
    action = compile_policy(tmp_path / "c")(observation, goal, 2)
    np.testing.assert_allclose(action, expected, atol=1e-5)
    outputs = open_session(convert(agent, "policy", units="normalized"))(
        {"observation": observation, "goal": goal}
    )
    np.testing.assert_allclose(action, outputs["action"], atol=1e-5)


@pytest.mark.parametrize("heads", [False, True])
def test_export_c_reads_quaternions_of_either_sign(student, tmp_path, heads) -> None:
    task = Reach()
    agent = make_agent(student, task, MLPConfig(layers=2, width=12), heads=heads)
    export_c(agent, tmp_path / "c", "normalized")
    random = np.random.default_rng(0)
    observation, goal = (
        random.normal(0, 1, (50, n)).astype(np.float32)
        for n in (task.observation_size, task.goal_size)
    )
    for rows in (observation, goal):  # the last four numbers of both
        rows[:, -4:] /= np.linalg.norm(rows[:, -4:], axis=1, keepdims=True)
    expected = np.asarray(jax.jit(agent.networks.policy)(agent.params, observation, goal))
    act = compile_policy(tmp_path / "c")
    session = open_session(convert(agent, "policy", units="normalized"))
    for sign in (1, -1):
        observation[:, -4:] *= sign
        goal[:, -4:] *= sign
        np.testing.assert_allclose(act(observation, goal, 2), expected, atol=1e-5)
        outputs = session({"observation": observation, "goal": goal})
        np.testing.assert_allclose(outputs["action"], expected, atol=1e-5)


def test_export_c_keeps_actions_within_the_task_s_limits(student, tmp_path) -> None:
    agent = make_agent(student, get_task("arm_reach"), MLPConfig(layers=1, width=8), heads=False)
    export_c(agent, tmp_path / "c")
    task = agent.task
    random = np.random.default_rng(0)
    observation, goal = (
        random.normal(0, 5, (100, n)).astype(np.float32)
        for n in (task.observation_size, task.goal_size)
    )
    normalized = np.asarray(jax.jit(agent.networks.policy)(agent.params, observation, goal))
    low, high = (
        np.array([getattr(field, end) for field in task.action], np.float32)
        for end in ("low", "high")
    )
    act = compile_policy(tmp_path / "c")
    action = act(observation, goal, task.action_size)
    np.testing.assert_allclose(action, low + (normalized + 1) / 2 * (high - low), atol=1e-4)
    assert (action >= np.minimum(low, high)).all()
    assert (action <= np.maximum(low, high)).all()
    observation[0] = np.nan
    assert np.isnan(act(observation, goal, task.action_size)[0]).all()


def test_render_header_names_every_field(student) -> None:
    header = render_header(student, "task")
    for words in (
        "observation[4..5]: joint_velocity",
        "(N m, -0.1 to 0.1)",
        "POLICY_ACTION 2",
        "0.0199999996f /* s */",
    ):
        assert words in header


@pytest.mark.parametrize("compiler", [["cc", "-std=c99"], ["c++", "-std=c++17", "-x", "c++"]])
def test_control_loop_example_runs_at_the_control_period(student, tmp_path, compiler) -> None:
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"there is no {compiler[0]}")
    export_c(student, tmp_path / "c")
    example = Path(export.__file__).parent / "examples" / "control_loop.c"
    shutil.copy(example, tmp_path / "c")
    files = ["control_loop.c", "policy.c", "-o", "loop", "-lm"]
    flags = [flag for flag in FLAGS if not flag.startswith("-std")]
    language = [*compiler[2:], *files[:2], *(["-x", "none"] if compiler[2:] else []), *files[2:]]
    subprocess.run([*compiler[:2], *flags, *language], cwd=tmp_path / "c", check=True)
    begun = time.monotonic()
    done = subprocess.run(
        ["./loop", "25"], cwd=tmp_path / "c", check=True, capture_output=True, text=True
    )
    assert time.monotonic() - begun >= 25 * 0.02
    assert done.stdout.startswith("25 steps")
    assert done.stdout.endswith(", 0 with the fallback\n")


def run_control_loop(folder: Path, source: str, steps: int) -> str:
    """Compiles a version of the example beside the policy, runs so many steps of it, and returns what it prints."""
    (folder / "control_loop.c").write_text(source)
    command = [CC, *FLAGS, "control_loop.c", "policy.c", "-o", "loop", "-lm"]
    subprocess.run(command, cwd=folder, check=True)
    command = ["./loop", str(steps)]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("memory", ["none", "history", "gru"])
def test_control_loop_example_does_not_remember_faults(sensing, tmp_path, memory) -> None:
    """One broken reading costs one fallback, and where it was remembered all that follow would be at fault."""
    export_c(sensing(memory), tmp_path / "c")
    example = (Path(export.__file__).parent / "examples" / "control_loop.c").read_text()
    broken = example.replace(
        "    for (int i = 0; i < READ; i++)\n        read[i] = 0.0f;",
        "    static int calls = 0;\n    calls++;\n"
        "    for (int i = 0; i < READ; i++)\n        read[i] = calls == 3 ? NAN : calls == 6 ? 3e38f : 0.1f;",
    )
    assert broken != example
    printed = run_control_loop(tmp_path / "c", broken, 12)
    # A large number gives no finite action; a GRU may stay finite.
    fallbacks = int(printed.split()[-4])
    assert 1 <= fallbacks <= 2, printed


@pytest.mark.parametrize("reading", ["NAN", "-INFINITY", "3e38f"])
@pytest.mark.parametrize("array", ["read", "goal"])
def test_control_loop_example_sends_its_fallback_at_a_fault(
    student, tmp_path, array, reading
) -> None:
    export_c(student, tmp_path / "c")
    example = (Path(export.__file__).parent / "examples" / "control_loop.c").read_text()
    broken = example.replace(
        f"{array}[i] = 0.0f;", f"{array}[i] = i % 2 ? {reading} : -({reading});"
    )
    assert broken != example
    assert run_control_loop(tmp_path / "c", broken, 3).endswith(", 3 with the fallback\n")


def test_export_c_refuses_a_teacher(teacher, tmp_path) -> None:
    with pytest.raises(InputError, match="too deep for a microcontroller"):
        export_c(teacher, tmp_path / "c")
    assert not (tmp_path / "c").exists()
