"""Paths of runs and results: all that `epath` opens, on this machine, mounted, or in a cloud."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from etils import epath

import teachers.process  # noqa: F401 - settings of fsspec
from teachers.runs.errors import InputError

PACKAGES = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs"}  # by scheme


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


def require_reachable(path: epath.PathLike) -> None:
    """Refuses a path in a cloud that cannot be reached, before `epath` makes a bucket for it; and `~`, as a name.

    Raises:
        InputError: a package or credentials are missing, the network is down, or there is no such bucket.
    """
    if is_local(path):
        if epath.Path(path).parts[:1] == ("~",):
            raise InputError(
                f"{path}: only a shell knows ~, and not after --out=; write {epath.Path(path).expanduser()}"
            )
        return
    scheme, _, rest = str(epath.Path(path)).partition("://")
    if not rest.strip("/"):
        raise InputError(f"{path} names no bucket; give {scheme}://BUCKET/PATH")
    if scheme not in PACKAGES:
        return
    bucket = f"{scheme}://{rest.split('/')[0]}"
    with reaching(path):
        there = _is_bucket(bucket)
    if not there:
        _is_bucket.cache_clear()  # it may be made meanwhile
        raise InputError(
            f"{path}: there is no bucket {bucket}, or it is not yours to see; make it, or choose another path"
        )


@lru_cache
def _is_bucket(bucket: str) -> bool:
    return bool(epath.Path(bucket).exists())


@contextmanager
def reaching(path: epath.PathLike) -> Iterator[None]:
    """Turns what the storage behind a path in a cloud raises into one clear line; a missing file stays what it is.

    Raises:
        InputError: its file system's package is missing, or it refuses or cannot be reached.
    """
    try:
        yield
    except (InputError, FileNotFoundError):
        raise
    except ImportError as error:
        scheme = str(epath.Path(path)).partition("://")[0]
        if is_local(path) or scheme not in PACKAGES:
            raise
        package = PACKAGES[scheme]
        raise InputError(f"{path} needs the package {package}; pip install {package}") from error
    except Exception as error:  # each file system has errors of its own
        if is_local(path):
            raise
        reason = str(error).strip().replace("\n", ": ") or type(error).__name__
        raise InputError(
            f"{path} cannot be reached: {reason}; check the path, the network and your credentials"
        ) from error


@contextmanager
def local_copy(file: epath.PathLike) -> Iterator[Path]:
    """A file as one of this machine's, for libraries that read no others."""
    if is_local(file):
        yield Path(file)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / epath.Path(file).name
        with reaching(file):
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
        with reaching(file):
            epath.Path(file).write_bytes(draft.read_bytes())


def write_whole(file: epath.PathLike, content: str | bytes) -> None:
    """Writes a file that is there whole or not at all."""
    file = epath.Path(file)
    # In a cloud, objects appear whole anyway, and a rename is a copy.
    fresh = file.with_name(f"{file.name}.tmp") if is_local(file) else file
    with reaching(file), _removed_on_error(fresh):
        if isinstance(content, str):
            fresh.write_text(content)
        else:
            fresh.write_bytes(content)
        if fresh != file:
            fresh.replace(file)


@contextmanager
def _removed_on_error(file: epath.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # a full disk; Python leaves out which file
        if is_local(file):
            with suppress(OSError):
                file.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, error.filename or str(file)) from None
