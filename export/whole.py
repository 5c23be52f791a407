"""Files and folders that appear whole, in a place that was free, or not at all."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from etils import epath

from teachers.runs.checkpoints import mark_finished
from teachers.runs.errors import InputError
from teachers.runs.outputs import require_new
from teachers.runs.paths import free_bytes, is_local, reaching, require_reachable


def require_free(out: epath.Path) -> None:
    """Refuses a place that is taken; an empty folder is none.

    Raises:
        InputError: a file is there, or a folder that holds something; or it cannot be reached.
    """
    require_reachable(out)
    with reaching(out):
        if out.is_dir():
            require_new(out)
        elif out.exists():
            raise InputError(
                f"{out} exists; choose another --out or remove it (nothing was overwritten)"
            )


def require_space(out: epath.Path, size: int) -> None:
    """Refuses to write more bytes than the disk of `out` has free, where that is known.

    Raises:
        InputError: it has fewer.
    """
    if not is_local(out):
        return
    free = free_bytes(next(folder for folder in out.parents if folder.exists()))
    if free is not None and size > free:
        raise InputError(
            f"{out} would take {size:,} bytes, but only {free:,} are free; choose an --out on another disk"
        )


@contextmanager
def appearing(out: epath.Path) -> Iterator[epath.Path]:
    """Makes a file or folder under a temporary name beside `out`, and gives it its own when the block is done.

    Yields:
        The temporary path; after an error or an interruption nothing is left of it.

    Raises:
        InputError: `out` is taken, or cannot be written.
    """
    require_free(out)
    partial = out.parent / f".{out.name}.{secrets.token_hex(4)}.partial"
    try:
        with reaching(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            mark_finished(partial)
            require_free(out)  # somebody else may have come first
            _rename(partial, out)
    except OSError as error:
        # The reason alone: it may be a full disk as well as a file that went away while it was read.
        reason = error.strerror or type(error).__name__
        raise InputError(
            f"cannot write {out}: {error.filename or out.parent}: {reason}; choose another --out"
        ) from None
    finally:
        _remove(partial)


def _rename(partial: epath.Path, out: epath.Path) -> None:
    if out.is_dir():
        out.rmdir()
    try:
        partial.rename(out)
    except BaseException:
        if not is_local(out):  # where files are copied one after the other
            _remove(out)
        raise


def _remove(partial: epath.Path) -> None:
    if partial.is_dir():
        partial.rmtree(missing_ok=True)
    elif partial.exists():
        partial.unlink(missing_ok=True)
