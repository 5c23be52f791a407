"""Paths of runs and results, on this machine, on mounted disks or in a cloud: reaching them, creating folders, reading files."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from etils import epath

import teachers.process  # noqa: F401 - applies the settings of fsspec
from teachers.runs.errors import InputError

FILE_SYSTEM_PACKAGES = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs"}  # by the path's scheme
PATTERN_CHARACTERS = frozenset("*?[]")


def is_local(path: epath.PathLike) -> bool:
    """Returns whether a path lies on this machine's file systems, mounted ones included."""
    return "://" not in str(epath.Path(path))


def absolute_path(path: epath.PathLike) -> epath.Path:
    """Returns the absolute form of a path; cloud paths, which `epath` takes for relative, are returned as they are."""
    path = epath.Path(path)
    return path.absolute() if is_local(path) else path


def require_utf8(path: epath.PathLike) -> None:
    """Raises an error if a path's bytes are not UTF-8, which TensorStore and JAX's compiler need.

    Raises:
        InputError: they are not.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:  # Python keeps such bytes as lone surrogates
        raise InputError(f"{path}: the path is not UTF-8, which JAX needs; rename it") from None


def require_reachable(path: epath.PathLike) -> None:
    """Raises an error if a path in a cloud cannot be reached, or if a local path begins with an unexpanded `~`.

    To be called before `epath` writes there, which would create a missing bucket.

    Raises:
        InputError: a package or credentials are missing, the network is down, or there is no such bucket.
    """
    if is_local(path):
        if epath.Path(path).parts[:1] == ("~",):
            raise InputError(
                f"{path}: only a shell knows ~, and not after --out=; write {epath.Path(path).expanduser()}"
            )
        return
    if magic := PATTERN_CHARACTERS & set(str(path)):
        raise InputError(
            f"{path}: a path in a cloud cannot hold {min(magic)}, which its file systems take for a pattern; choose another name"
        )
    scheme, _, rest = str(epath.Path(path)).partition("://")
    if not rest.strip("/"):
        raise InputError(f"{path} names no bucket; give {scheme}://BUCKET/PATH")
    if scheme not in FILE_SYSTEM_PACKAGES:
        return
    bucket = f"{scheme}://{rest.split('/')[0]}"
    with translate_storage_errors(path):
        exists = _bucket_exists(bucket)
    if not exists:
        _bucket_exists.cache_clear()  # the user may create it before the next call
        raise InputError(
            f"{path}: there is no bucket {bucket}, or you may not see it; create it, or choose another path"
        )


@lru_cache
def _bucket_exists(bucket: str) -> bool:
    return bool(epath.Path(bucket).exists())


def create_folder(folder: epath.PathLike) -> None:
    """Creates a folder and its parents; does nothing in a cloud, where folders exist only through their files.

    Raises:
        InputError: the folder cannot be created, written or reached.
    """
    if not is_local(folder):
        require_reachable(folder)
        return
    try:
        epath.Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot create {folder}: {error.strerror}; choose another --out"
        ) from None
    if not os.access(folder, os.W_OK):
        raise InputError(f"cannot write in {folder}; choose another --out")


def list_folder(folder: epath.Path) -> list[epath.Path]:
    """Returns the entries of a folder; an empty list if it does not exist or is a file.

    Unlike `is_dir`, which is false then, it raises an error if the folder may not be read.

    Raises:
        OSError: the folder cannot be read.
    """
    if is_local(folder):
        try:
            return [folder / name for name in os.listdir(folder)]
        except (FileNotFoundError, NotADirectoryError):
            return []
    return list(folder.iterdir()) if folder.is_dir() else []


@contextmanager
def translate_storage_errors(path: epath.PathLike) -> Iterator[None]:
    """Turns the errors that the storage behind a cloud path raises in the block into an `InputError` of one line.

    `FileNotFoundError` and all errors of local paths pass unchanged.

    Raises:
        InputError: the file system's package is missing, or the storage refuses access or cannot be reached.
    """
    try:
        yield
    except (InputError, FileNotFoundError):
        raise
    except ImportError as error:
        scheme = str(epath.Path(path)).partition("://")[0]
        if is_local(path) or scheme not in FILE_SYSTEM_PACKAGES:
            raise
        package = FILE_SYSTEM_PACKAGES[scheme]
        raise InputError(f"{path} needs the package {package}; pip install {package}") from error
    except Exception as error:  # each file system raises errors of its own
        if is_local(path):
            raise
        reason = str(error).strip().replace("\n", ": ") or type(error).__name__
        raise InputError(
            f"{path} cannot be reached: {reason}; check the path, the network and your credentials"
        ) from error


@contextmanager
def local_copy(file: epath.PathLike) -> Iterator[Path]:
    """Gives libraries that read local files alone a local copy of a file.

    Yields:
        The file itself if it is local, else the path of a temporary copy.
    """
    if is_local(file):
        yield Path(file)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / epath.Path(file).name
        with translate_storage_errors(file):
            copy.write_bytes(epath.Path(file).read_bytes())
        yield copy
