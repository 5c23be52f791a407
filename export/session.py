"""An ONNX graph as a function, before it has the metadata that `export.runtime` asks for."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import onnx
import onnxruntime

from teachers.runs.errors import InputError

Function = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


def open_session(model: onnx.ModelProto, source: str = "the model") -> Function:
    """A function from the graph's inputs, by name, to its outputs, by name, on one thread.

    Args:
        model: the graph.
        source: what errors call it.

    Raises:
        InputError: ONNX Runtime refuses the graph; the function raises it too.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised
    with _refusals(source):
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with _refusals(source):
            return dict(zip(names, session.run(names, dict(inputs)), strict=True))

    return run


@contextlib.contextmanager
def _refusals(source: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # ONNX Runtime's own exceptions share no base class
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"ONNX Runtime refuses {source} ({reason:.200}); export it again"
        ) from None
