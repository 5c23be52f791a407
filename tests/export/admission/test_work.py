"""Graphs that ask for too much memory or work: each is refused in one line, before ONNX Runtime sees it."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.helper import make_graph, make_node, make_tensor_value_info
from onnx_edits import add_nodes, admit, load_fixture

from teachers import InputError


def expand_to_huge_size(model: onnx.ModelProto) -> None:
    add_nodes(model, make_node("Expand", ["goal", "huge"], ["many"]), huge=[2**20, 2**10, 2])


def expand_to_computed_size(model: onnx.ModelProto) -> None:
    shape, sizes = make_node("Shape", ["goal"], ["s"]), make_node("Mul", ["s", "factor"], ["sizes"])
    expand = make_node("Expand", ["goal", "sizes"], ["many"])
    add_nodes(model, shape, sizes, expand, factor=[2**20, 1])


def multiply_all_pairs_of_rows(model: onnx.ModelProto) -> None:
    transpose = make_node("Transpose", ["goal"], ["transposed"])
    add_nodes(model, transpose, make_node("MatMul", ["goal", "transposed"], ["pairs"]))


def double_batch(model: onnx.ModelProto) -> None:
    add_nodes(model, make_node("Concat", ["goal", "goal"], ["twice"], axis=0))


def double_sizes_repeatedly(model: onnx.ModelProto) -> None:
    nodes = [make_node("Shape", ["goal"], ["c0"])]
    nodes += [make_node("Concat", [f"c{i}"] * 2, [f"c{i + 1}"], axis=0) for i in range(30)]
    add_nodes(model, *nodes)


def add_loop(model: onnx.ModelProto, *outputs: str) -> None:
    """Adds a loop of 4,096 steps with 100 matrix products each, which gives some of the products."""
    matrix = onnx.numpy_helper.from_array(np.eye(256, dtype=np.float32), "matrix")
    true = onnx.numpy_helper.from_array(np.array(True), "true")

    def array(name: str) -> onnx.ValueInfoProto:
        return make_tensor_value_info(name, TensorProto.FLOAT, [256, 256])

    def flag(name: str) -> onnx.ValueInfoProto:
        return make_tensor_value_info(name, TensorProto.BOOL, [])

    products = [make_node("MatMul", [f"m{i}", "matrix"], [f"m{i + 1}"]) for i in range(100)]
    body = make_graph(
        [make_node("Identity", ["condition"], ["next_condition"]), *products],
        "body",
        [make_tensor_value_info("step", TensorProto.INT64, []), flag("condition"), array("m0")],
        [flag("next_condition"), *(array(name) for name in outputs)],
    )
    model.graph.initializer.extend([matrix, true])
    loop_outputs = [f"loop_{name}" for name in outputs]
    loop = make_node("Loop", ["steps", "true", "matrix"], loop_outputs, body=body)
    add_nodes(model, loop, steps=[4096])


def multiply_in_long_loop(model: onnx.ModelProto) -> None:
    add_loop(model, "m100")


def collect_arrays_of_all_steps(model: onnx.ModelProto) -> None:
    add_loop(model, "m100", "m50")


def add_many_large_arrays(model: onnx.ModelProto) -> None:
    nodes = [make_node("Expand", ["one", "wide"], ["x0"])]
    nodes += [make_node("Add", [f"x{i}", f"x{i}"], [f"x{i + 1}"]) for i in range(1900)]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((1, 1), np.float32), "one"))
    add_nodes(model, *nodes, wide=[1, 2**16])


HOSTILE = {
    expand_to_huge_size: "gives arrays sizes",
    expand_to_computed_size: "gives arrays sizes",
    multiply_all_pairs_of_rows: "larger than a policy's",
    double_batch: "joins batches",
    double_sizes_repeatedly: "joins more arrays",
    multiply_in_long_loop: "computes more than a policy",
    collect_arrays_of_all_steps: "gives more than it carries",
    add_many_large_arrays: "computes more than a policy",
}


@pytest.mark.parametrize("edit", HOSTILE, ids=lambda edit: edit.__name__)
def test_require_limited_work_refuses_hostile_graphs(edit) -> None:
    model = load_fixture()
    edit(model)
    with pytest.raises(InputError, match=HOSTILE[edit]) as refused:
        admit(model)
    assert "\n" not in str(refused.value)
