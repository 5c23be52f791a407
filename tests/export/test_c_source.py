import ctypes
import shutil
import subprocess
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import export
from export.c_source import export_c, render_header
from export.convert import convert
from export.session import open_session
from students import load_student, student_networks
from students.config import MLPConfig, SavedStudentConfig
from students.networks import layer_shapes
from teachers import InputError, load_teacher
from teachers.agent import Agent
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


def make_student(student_run: Path, task: str, shape: MLPConfig, *, heads: bool) -> Agent:
    config = SavedStudentConfig(policy=shape, critic=shape, heads=heads, embedding=4)
    networks = student_networks(get_task(task), config, 4)
    metadata = load_student(student_run).metadata
    described = {**metadata.config, "student": config.model_dump(), "embedding": 4}
    metadata = metadata.model_copy(update={"task": task, "config": described})
    assert set(layer_shapes(config)) <= set(networks.shapes)
    return Agent(networks, networks.init(jax.random.key(1)), config, metadata)


@pytest.mark.parametrize("heads", [False, True])
@pytest.mark.parametrize("normalisation", [False, True])
@pytest.mark.parametrize("activation", ["relu", "swish", "tanh"])
def test_export_c_computes_the_same_as_jax(
    student_run, tmp_path, heads, normalisation, activation
) -> None:
    shape = MLPConfig(layers=2, width=12, activation=activation, normalisation=normalisation)
    student = make_student(student_run, "reacher", shape, heads=heads)
    export_c(student, tmp_path / "c", "normalized")
    random = np.random.default_rng(0)
    observation, goal = (random.normal(0, 2, (100, n)).astype(np.float32) for n in (8, 2))
    expected = np.asarray(jax.jit(student.networks.policy)(student.params, observation, goal))
    assert np.abs(expected).max() > 0.1
    found = compile_policy(tmp_path / "c")(observation, goal, 2)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    in_onnx = open_session(convert(student, "policy", units="normalized"))
    given = {"observation": observation, "goal": goal}
    np.testing.assert_allclose(found, in_onnx(given)["action"], atol=1e-5)


def test_export_c_keeps_actions_within_the_task_s_limits(student_run, tmp_path) -> None:
    student = make_student(student_run, "arm_reach", MLPConfig(layers=1, width=8), heads=False)
    export_c(student, tmp_path / "c")
    task = student.task
    random = np.random.default_rng(0)
    observation, goal = (
        random.normal(0, 5, (100, n)).astype(np.float32)
        for n in (task.observation_size, task.goal_size)
    )
    action = np.asarray(jax.jit(student.networks.policy)(student.params, observation, goal))
    low, high = (
        np.array([getattr(field, end) for field in task.action], np.float32)
        for end in ("low", "high")
    )
    found = compile_policy(tmp_path / "c")(observation, goal, task.action_size)
    np.testing.assert_allclose(found, low + (action + 1) / 2 * (high - low), atol=1e-4)
    observation[0] = np.nan
    assert np.isnan(compile_policy(tmp_path / "c")(observation, goal, task.action_size)[0]).all()
    assert (found >= np.minimum(low, high)).all()
    assert (found <= np.maximum(low, high)).all()


def test_render_header_names_every_field(student_run) -> None:
    header = render_header(load_student(student_run), "task")
    for words in (
        "observation[4..5]: joint_velocity",
        "(N m, -0.1 to 0.1)",
        "POLICY_ACTION 2",
        "0.0199999996f /* s */",
    ):
        assert words in header


@pytest.mark.parametrize("compiler", [["cc", "-std=c99"], ["c++", "-std=c++17", "-x", "c++"]])
def test_control_loop_example_runs_at_the_control_period(student_run, tmp_path, compiler) -> None:
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"there is no {compiler[0]}")
    export_c(load_student(student_run), tmp_path / "c")
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


def test_export_c_refuses_a_teacher(teacher_run, tmp_path) -> None:
    with pytest.raises(InputError, match="too deep for a microcontroller"):
        export_c(load_teacher(teacher_run), tmp_path / "c")
    assert not (tmp_path / "c").exists()
