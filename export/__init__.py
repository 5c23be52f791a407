"""Students as ONNX and C files, the runtime that a robot needs, and runs as archives and on the Hugging Face hub.

The public names are loaded on first use, so that `export.runtime` can be imported where JAX is not installed.
"""

from importlib import import_module
from typing import Any

_MODULES = {
    "export_student": "export.write",
    "export_c": "export.c_source",
    "Form": "export.write",
    "play_in_c": "teachers.simulation.play",
    "animate": "teachers.simulation.animate",
    "picture": "teachers.simulation.animate",
    "describe_task": "teachers.tasks.describe",
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

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'export' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
