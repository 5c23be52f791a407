"""Runs programs that may read and write no more than another user could, also where the tests run as root."""

import os
import shutil
from pathlib import Path

import pytest

OTHER_USER = 12345


def give_to_other_user(folder: Path, mode: int) -> None:
    """Gives a folder's content to another user, with the same permissions for all files, and those to enter for folders."""
    for path in [folder, *folder.rglob("*")]:
        if os.geteuid() == 0:
            os.chown(path, OTHER_USER, OTHER_USER)
        path.chmod(mode | (mode >> 2 & 0o111) if path.is_dir() else mode)


def without_privileges(command: list[str]) -> list[str]:
    """Returns the command that runs another command without root's right to read and write the files of all users."""
    if os.geteuid():
        return command
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("root reads everything, and there is no setpriv (util-linux) to give that up")
    return [setpriv, "--bounding-set=-all", "--inh-caps=-all", *command]
