"""Checks what a graph is made of: basic operators, weights inside the file, and loops of a fixed length."""

import math

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from export.admission.refusal import refusal_error
from export.graph import walk_graphs

MAX_DEPTH = 1  # of graphs inside graphs: a loop has a body, but no loop inside
MAX_NODES = 2000
MAX_LOOP_STEPS = 4096  # a teacher's blocks are the steps of a loop
BYTES_PER_NUMBER = {
    TensorProto.FLOAT: 4,
    TensorProto.FLOAT16: 2,
    TensorProto.INT64: 8,
    TensorProto.INT32: 4,
    TensorProto.INT8: 1,
    TensorProto.UINT8: 1,
    TensorProto.BOOL: 1,
}
# All operators that `convert` and `reduce_precision` write.
OPERATORS = frozenset(
    (
        *("Add", "Cast", "Clip", "Concat", "Constant", "DequantizeLinear", "Div", "Exp", "Expand", "Gather"),
        *("Gemm", "Identity", "LayerNormalization", "Loop", "MatMul", "Max", "Mean", "Min", "Mul", "Neg"),
        *("Pow", "QuantizeLinear", "Reciprocal", "ReduceMean", "ReduceSum", "ReduceSumSquare", "Relu"),
        *("Reshape", "Shape", "Sigmoid", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Swish", "Tanh", "Transpose", "Unsqueeze"),
    )
)  # fmt: skip


def require_basic_structure(model: ModelProto, source: str) -> None:
    """Raises an error if a graph has other operators, weights or loops than an exported policy can have.

    Raises:
        InputError: the message, which names the file as `source`, says what is wrong.
    """
    node_count = 0
    for graph, depth in walk_graphs(model.graph):
        if depth > MAX_DEPTH:
            raise refusal_error(source, "has graphs within graphs within graphs")
        if graph.sparse_initializer:
            raise refusal_error(source, "has sparse weights")
        node_count += len(graph.node)
        if node_count > MAX_NODES:
            raise refusal_error(source, f"has more than {MAX_NODES:,} operators")
        for tensor in graph.initializer:
            _require_valid_weights(tensor, source)
        for node in graph.node:
            if node.op_type not in OPERATORS or node.domain:
                raise refusal_error(
                    source, f"has the operator {node.op_type!r:.60}, which no policy needs"
                )
            for attribute in node.attribute:
                _require_valid_attribute(attribute, source)
            if node.op_type == "Loop":
                _require_short_loop(node, graph, source)


def count_loop_steps(node: NodeProto, graph: GraphProto) -> int | None:
    """Returns the number of steps of a loop; None unless it is a constant of the graph around the loop."""
    for tensor in graph.initializer:
        if node.input and tensor.name == node.input[0] and math.prod(tensor.dims) == 1:
            return int(onnx.numpy_helper.to_array(tensor).reshape(()))
    return None


def _require_valid_attribute(attribute: AttributeProto, source: str) -> None:
    if attribute.sparse_tensors or attribute.HasField("sparse_tensor") or attribute.tensors:
        raise refusal_error(source, "has operators with weights of an unusual kind")
    if attribute.HasField("t"):
        _require_valid_weights(attribute.t, source)


def _require_valid_weights(tensor: TensorProto, source: str) -> None:
    name = f"{tensor.name!r:.60}"
    if tensor.data_location != TensorProto.DEFAULT or tensor.external_data:
        raise refusal_error(source, f"keeps the weights {name} in another file")
    if tensor.data_type not in BYTES_PER_NUMBER:
        raise refusal_error(source, f"has weights {name} of an unusual type")
    if any(size < 0 for size in tensor.dims):
        raise refusal_error(source, f"has weights {name} of a negative size")
    declared_count, stored_count = math.prod(tensor.dims), _count_stored_numbers(tensor)
    if declared_count != stored_count:
        raise refusal_error(
            source, f"has weights {name} of {declared_count:,} numbers but holds {stored_count:,g}"
        )
    try:
        array = onnx.numpy_helper.to_array(tensor)
    except Exception:  # the numbers are in the protobuf field of another type
        raise refusal_error(source, f"has weights {name} that cannot be read") from None
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise refusal_error(source, f"has weights {name} that are not finite")


def _count_stored_numbers(tensor: TensorProto) -> float:
    """Returns how many numbers a tensor holds, as raw bytes or in the protobuf field of their type."""
    if tensor.raw_data:
        return len(tensor.raw_data) / BYTES_PER_NUMBER[tensor.data_type]
    return max(len(tensor.float_data), len(tensor.int32_data), len(tensor.int64_data))


def _require_short_loop(node: NodeProto, graph: GraphProto, source: str) -> None:
    steps = count_loop_steps(node, graph)
    if steps is None:
        raise refusal_error(source, "has a loop of no fixed length")
    if not 0 <= steps <= MAX_LOOP_STEPS:
        raise refusal_error(source, f"has a loop of more than {MAX_LOOP_STEPS:,} steps")
    # Its inputs are the number of steps, a condition and the carried arrays. An output more would collect an array of
    # every step.
    if len(node.output) != len(node.input) - 2:
        raise refusal_error(source, "has a loop that gives more than it carries")
