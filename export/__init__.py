"""Students as ONNX and C files: conversion, the deployment contract, parity, and the runtime of a robot; runs to share.

The names below are loaded on first use, so that `export.runtime` can be imported where there is no JAX.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "export_student": "export.write",
    "export_c": "export.c_source",
    "Form": "export.write",
    "play_in_c": "teachers.simulation.play",
    "animate": "teachers.simulation.animate",
    "picture": "teachers.simulation.animate",
    "describe_task": "export.contract",
    "measure_latency": "export.latency",
    "open_policy": "export.artefacts",
    "describe_artefact": "export.artefacts",
    "pack": "export.share.archive",
    "unpack": "export.share.archive",
    "describe_archive": "export.share.archive",
    "push": "export.share.hub",
    "pull": "export.share.hub",
    "TaskEnv": "teachers.simulation.gym_env",
    "Policy": "export.runtime",
    "Critic": "export.runtime",
    "ControlLoop": "export.runtime",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'export' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
