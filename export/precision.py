"""Exported graphs in fewer bits, by ONNX Runtime's own tools."""

import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx

from export.contract import Precision

QUANTIZED = ["Gemm", "MatMul"]  # where the weights are; the rest stays float32
CALIBRATION = 512  # rows


def reduced(
    model: onnx.ModelProto, precision: Precision, rows: Mapping[str, np.ndarray]
) -> onnx.ModelProto:
    """A float32 graph with the weights and the arithmetic of another precision; inputs and outputs stay float32.

    Args:
        model: as `convert` gives it.
        precision: `float16`; or `int8`, with scales from what the graph computes of `rows`.
        rows: for each input of the graph, `[rows, n]` of real rollouts.
    """
    if precision == "float16":
        from onnxruntime.quantization.onnx_model import ONNXModel
        from onnxruntime.transformers.float16 import convert_float_to_float16

        found = ONNXModel(convert_float_to_float16(model, keep_io_types=True))
        found.topological_sort()  # it appends the casts of inputs
        del found.model.graph.value_info[:]  # of what is no longer float32
        _keep_ends(found.model.graph)
        return found.model
    if precision == "int8":
        return _quantized(model, rows)
    return model


def _keep_ends(graph: onnx.GraphProto) -> None:
    """Leaves out the rounding of outputs that are computed in float32 anyway: it would pass the actions' limits."""
    made = {name: node for node in graph.node for name in node.output}
    for output in graph.output:
        last = made[output.name]
        rounded = made.get(last.input[0])
        if last.op_type == "Cast" and rounded is not None and rounded.op_type == "Cast":
            last.op_type, last.input[0] = "Identity", rounded.input[0]
            del last.attribute[:]
            graph.node.remove(rounded)


def _quantized(model: onnx.ModelProto, rows: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Rows(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches: Iterator[dict[str, np.ndarray]] = iter(
                [{name: array[:CALIBRATION] for name, array in rows.items()}]
            )

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._batches, None)

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
                op_types_to_quantize=QUANTIZED,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
            )
        finally:
            logging.getLogger().setLevel(said)
        found = onnx.load(small)
    found.ir_version = model.ir_version
    return found
