import jax
import numpy as np
import onnx
import onnxruntime
import pytest

from export.convert import convert
from export.graph import operator_types
from students import MLPConfig, student_networks
from students.config import SavedStudentConfig
from teachers import InputError
from teachers.agent import Agent
from teachers.tasks.registry import get_task


def run(model: onnx.ModelProto, **inputs: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)[0]


def random_inputs(batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(batch)
    return tuple(random.standard_normal((batch, n)).astype(np.float32) for n in (8, 2, 2))


TORQUE = 0.1  # N m, for which an action of 1 stands in the reacher


@pytest.mark.parametrize("batch", [1, 7])
def test_convert_computes_the_same_as_jax_at_any_batch(export_folder, student, batch) -> None:
    observation, goal, action = random_inputs(batch)
    policy = run(onnx.load(export_folder / "policy.onnx"), observation=observation, goal=goal)
    expected = jax.jit(student.networks.policy)(student.params, observation, goal)
    np.testing.assert_allclose(policy / TORQUE, expected, atol=1e-5)
    assert np.abs(policy).max() <= np.float32(TORQUE)
    value = run(
        onnx.load(export_folder / "critic.onnx"),
        observation=observation,
        goal=goal,
        action=np.float32(TORQUE) * action,
    )
    expected = jax.jit(student.networks.critic)(student.params, observation, goal, action)
    np.testing.assert_allclose(value, expected, atol=1e-5)


@pytest.mark.parametrize("heads", [False, True])
@pytest.mark.parametrize("activation", ["swish", "tanh"])
def test_convert_takes_every_kind_of_student(student, heads, activation) -> None:
    shape = MLPConfig(layers=2, width=8, activation=activation, normalisation=True)
    config = SavedStudentConfig(policy=shape, critic=shape, heads=heads, embedding=3)
    networks = student_networks(get_task("reacher"), config, 4)
    agent = Agent(networks, networks.init(jax.random.key(0)), config, student.metadata)
    observation, goal, action = random_inputs(5)
    outputs = run(convert(agent, "policy", units="normalized"), observation=observation, goal=goal)
    expected = jax.jit(networks.policy)(agent.params, observation, goal)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    outputs = run(
        convert(agent, "critic", units="normalized"),
        observation=observation,
        goal=goal,
        action=action,
    )
    expected = jax.jit(networks.critic)(agent.params, observation, goal, action)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


def test_convert_takes_a_teacher(teacher) -> None:
    observation, goal, _ = random_inputs(5)
    action = run(convert(teacher, "policy", units="normalized"), observation=observation, goal=goal)
    expected = jax.jit(teacher.networks.policy)(teacher.params, observation, goal)
    np.testing.assert_allclose(action, expected, atol=1e-5)


def test_convert_writes_files_for_old_runtimes(export_folder) -> None:
    for name in ("policy", "critic"):
        model = onnx.load(export_folder / f"{name}.onnx")
        onnx.checker.check_model(model, full_check=True)
        assert model.ir_version == 8
        assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
        shapes = [
            [d.dim_param or d.dim_value for d in node.type.tensor_type.shape.dim]
            for node in (*model.graph.input, *model.graph.output)
        ]
        assert all(isinstance(shape[0], str) for shape in shapes)  # the batch is symbolic


@pytest.mark.parametrize("opset", [13, 16, 17, 18, 26])
def test_convert_computes_the_same_in_every_opset(student, opset) -> None:
    shape = MLPConfig(layers=1, width=8, normalisation=True)
    config = SavedStudentConfig(policy=shape, critic=shape, embedding=4)
    networks = student_networks(get_task("reacher"), config, 4)
    agent = Agent(networks, networks.init(jax.random.key(0)), config, student.metadata)
    model = convert(agent, "policy", units="normalized", opset=opset)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", opset)]
    assert ("LayerNormalization" in operator_types(model)) == (opset >= 17)
    observation, goal, _ = random_inputs(5)
    expected = jax.jit(networks.policy)(agent.params, observation, goal)
    np.testing.assert_allclose(run(model, observation=observation, goal=goal), expected, atol=1e-5)


@pytest.mark.parametrize("opset", [12, 27])
def test_convert_refuses_other_opsets(student, opset) -> None:
    with pytest.raises(
        InputError, match=f"opset {opset} cannot be written; give one from 13 to 26"
    ):
        convert(student, "policy", opset=opset)
