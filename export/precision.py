"""Reduces the precision of exported graphs to float16 or int8, with ONNX Runtime's own tools."""

import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx

from export.contract import Precision
from export.graph import PRODUCTS


def reduce_precision(
    model: onnx.ModelProto, precision: Precision, rows: Mapping[str, np.ndarray]
) -> onnx.ModelProto:
    """Returns a float32 graph with its weights and arithmetic in another precision; inputs and outputs stay float32.

    In int8 are the layers of the policy after the first alone. The inputs of the first differ too much in their meaning,
    and a critic in integers no longer tells which goal is nearer: see benchmarks/RESULTS.md.

    Args:
        model: a graph, such as `convert` returns.
        precision: `float16` or `int8`; with `float32` the graph is returned as it is.
        rows: inputs of the graph by name, `[rows, n]`, from recorded episodes. The scales of int8 are those of the arrays
            that the graph computes from them.
    """
    if precision == "float16":
        return _to_float16(model)
    if precision == "int8":
        return _quantize_int8(model, rows)
    return model


def _to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import convert_float_to_float16

    original = onnx.ModelProto()
    original.CopyFrom(model)
    # With these types the converter would cast constants that it leaves in float32.
    del original.graph.value_info[:]
    converted = ONNXModel(
        convert_float_to_float16(
            original, keep_io_types=True, node_block_list=_nodes_after_squashing(original.graph)
        )
    )
    converted.topological_sort()  # the converter appends the casts of the inputs at the end
    del converted.model.graph.value_info[:]  # these say float32 where the graph is float16 now
    _skip_cast_pairs(converted.model.graph)
    return converted.model


def _nodes_after_squashing(graph: onnx.GraphProto) -> list[str]:
    """Returns the names of the nodes that turn an action in [-1, 1] into task units.

    They stay in float32: rounded to float16, an action could exceed its limits.
    """
    return [node.name for node in _ancestors("action", graph, until="Tanh")]


def _ancestors(name: str, graph: onnx.GraphProto, until: str = "") -> list[onnx.NodeProto]:
    """Returns the nodes that an array is computed by, going back as far as operators of the type `until`."""
    producers = {name: node for node in graph.node for name in node.output}
    ancestors, names = {}, [name]
    while names:
        node = producers.get(names.pop())
        if node is not None and node.op_type != until and node.name not in ancestors:
            ancestors[node.name] = node
            names += node.input
    return list(ancestors.values())


def _skip_cast_pairs(graph: onnx.GraphProto) -> None:
    """Replaces a cast to float16 and back, between two nodes that stay in float32, by the array itself."""
    producers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        first_cast = producers.get(node.input[0]) if node.op_type == "Cast" else None
        if first_cast is not None and first_cast.op_type == "Cast":
            source = producers.get(first_cast.input[0])
            if source is not None and source.op_type != "Cast":
                node.op_type, node.input[0] = "Identity", first_cast.input[0]
                del node.attribute[:]


def _later_layers(graph: onnx.GraphProto) -> list[str]:
    """Returns the names of the policy's matrix products that have another one before them."""

    def products_before(name: str) -> list[onnx.NodeProto]:
        return [node for node in _ancestors(name, graph) if node.op_type in PRODUCTS]

    return [node.name for node in products_before("action") if products_before(node.input[0])]


def _quantize_int8(model: onnx.ModelProto, rows: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class RowsReader(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches: Iterator[dict[str, np.ndarray]] = iter([dict(rows)])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._batches, None)

    layers = _later_layers(model.graph)
    if not layers:
        return model
    log_level = logging.getLogger().level
    with tempfile.TemporaryDirectory() as folder:
        float32_file, int8_file = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, float32_file)
        # It would advise to optimise the graph first, which is not needed for graphs of this kind.
        logging.getLogger().setLevel(logging.ERROR)
        try:
            quantize_static(
                float32_file,
                int8_file,
                RowsReader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(PRODUCTS),
                nodes_to_quantize=layers,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
            )
        finally:
            logging.getLogger().setLevel(log_level)
        quantized = onnx.load(int8_file)
    quantized.ir_version = model.ir_version
    return quantized
