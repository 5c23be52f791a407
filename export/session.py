"""An ONNX graph as a Python function, for graphs without the metadata that `export.runtime` asks for."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import onnx
import onnxruntime

from teachers.runs.errors import InputError, first_line

GraphFunction = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


def open_session(model: onnx.ModelProto, source: str = "the model") -> GraphFunction:
    """Returns a function from a graph's inputs to its outputs, both by name, which computes on one thread.

    Args:
        model: the graph.
        source: name of the graph, for error messages.

    Raises:
        InputError: ONNX Runtime cannot load the graph. The function raises it where it cannot compute.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised, so they need not be logged
    with _explain_runtime_errors(source):
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    names = [output.name for output in session.get_outputs()]

    def compute(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with _explain_runtime_errors(source):
            return dict(zip(names, session.run(names, dict(inputs)), strict=True))

    return compute


@contextlib.contextmanager
def _explain_runtime_errors(source: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        reason = first_line(error)
        raise InputError(
            f"ONNX Runtime refuses {source} ({reason:.200}); export it again"
        ) from None
