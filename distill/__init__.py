"""Distillation of deep teachers: `from distill import distill_teacher, distill_config`.

The names below are imported on first use, so that the command line can print its help at once.
"""

from importlib import import_module
from typing import Any

_MODULES = {
    "DistillConfig": "distill.config",
    "distill_config": "distill.config",
    "distill_teacher": "distill.run",
    "measure_retention": "distill.retention",
    "run_compare": "distill.compare",
    "run_compare_sensors": "distill.compare_sensors",
    "run_demo": "distill.demo",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'distill' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
