"""The description inside every artefact: task, networks, configuration, figures, lineage and library versions."""

import hashlib
import math
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from numbers import Real
from typing import Any, Literal

import jax
import numpy as np
from pydantic import ValidationError, field_validator

from teachers.runs.configuration import Config
from teachers.runs.errors import InputError

# Format 1 lacks `task_source` and `sizes`, format 2 the count of skipped updates, format 3 checksums. Since format 4 the
# replay is an item of its own. Early checkpoints of format 4 lack the count of gradient steps skipped in a row.
FORMAT_VERSION = 4
VERSION_PATTERN = re.compile(r"[0-9][0-9A-Za-z.+-]{0,39}")

_LIBRARIES = (
    "crl-distill",
    "jax",
    "flax",
    "optax",
    "orbax-checkpoint",
    "mujoco",
    "mujoco-mjx",
    "numpy",
    "onnx",
    "onnxruntime",
    "jax2onnx",
)


class Metadata(Config):
    """The description inside every checkpoint and ONNX file, with which it can be opened without any other file.

    Attributes:
        format_version: version of this description's format.
        kind: teacher, student or onnx.
        task: the task's name.
        task_source: name of the file and class of a task that the user wrote; else empty. In artefacts of early versions,
            the file's absolute path.
        task_digest: SHA-256 of that file; empty in artefacts of early versions.
        sizes: number of elements in an observation, a goal and an action.
        networks: for each network its shape and number of parameters.
        config: the complete configuration that made the artefact.
        metrics: the last figures measured.
        lineage: the artefacts that it was made from; `{}` for a teacher.
        versions: versions of the libraries that wrote it, by distribution name.
    """

    format_version: int = FORMAT_VERSION
    kind: Literal["teacher", "student", "onnx"]
    task: str
    task_source: str = ""
    task_digest: str = ""
    sizes: dict[str, int] = {}
    networks: dict[str, Any]
    config: dict[str, Any]
    metrics: dict[str, Any]
    lineage: dict[str, Any]
    versions: dict[str, str]

    @field_validator("metrics", "lineage", mode="before")
    @classmethod
    def _replace_non_finite(cls, value: Any) -> Any:
        return replace_non_finite(value)


def replace_non_finite(value: Any) -> Any:
    """Returns a value of nested mappings and sequences with None for NaN and infinities, which JSON lacks."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: replace_non_finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [replace_non_finite(item) for item in value]
    return value


def as_number(value: Any) -> float | None:
    """Returns a figure of an artefact's metrics, which may hold anything; None if it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:  # JSON's integers have no limit
        return None
    return number if math.isfinite(number) else None


def as_interval(value: Any) -> tuple[float, float | None] | None:
    """Returns a 95% interval of an artefact's metrics; None if it is no pair of numbers, of which the second may be None."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    low, high = map(as_number, value)
    return None if low is None or (high is None and value[1] is not None) else (low, high)


def parse_metadata(raw: Any, source: str) -> Metadata:
    """Checks and returns a description that was read from an artefact.

    Args:
        raw: the JSON value that was read.
        source: the artefact's path, for the error.

    Raises:
        InputError: the description is not one of crl-distill, or of a newer format.
    """
    found = raw.get("format_version") if isinstance(raw, dict) else None
    if isinstance(found, int) and found > FORMAT_VERSION:
        raise InputError(
            f"{source} has format version {found}, newer than this crl-distill reads ({FORMAT_VERSION}); "
            f"install {release_to_install(_writer_version(raw))}"
        )
    try:
        return Metadata.model_validate(raw)
    except ValidationError as error:
        key = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise InputError(
            f"{source} does not describe a crl-distill artefact ({key or 'no fields'})"
        ) from None


def _writer_version(raw: Mapping[str, Any]) -> Any:
    """Returns the version of crl-distill that an unchecked description names; None if it names none."""
    versions = raw.get("versions")
    return versions.get("crl-distill") if isinstance(versions, Mapping) else None


def release_to_install(version: object) -> str:
    """Returns the words for the release that reads an artefact of a newer format.

    Args:
        version: the version of crl-distill that the artefact names as its writer.
    """
    # The artefact may be hostile, so its text is printed only if it looks like a version.
    if isinstance(version, str) and VERSION_PATTERN.fullmatch(version):
        return f"crl-distill {version} or later"
    return "the newest crl-distill"


def library_versions() -> dict[str, str]:
    """Returns the versions of the libraries that influence an artefact, by distribution name."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def parameter_digest(params: Any) -> str:
    """Returns the SHA-256 of the parameters' names, shapes and bytes, which identifies a network.

    Args:
        params: pytree of arrays.
    """
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        array = np.asarray(leaf)
        total.update(f"{jax.tree_util.keystr(path)}{array.shape}{array.dtype}".encode())
        total.update(array.tobytes())
    return total.hexdigest()
