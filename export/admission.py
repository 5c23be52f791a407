"""Which ONNX files are let in: whole, ours, and of nothing but small, basic operators.

An ONNX file may name other files to read, ask for any amount of memory, and hold operators whose cost no one sees. None
of what is refused here has been given to ONNX Runtime.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from etils import epath
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
)
from pydantic import ValidationError

from export.contract import INPUTS, OUTPUTS, Contract, operators, precision_of
from export.convert import NEWEST, OLDEST
from export.precision import PRODUCTS
from export.runtime import PREFIX, read_metadata
from teachers.runs.errors import InputError
from teachers.runs.paths import is_local, require_reachable, translate_storage_errors

LARGEST = 2**31 - 1  # bytes: what one protobuf message holds
MOST_STEPS = 4096  # of a loop over a teacher's blocks
MOST_NODES = 2000
MOST_JOINTS = 8  # of arrays that are no sizes: of observations, actions and goals
MOST_JOINED = 8  # arrays at a time
WORK = 2**26, 8  # multiplications for each row of a batch: these, and so many for each weight
DEEPEST = 1  # loops within loops: none
INFERRED_BY = 15  # opset
LARGEST_ROW = 2**16  # numbers for each row of a batch
KINDS = {
    TensorProto.FLOAT: 4,
    TensorProto.FLOAT16: 2,
    TensorProto.INT64: 8,
    TensorProto.INT32: 4,
    TensorProto.INT8: 1,
    TensorProto.UINT8: 1,
    TensorProto.BOOL: 1,
}
# All that `convert` and `reduced` write.
BASIC = frozenset(
    (
        *("Add", "Cast", "Clip", "Concat", "Constant", "DequantizeLinear", "Div", "Exp", "Expand", "Gather"),
        *("Gemm", "Identity", "LayerNormalization", "Loop", "MatMul", "Max", "Mean", "Min", "Mul", "Neg"),
        *("Pow", "QuantizeLinear", "Reciprocal", "ReduceMean", "ReduceSum", "ReduceSumSquare", "Relu"),
        *("Reshape", "Shape", "Sigmoid", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Swish", "Tanh", "Transpose", "Unsqueeze"),
    )
)  # fmt: skip

Shapes = Mapping[str, list[int | None]]


def read_model(path: epath.PathLike) -> ModelProto:
    """Reads a file's graph, if it is one that may be run.

    Args:
        path: of the `.onnx` file.

    Raises:
        InputError: it is missing, damaged, or asks for more than a policy does.
    """
    path = epath.Path(path)
    require_file(path)
    if path.stat().length > LARGEST:
        raise _refused(str(path), "is larger than an ONNX file can be")
    return admitted(path.read_bytes(), str(path))


def admitted(raw: bytes, source: str) -> ModelProto:
    """The graph in the bytes of a file, if it is one that may be run.

    Args:
        raw: all of the file.
        source: what to call it.

    Raises:
        InputError: it is damaged, or asks for more than a policy does.
    """
    try:
        model = onnx.load_from_string(raw)
    except Exception:  # protobuf's decoding errors share no public base class
        raise InputError(f"{source} is not an ONNX file") from None
    said = [text for entry in model.metadata_props for text in (entry.key, entry.value)]
    if not model.graph.node or not all(isinstance(text, str) for text in said):  # not UTF-8
        raise InputError(f"{source} is not an ONNX file")
    if model.functions or model.training_info:
        raise _refused(source, "defines operators of its own")
    opsets = [(entry.domain, entry.version) for entry in model.opset_import]
    if len(opsets) != 1 or opsets[0][0] or not OLDEST <= opsets[0][1] <= NEWEST:
        raise _refused(source, f"needs operator sets {opsets}, not one from {OLDEST} to {NEWEST}")
    _require_basic(model, source)
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise _refused(source, f"is no valid graph ({reason:.120})") from None
    _require_small(model, source)
    return model


def read_contract(model: ModelProto, source: str) -> Contract:
    """What an admitted graph says of itself, and whether the graph is like that.

    Raises:
        InputError: it says nothing, something that is no contract, or something else than the graph does.
    """
    properties = {entry.key: entry.value for entry in model.metadata_props}
    try:
        entries = Contract.model_validate(read_metadata(properties, source))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "all"
        raise _refused(
            source, f"has a contract that is not ours ({PREFIX}{key}: {first['msg']})"
        ) from None
    except ValueError as error:
        raise InputError(str(error)) from None
    for names, given, declared in (
        (INPUTS[entries.role], model.graph.input, entries.inputs),
        (OUTPUTS[entries.role], model.graph.output, entries.outputs),
    ):
        if tuple(value.name for value in given) != names or set(declared) != set(names):
            raise _refused(
                source, f"has arrays {[v.name for v in given]}, not those of a {entries.role}"
            )
        for value in given:
            _require_array(value, declared[value.name][-1].stop, source)
    for name, said, found in (
        ("operators", entries.operators, operators(model)),
        ("opset", entries.opset, model.opset_import[0].version),
        ("precision", entries.precision, precision_of(model)),
    ):
        if said != found:
            raise _refused(source, f"says {name} {said!r}, but has {found!r}")
    return entries


def require_file(path: epath.PathLike) -> None:
    """Refuses what is no file.

    Raises:
        InputError: there is none, or a folder, or something that may never end.
    """
    path = epath.Path(path)
    require_reachable(path)
    with translate_storage_errors(path):
        is_folder, exists = path.is_dir(), path.exists()
    if is_folder:
        raise InputError(f"{path} is a folder; give a policy.onnx that crl-distill export wrote")
    if not exists:
        raise InputError(f"{path} does not exist; give a policy.onnx that crl-distill export wrote")
    if is_local(path) and not Path(path).is_file():  # epath calls a device or a pipe a file too
        raise InputError(f"{path} is a device or a pipe; give a file that crl-distill export wrote")


def _require_basic(model: ModelProto, source: str) -> None:
    nodes = 0
    for graph, depth in _graphs(model.graph):
        if depth > DEEPEST:
            raise _refused(source, "has graphs within graphs within graphs")
        if graph.sparse_initializer:
            raise _refused(source, "has sparse weights")
        nodes += len(graph.node)
        if nodes > MOST_NODES:
            raise _refused(source, f"has more than {MOST_NODES:,} operators")
        for tensor in graph.initializer:
            _require_tensor(tensor, source)
        for node in graph.node:
            if node.op_type not in BASIC or node.domain:
                raise _refused(
                    source, f"has the operator {node.op_type!r:.60}, which no policy needs"
                )
            for attribute in node.attribute:
                _require_attribute(attribute, source)
            if node.op_type == "Loop":
                _require_short(node, graph, source)


def _require_small(model: ModelProto, source: str) -> None:
    """Refuses arrays of unknown size, or of more numbers than the largest of the weights, and more work than a policy's.

    What a file declares of its arrays may be wrong; their shapes are inferred without it.
    """
    bare = ModelProto()
    bare.CopyFrom(model)
    # Rules of older ones infer less, of operators that are the same.
    bare.opset_import[0].version = max(bare.opset_import[0].version, INFERRED_BY)
    for graph, _ in _graphs(bare.graph):
        del graph.value_info[:]
    counts = [math.prod(t.dims) for graph, _ in _graphs(bare.graph) for t in graph.initializer]
    largest = max(LARGEST_ROW, *counts, 0)
    _require_plain_sizes(bare, largest, source)
    try:
        bare = onnx.shape_inference.infer_shapes(bare, strict_mode=True, data_prop=True)
    except Exception:
        raise _refused(source, "has arrays of unknown size") from None
    if _work(bare.graph, {}, largest, source) > WORK[0] + WORK[1] * sum(counts):
        raise _refused(source, "computes more than a policy does")


def _work(graph: GraphProto, outer: Shapes, largest: int, source: str) -> int:
    """Multiplications for each row of a batch; every array is looked at on the way."""
    shapes = {**outer, **{tensor.name: list(tensor.dims) for tensor in graph.initializer}}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.tensor_type.HasField("shape"):
            shapes[value.name] = [
                each.dim_value if each.HasField("dim_value") else None
                for each in value.type.tensor_type.shape.dim
            ]
    total = 0
    for node in graph.node:
        if node.op_type == "Loop":  # it gives what its graph gives
            body = next(each.g for each in node.attribute if each.name == "body")
            total += (_trips(node, graph) or 0) * _work(body, shapes, largest, source)
            continue
        for name in filter(None, node.output):
            _require_small_array(node, shapes.get(name), largest, source)
        if node.op_type != "Identity":
            numbers = sum(math.prod(filter(None, shapes[name])) for name in node.output if name)
            total += numbers * (_summed(node, shapes) if node.op_type in PRODUCTS else 1)
    return total


def _summed(node: NodeProto, shapes: Shapes) -> int:
    """How many products, at most, each number of a matrix product is the sum of."""
    return max([1, *filter(None, shapes.get(node.input[0]) or shapes.get(node.input[1]) or ())])


def _require_small_array(
    node: NodeProto, sizes: list[int | None] | None, largest: int, source: str
) -> None:
    if sizes is None:
        raise _refused(source, "has arrays of unknown size")
    known = [size for size in sizes if size is not None]
    batches = len(sizes) - len(known)
    if batches > 1 or math.prod(known) > (LARGEST_ROW if batches else largest):
        raise _refused(source, "has arrays that are larger than a policy's")
    if node.op_type == "Concat":
        axis = next(each.i for each in node.attribute if each.name == "axis")
        if sizes[axis] is None:  # again and again, it would double a batch
            raise _refused(source, "joins batches")


def _require_plain_sizes(model: ModelProto, largest: int, source: str) -> None:
    """Refuses to give arrays other sizes than written ones, and those of arrays that are there."""
    graphs = [graph for graph, _ in _graphs(model.graph)]
    made = {name: node for graph in graphs for node in graph.node for name in node.output}
    weights = {tensor.name: tensor for graph in graphs for tensor in graph.initializer}

    def is_size(name: str) -> bool:
        if name in weights:
            sizes = onnx.numpy_helper.to_array(weights[name])
            return bool(sizes.dtype.kind == "i" and ((sizes > 0) & (sizes <= largest)).all())
        node = made.get(name)
        if node is not None and node.op_type == "Gather":
            node = made.get(node.input[0])
        return node is not None and node.op_type == "Shape"

    def is_plain(name: str) -> bool:
        node = made.get(name)
        if node is not None and node.op_type == "Concat":
            return all(is_size(each) for each in node.input)
        return is_size(name)

    joints = 0
    for node in (node for graph in graphs for node in graph.node):
        if node.op_type in ("Expand", "Reshape") and not is_plain(node.input[1]):
            raise _refused(source, "gives arrays sizes that no policy needs")
        if node.op_type == "Concat":
            joints += not is_plain(node.output[0])
            if joints > MOST_JOINTS or len(node.input) > MOST_JOINED:
                raise _refused(source, "joins more arrays than a policy does")


def _graphs(graph: GraphProto, depth: int = 0) -> Iterator[tuple[GraphProto, int]]:
    yield graph, depth
    if depth > DEEPEST:
        return
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g, depth + 1)
            for each in attribute.graphs:
                yield from _graphs(each, depth + 1)


def _require_attribute(attribute: AttributeProto, source: str) -> None:
    if attribute.sparse_tensors or attribute.HasField("sparse_tensor") or attribute.tensors:
        raise _refused(source, "has operators with weights of an unusual kind")
    if attribute.HasField("t"):
        _require_tensor(attribute.t, source)


def _require_tensor(tensor: TensorProto, source: str) -> None:
    name = f"{tensor.name!r:.60}"
    if tensor.data_location != TensorProto.DEFAULT or tensor.external_data:
        raise _refused(source, f"keeps the weights {name} in another file")
    if tensor.data_type not in KINDS:
        raise _refused(source, f"has weights {name} of an unusual type")
    if any(size < 0 for size in tensor.dims):
        raise _refused(source, f"has weights {name} of a negative size")
    count = math.prod(tensor.dims)
    held = len(tensor.raw_data) / KINDS[tensor.data_type] if tensor.raw_data else _typed(tensor)
    if count != held:
        raise _refused(source, f"has weights {name} of {count:,} numbers but holds {held:,g}")
    try:
        array = onnx.numpy_helper.to_array(tensor)
    except Exception:  # of numbers in the field of another type
        raise _refused(source, f"has weights {name} that are none") from None
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise _refused(source, f"has weights {name} that are not finite")


def _typed(tensor: TensorProto) -> int:
    """Numbers that a tensor holds in fields of their type."""
    return max(len(tensor.float_data), len(tensor.int32_data), len(tensor.int64_data))


def _require_short(node: NodeProto, graph: GraphProto, source: str) -> None:
    trips = _trips(node, graph)
    if trips is None:
        raise _refused(source, "has a loop of no fixed length")
    if not 0 <= trips <= MOST_STEPS:
        raise _refused(source, f"has a loop of more than {MOST_STEPS:,} steps")
    if len(node.output) != len(node.input) - 2:  # it would keep something of every step
        raise _refused(source, "has a loop that gives more than it carries")


def _trips(node: NodeProto, graph: GraphProto) -> int | None:
    """How often a loop runs, if that stands beside it."""
    for tensor in graph.initializer:
        if node.input and tensor.name == node.input[0] and math.prod(tensor.dims) == 1:
            return int(onnx.numpy_helper.to_array(tensor).reshape(()))
    return None


def _require_array(value: ValueInfoProto, size: int, source: str) -> None:
    kind = value.type.tensor_type
    dims = [each.dim_value if each.HasField("dim_value") else None for each in kind.shape.dim]
    fitting = [None] if value.name == "value" else [None, size]
    if kind.elem_type != TensorProto.FLOAT or dims != fitting:
        raise _refused(source, f"has {value.name} of shape {dims}, not float32 [batch, {size}]")


def _refused(source: str, why: str) -> InputError:
    return InputError(f"{source} {why}; give a file that crl-distill export wrote")
