import jax
import numpy as np
import pytest
from onnx import TensorProto

from export.convert import convert
from export.graph import graph_precision
from export.precision import reduce_precision
from export.session import open_session
from students import student_networks
from students.config import MLPConfig, SavedStudentConfig
from teachers.agent import Agent
from teachers.tasks.registry import get_task

ROWS = 200


@pytest.fixture(scope="module")
def arm_student(student) -> Agent:
    """A student whose actions are often at their limits, in a task whose limits are no float16 numbers."""
    shape = MLPConfig(layers=1, width=8)
    config = SavedStudentConfig(policy=shape, critic=shape, embedding=4)
    networks = student_networks(get_task("arm_reach"), config, 4)
    params = jax.tree.map(lambda x: 20 * x, networks.init(jax.random.key(0)))
    metadata = student.metadata.model_copy(update={"task": "arm_reach"})
    return Agent(networks, params, config, metadata)


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_reduce_precision_computes_nearly_the_same_within_the_limits(
    arm_student, precision
) -> None:
    random, task = np.random.default_rng(0), arm_student.task
    rows = {
        name: random.normal(0, 1, (ROWS, task.sizes[name])).astype(np.float32)
        for name in ("observation", "goal")
    }
    model = reduce_precision(convert(arm_student, "policy"), precision, rows)
    assert graph_precision(model) == precision
    ends = [*model.graph.input, *model.graph.output]
    assert {end.type.tensor_type.elem_type for end in ends} == {TensorProto.FLOAT}
    action = open_session(model)(rows)["action"]
    expected = task.to_actuator_units(
        np.asarray(jax.jit(arm_student.networks.policy)(arm_student.params, **rows))
    )
    low, high = task.action_limits
    assert (action >= np.minimum(low, high)).all()
    assert (action <= np.maximum(low, high)).all()
    error = np.abs(action - expected) / np.abs(high - low)
    assert error.mean() < {"float32": 1e-6, "float16": 1e-3, "int8": 0.05}[precision]
    assert (error.max() < 1e-5) == (precision == "float32")
