"""Files that a command is to write."""

import os

from etils import epath

from teachers.runs.errors import InputError
from teachers.runs.paths import is_local, reaching, require_reachable


def require_new_file(file: epath.PathLike, *endings: str) -> None:
    """Refuses a file that cannot be written, before the work that fills it.

    Args:
        file: to be written.
        endings: those that its name may have, such as `.png`.

    Raises:
        InputError: it has another ending, it exists, or its folder cannot be written or reached.
    """
    file = epath.Path(file)
    if file.suffix not in endings:
        raise InputError(f"{file}: the file's name must end in {' or '.join(endings)}")
    require_reachable(file)
    with reaching(file):
        if file.exists():
            raise InputError(
                f"{file} exists; choose another name or remove it (nothing was overwritten)"
            )
    if not is_local(file):
        return
    there = next(folder for folder in file.absolute().parents if folder.exists())
    if not os.access(there, os.W_OK):
        raise InputError(f"cannot write in {there}; choose another folder for {file.name}")
