"""An ONNX graph as a function, before it has the metadata that `export.runtime` asks for."""

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnxruntime

Function = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


def opened(model: onnx.ModelProto) -> Function:
    """A function from the graph's inputs, by name, to its outputs, by name, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))

    return run
