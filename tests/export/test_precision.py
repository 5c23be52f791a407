import jax
import numpy as np
import pytest
from onnx import TensorProto

from export.contract import precision_of
from export.convert import convert
from export.precision import reduced
from export.session import open_session
from students import load_student, student_networks
from students.config import MLPConfig, SavedStudentConfig
from teachers.agent import Agent
from teachers.tasks.registry import get_task

ROWS = 200


@pytest.fixture(scope="module")
def eager(student_run) -> Agent:
    """A student of a task with limits that float16 has not, whose actions often lie at them."""
    shape = MLPConfig(layers=1, width=8)
    config = SavedStudentConfig(policy=shape, critic=shape, embedding=4)
    networks = student_networks(get_task("arm_reach"), config, 4)
    params = jax.tree.map(lambda x: 20 * x, networks.init(jax.random.key(0)))
    metadata = load_student(student_run).metadata.model_copy(update={"task": "arm_reach"})
    return Agent(networks, params, config, metadata)


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_files_in_fewer_bits_compute_nearly_the_same_within_the_limits(eager, precision) -> None:
    random, task = np.random.default_rng(0), eager.task
    rows = {
        name: random.normal(0, 1, (ROWS, task.sizes[name])).astype(np.float32)
        for name in ("observation", "goal")
    }
    model = reduced(convert(eager, "policy"), precision, rows)
    assert precision_of(model) == precision
    ends = [*model.graph.input, *model.graph.output]
    assert {end.type.tensor_type.elem_type for end in ends} == {TensorProto.FLOAT}
    action = open_session(model)(rows)["action"]
    expected = task.to_actuator_units(
        np.asarray(jax.jit(eager.networks.policy)(eager.params, **rows))
    )
    low, high = task.action_limits
    assert (action >= np.minimum(low, high)).all()
    assert (action <= np.maximum(low, high)).all()
    wrong = np.abs(action - expected) / np.abs(high - low)
    assert wrong.mean() < {"float32": 1e-6, "float16": 1e-3, "int8": 0.05}[precision]
    assert (wrong.max() < 1e-5) == (precision == "float32")
