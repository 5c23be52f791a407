"""Paths of runs and results: all that `epath` opens, on this machine, mounted, or in a cloud."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from etils import epath


def is_local(path: epath.PathLike) -> bool:
    """Whether a path lies on this machine's file systems, mounted ones among them."""
    return "://" not in str(epath.Path(path))


def absolute(path: epath.PathLike) -> epath.Path:
    """The path from the root; those in a cloud are absolute, which `epath` does not know."""
    given = epath.Path(path)
    return given.absolute() if is_local(given) else given


def free_bytes(folder: epath.PathLike) -> int | None:
    """Room on the file system of a folder that exists; None where there is no limit to ask for."""
    return shutil.disk_usage(folder).free if is_local(folder) else None


@contextmanager
def local_copy(file: epath.PathLike) -> Iterator[Path]:
    """A file as one of this machine's, for libraries that read no others."""
    if is_local(file):
        yield Path(file)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / epath.Path(file).name
        copy.write_bytes(epath.Path(file).read_bytes())
        yield copy


@contextmanager
def local_draft(file: epath.PathLike) -> Iterator[Path]:
    """Where libraries that write on this machine alone write a file, which lies in its place after the block."""
    if is_local(file):
        yield Path(file)
        return
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / epath.Path(file).name
        yield draft
        epath.Path(file).write_bytes(draft.read_bytes())


def write_whole(file: epath.PathLike, content: str | bytes) -> None:
    """Writes a file that is there whole or not at all."""
    file = epath.Path(file)
    fresh = file.with_name(f"{file.name}.tmp")
    try:
        if isinstance(content, str):
            fresh.write_text(content)
        else:
            fresh.write_bytes(content)
        fresh.replace(file)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(file)) from None
