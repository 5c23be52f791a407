"""What every artefact says of itself: task, networks, configuration, figures, lineage, library versions."""

import hashlib
import math
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import jax
import numpy as np
from pydantic import ValidationError, field_validator

from teachers.runs.configuration import Config
from teachers.runs.errors import InputError

# 1 lacks `task_source` and `sizes`, 2 the count of steps not applied in `training`, 3 checksums; in 4 the replay is an
# item of its own.
FORMAT_VERSION = 4
VERSION = re.compile(r"[0-9][0-9A-Za-z.+-]{0,39}")

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
    """Carried inside every checkpoint and ONNX file, so that it can be opened with nothing else.

    Attributes:
        format_version: of this description.
        kind: teacher, student or onnx.
        task: the task's name.
        task_source: the file and class of a task of the user's own, where it was made; else empty.
        sizes: numbers in an observation, a goal and an action.
        networks: for each network its shape and number of parameters.
        config: the resolved configuration that made it.
        metrics: the last figures measured.
        lineage: what it was made from; `{}` for a teacher.
        versions: of the libraries that wrote it.
    """

    format_version: int = FORMAT_VERSION
    kind: Literal["teacher", "student", "onnx"]
    task: str
    task_source: str = ""
    sizes: dict[str, int] = {}
    networks: dict[str, Any]
    config: dict[str, Any]
    metrics: dict[str, Any]
    lineage: dict[str, Any]
    versions: dict[str, str]

    @field_validator("metrics", "lineage", mode="before")
    @classmethod
    def _valid_json(cls, value: Any) -> Any:
        return finite(value)


def finite(value: Any) -> Any:
    """The value with NaN and infinities as None, which JSON lacks."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def parse_metadata(raw: Any, source: str) -> Metadata:
    """Checks a description that was read from `source`.

    Raises:
        InputError: it is not one of ours, or of a newer format.
    """
    found = raw.get("format_version") if isinstance(raw, dict) else None
    if isinstance(found, int) and found > FORMAT_VERSION:
        raise InputError(
            f"{source} has format version {found}, newer than this crl-distill reads ({FORMAT_VERSION}); "
            f"install {release(_writer(raw))}"
        )
    try:
        return Metadata.model_validate(raw)
    except ValidationError as error:
        key = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise InputError(
            f"{source} does not describe a crl-distill artefact ({key or 'no fields'})"
        ) from None


def _writer(raw: Mapping[str, Any]) -> Any:
    versions = raw.get("versions")
    return versions.get("crl-distill") if isinstance(versions, Mapping) else None


def release(version: object) -> str:
    """The release to install for an artefact of a later format, by the version that it says wrote it."""
    # Printed only if it looks like one: the artefact may come from anywhere.
    if isinstance(version, str) and VERSION.fullmatch(version):
        return f"crl-distill {version} or later"
    return "the newest crl-distill"


def library_versions() -> dict[str, str]:
    """Versions of the libraries that shape an artefact, by distribution name."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def digest(params: Any) -> str:
    """A SHA-256 of the parameters' names, shapes and bytes, to tell which network an artefact came from."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        array = np.asarray(leaf)
        total.update(f"{jax.tree_util.keystr(path)}{array.shape}{array.dtype}".encode())
        total.update(array.tobytes())
    return total.hexdigest()
