"""Reads ONNX files, and admits their graphs if they may be run."""

from pathlib import Path

import onnx
from etils import epath
from onnx import ModelProto

from export.admission.refusal import refusal_error
from export.admission.structure import require_basic_structure
from export.admission.work import require_limited_work
from export.convert import NEWEST_OPSET, OLDEST_OPSET
from teachers.runs.errors import InputError, first_line
from teachers.runs.paths import is_local, require_reachable, translate_storage_errors

MAX_FILE_BYTES = 2**31 - 1  # the limit of a protobuf message


def read_model(path: epath.PathLike) -> ModelProto:
    """Reads an ONNX file, and returns its graph if it may be run.

    Args:
        path: the `.onnx` file.

    Raises:
        InputError: the file is missing or damaged, or asks for more than a policy does.
    """
    path = epath.Path(path)
    require_file(path)
    if path.stat().length > MAX_FILE_BYTES:
        raise refusal_error(str(path), "is larger than an ONNX file can be")
    return admit_model(path.read_bytes(), str(path))


def admit_model(content: bytes, source: str) -> ModelProto:
    """Returns the graph in the content of an ONNX file if it may be run.

    Args:
        content: all bytes of the file.
        source: name of the file, for error messages.

    Raises:
        InputError: the file is damaged, or asks for more than a policy does.
    """
    try:
        model = onnx.load_from_string(content)
    except Exception:  # protobuf's decoding errors share no public base class
        raise InputError(f"{source} is not an ONNX file") from None
    texts = [text for entry in model.metadata_props for text in (entry.key, entry.value)]
    # protobuf gives bytes in place of text that is not UTF-8.
    if not model.graph.node or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{source} is not an ONNX file")
    if model.functions or model.training_info:
        raise refusal_error(source, "defines operators of its own")
    opsets = [(entry.domain, entry.version) for entry in model.opset_import]
    if len(opsets) != 1 or opsets[0][0] or not OLDEST_OPSET <= opsets[0][1] <= NEWEST_OPSET:
        raise refusal_error(
            source, f"needs operator sets {opsets}, not one from {OLDEST_OPSET} to {NEWEST_OPSET}"
        )
    require_basic_structure(model, source)
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        reason = first_line(error)
        raise refusal_error(source, f"is no valid graph ({reason:.120})") from None
    require_limited_work(model, source)
    return model


def require_file(path: epath.PathLike) -> None:
    """Raises an error unless a path is a file.

    Raises:
        InputError: the path does not exist, or is a folder, a device or a pipe, which may never end.
    """
    path = epath.Path(path)
    require_reachable(path)
    with translate_storage_errors(path):
        is_folder, exists = path.is_dir(), path.exists()
    if is_folder:
        raise InputError(f"{path} is a folder; give a policy.onnx that crl-distill export wrote")
    if not exists:
        raise InputError(f"{path} does not exist; give a policy.onnx that crl-distill export wrote")
    # epath counts devices and pipes as files.
    if is_local(path) and not Path(path).is_file():
        raise InputError(f"{path} is a device or a pipe; give a file that crl-distill export wrote")
