"""Distillation of deep teachers: `from distill import distill_teacher, distill_config`.

The names below are loaded on first use, so that the command line can print its help at once.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "DistillConfig": "distill.config",
    "distill_config": "distill.config",
    "distill_teacher": "distill.run",
    "measure_retention": "distill.retention",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'distill' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
