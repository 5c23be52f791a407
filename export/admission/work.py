"""Limits the memory and the work of a graph: the sizes of its arrays, and its multiplications.

What a file declares about its arrays may be wrong. Their shapes are inferred without these declarations.
"""

import math
from collections.abc import Mapping

import onnx
from onnx import GraphProto, ModelProto, NodeProto

from export.admission.refusal import refusal_error
from export.admission.structure import count_loop_steps
from export.graph import PRODUCTS, walk_graphs

# The limit of multiplications for each row of a batch: this many, and so many more for each weight.
BASE_WORK, WORK_PER_WEIGHT = 2**26, 8
MAX_ROW_SIZE = 2**16  # numbers in an array for each row of a batch
MAX_CONCATS = 8  # of observations, actions and goals; joined sizes do not count
MAX_CONCAT_INPUTS = 8
# The shape inference of older opsets tells less about the same operators.
MIN_INFERENCE_OPSET = 15

Shapes = Mapping[str, list[int | None]]  # None is the batch's size


def require_limited_work(model: ModelProto, source: str) -> None:
    """Raises an error if a graph has large arrays, or computes more than a policy does.

    An array may have as many numbers as the largest of the weights, or 65,536 for each row of a batch.

    Raises:
        InputError: an array is larger, its size cannot be told, or there are more multiplications; the message names
            the file as `source`.
    """
    bare = ModelProto()
    bare.CopyFrom(model)
    bare.opset_import[0].version = max(bare.opset_import[0].version, MIN_INFERENCE_OPSET)
    for graph, _ in walk_graphs(bare.graph):
        del graph.value_info[:]
    weight_counts = [
        math.prod(tensor.dims)
        for graph, _ in walk_graphs(bare.graph)
        for tensor in graph.initializer
    ]
    max_size = max(MAX_ROW_SIZE, *weight_counts, 0)
    _require_known_sizes(bare, max_size, source)
    try:
        bare = onnx.shape_inference.infer_shapes(bare, strict_mode=True, data_prop=True)
    except Exception:
        raise refusal_error(source, "has arrays of unknown size") from None
    work = _count_multiplications(bare.graph, {}, max_size, source)
    if work > BASE_WORK + WORK_PER_WEIGHT * sum(weight_counts):
        raise refusal_error(source, "computes more than a policy does")


def _count_multiplications(
    graph: GraphProto, outer_shapes: Shapes, max_size: int, source: str
) -> int:
    """Returns the multiplications for each row of a batch; raises an error if an array is too large."""
    shapes = {**outer_shapes, **{tensor.name: list(tensor.dims) for tensor in graph.initializer}}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.tensor_type.HasField("shape"):
            shapes[value.name] = [
                dim.dim_value if dim.HasField("dim_value") else None
                for dim in value.type.tensor_type.shape.dim
            ]
    total = 0
    for node in graph.node:
        if node.op_type == "Loop":  # its outputs are checked as those of its body
            body = next(attribute.g for attribute in node.attribute if attribute.name == "body")
            steps = count_loop_steps(node, graph) or 0
            total += steps * _count_multiplications(body, shapes, max_size, source)
            continue
        for name in filter(None, node.output):
            _require_small_array(node, shapes.get(name), max_size, source)
        if node.op_type != "Identity":
            output_size = sum(math.prod(filter(None, shapes[name])) for name in node.output if name)
            total += output_size * (_inner_size(node, shapes) if node.op_type in PRODUCTS else 1)
    return total


def _inner_size(node: NodeProto, shapes: Shapes) -> int:
    """Returns an upper bound of the terms that a matrix product sums up for each number of its output."""
    return max([1, *filter(None, shapes.get(node.input[0]) or shapes.get(node.input[1]) or ())])


def _require_small_array(
    node: NodeProto, shape: list[int | None] | None, max_size: int, source: str
) -> None:
    if shape is None:
        raise refusal_error(source, "has arrays of unknown size")
    fixed = [size for size in shape if size is not None]
    batch_axes = len(shape) - len(fixed)
    if batch_axes > 1 or math.prod(fixed) > (MAX_ROW_SIZE if batch_axes else max_size):
        raise refusal_error(source, "has arrays that are larger than a policy's")
    if node.op_type == "Concat":
        axis = next(attribute.i for attribute in node.attribute if attribute.name == "axis")
        if shape[axis] is None:  # a chain of these would double the batch again and again
            raise refusal_error(source, "joins batches")


def _require_known_sizes(model: ModelProto, max_size: int, source: str) -> None:
    """Raises an error if an array is given a size that is neither constant nor the size of another array."""
    graphs = [graph for graph, _ in walk_graphs(model.graph)]
    producers = {name: node for graph in graphs for node in graph.node for name in node.output}
    weights = {tensor.name: tensor for graph in graphs for tensor in graph.initializer}

    def is_size(name: str) -> bool:
        if name in weights:
            sizes = onnx.numpy_helper.to_array(weights[name])
            return bool(sizes.dtype.kind == "i" and ((sizes > 0) & (sizes <= max_size)).all())
        node = producers.get(name)
        if node is not None and node.op_type == "Gather":
            node = producers.get(node.input[0])
        return node is not None and node.op_type == "Shape"

    def is_shape(name: str) -> bool:
        node = producers.get(name)
        if node is not None and node.op_type == "Concat":
            return all(is_size(part) for part in node.input)
        return is_size(name)

    concat_count = 0
    for node in (node for graph in graphs for node in graph.node):
        if node.op_type in ("Expand", "Reshape") and not is_shape(node.input[1]):
            raise refusal_error(source, "gives arrays sizes that no policy needs")
        if node.op_type == "Concat":
            concat_count += not is_shape(node.output[0])
            if concat_count > MAX_CONCATS or len(node.input) > MAX_CONCAT_INPUTS:
                raise refusal_error(source, "joins more arrays than a policy does")
