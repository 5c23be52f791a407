"""Exported graphs in fewer bits, by ONNX Runtime's own tools."""

import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx

from export.contract import Precision

PRODUCTS = ("Gemm", "MatMul")  # where the weights are


def reduced(
    model: onnx.ModelProto, precision: Precision, rows: Mapping[str, np.ndarray]
) -> onnx.ModelProto:
    """A float32 graph with the weights and the arithmetic of another precision; inputs and outputs stay float32.

    Args:
        model: as `convert` gives it.
        precision: `float16`; or `int8`, with scales from what the graph computes of `rows`, of the policy's layers after
            the first. That one's inputs differ too much in what they mean, and a critic in integers no longer tells which
            goal is nearer: benchmarks/notes/precision.md.
        rows: for each input of the graph, `[rows, n]` of real rollouts.
    """
    if precision == "float16":
        return _halved(model)
    if precision == "int8":
        return _quantized(model, rows)
    return model


def _halved(model: onnx.ModelProto) -> onnx.ModelProto:
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import convert_float_to_float16

    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    del whole.graph.value_info[:]  # it would cast constants that it leaves as they are
    found = ONNXModel(
        convert_float_to_float16(
            whole, keep_io_types=True, node_block_list=_after_squashing(whole.graph)
        )
    )
    found.topological_sort()  # it appends the casts of inputs
    del found.model.graph.value_info[:]  # of what is no longer float32
    _keep_float32(found.model.graph)
    return found.model


def _after_squashing(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes between an action in [-1, 1] and its task units: rounded, they would pass its limits."""
    return [node.name for node in _before("action", graph, until="Tanh")]


def _before(name: str, graph: onnx.GraphProto, until: str = "") -> list[onnx.NodeProto]:
    """The nodes that an array is computed by, and what they take, as far as operators of the type `until`."""
    made = {name: node for node in graph.node for name in node.output}
    found, names = {}, [name]
    while names:
        node = made.get(names.pop())
        if node is not None and node.op_type != until and node.name not in found:
            found[node.name] = node
            names += node.input
    return list(found.values())


def _keep_float32(graph: onnx.GraphProto) -> None:
    """Leaves out that float32 is rounded to float16 and back on its way from one such node to the next."""
    made = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        rounded = made.get(node.input[0]) if node.op_type == "Cast" else None
        if rounded is not None and rounded.op_type == "Cast":
            source = made.get(rounded.input[0])
            if source is not None and source.op_type != "Cast":
                node.op_type, node.input[0] = "Identity", rounded.input[0]
                del node.attribute[:]


def _later_layers(graph: onnx.GraphProto) -> list[str]:
    """Names of the matrix products before an action, without those that nothing is multiplied before."""

    def products(name: str) -> list[onnx.NodeProto]:
        return [node for node in _before(name, graph) if node.op_type in PRODUCTS]

    return [node.name for node in products("action") if products(node.input[0])]


def _quantized(model: onnx.ModelProto, rows: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Rows(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches: Iterator[dict[str, np.ndarray]] = iter([dict(rows)])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._batches, None)

    layers = _later_layers(model.graph)
    if not layers:
        return model
    said = logging.getLogger().level
    with tempfile.TemporaryDirectory() as folder:
        whole, small = Path(folder) / "whole.onnx", Path(folder) / "small.onnx"
        onnx.save(model, whole)
        logging.getLogger().setLevel(logging.ERROR)  # it advises to optimise graphs of this kind
        try:
            quantize_static(
                whole,
                small,
                Rows(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(PRODUCTS),
                nodes_to_quantize=layers,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
            )
        finally:
            logging.getLogger().setLevel(said)
        found = onnx.load(small)
    found.ir_version = model.ir_version
    return found
