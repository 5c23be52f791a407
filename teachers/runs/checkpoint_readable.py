"""Tells why a checkpoint cannot be read where it is not damaged: access, storage or the limits of the process."""

import os
import re
from collections.abc import Collection, Iterator
from contextlib import suppress

from etils import epath

from teachers.runs.errors import InputError
from teachers.runs.layout import checkpoints_folder
from teachers.runs.paths import is_local, list_folder, translate_storage_errors

CHUNK_BYTES = 2**24
# TensorStore gives the cause of an error in its text alone, such as "Too many open files [os_error_code='24']".
_TENSORSTORE_ERROR = re.compile(r"os_error_code='(\d+)'")
# Its statuses for faults of a cloud or of the network.
_TENSORSTORE_STATUS = re.compile(
    "^(PERMISSION_DENIED|UNAUTHENTICATED|UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|ABORTED|CANCELLED):"
)
_MISSING = (FileNotFoundError, NotADirectoryError)


class UnreadableError(InputError):
    """A checkpoint cannot be read now or by this version, and need not be damaged."""


def require_readable(
    run: epath.PathLike,
    step: int,
    items: Collection[str],
    error: BaseException,
    handled: BaseException | None = None,
) -> None:
    """Raises an error if something other than the content of its files keeps a checkpoint from being read.

    Args:
        run: the run's folder.
        step: control step of the checkpoint.
        items: names of the items that were read.
        error: what reading them has raised.
        handled: an exception that the caller was handling when it began to read, and that is no cause of `error`.

    Raises:
        UnreadableError: a file cannot be read, the checkpoint was removed meanwhile, or `error` has another cause than what
            the files hold.
    """
    folder = checkpoints_folder(run) / str(step)
    reason = _find_reason(error, handled, is_local(folder))
    if reason is None:
        try:
            with translate_storage_errors(folder):
                for item in items:
                    _read_all(folder / item)
        except InputError as unreachable:
            raise UnreadableError(str(unreachable)) from error
        except OSError as unreadable:
            reason = f"{unreadable.filename or folder}: {unreadable.strerror or unreadable}"
    if reason is None and not folder.exists():
        reason = "it was removed while it was read, as by a run that keeps only newer ones"
    if reason is not None:
        raise UnreadableError(
            f"cannot read checkpoint {step} in {run}: {reason}; mend that and try again (nothing was changed)"
        ) from error


def _find_reason(error: BaseException, handled: BaseException | None, on_disk: bool) -> str | None:
    """Returns the cause of an error if it is one of access, storage or limits; None if it may be the files' content."""
    for each in _causes(error, handled):
        text = str(each)
        # File systems of clouds raise errors without a number.
        if isinstance(each, OSError) and not isinstance(each, _MISSING):
            if each.errno:
                return f"{each.filename}: {each.strerror}" if each.filename else str(each.strerror)
            if not on_disk or isinstance(each, TimeoutError | ConnectionError | PermissionError):
                return text.strip().partition("\n")[0] or type(each).__name__
        for number in map(int, _TENSORSTORE_ERROR.findall(text)):
            with suppress(ValueError):
                if not isinstance(OSError(number, os.strerror(number)), _MISSING):
                    return os.strerror(number)
        if _TENSORSTORE_STATUS.match(text):
            return text.strip().partition("\n")[0]
    return None


def _causes(error: BaseException, handled: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and what has caused it."""
    seen: set[int] = {id(handled)}
    rest: list[BaseException | None] = [error]
    while rest:
        each = rest.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        rest += [each.__cause__, each.__context__, *getattr(each, "exceptions", ())]


def _read_all(path: epath.Path) -> None:
    """Reads every file below a path, and keeps nothing of it; a missing one is passed over."""
    with suppress(*_MISSING):
        entries = list_folder(path)
        for entry in entries:
            _read_all(entry)
        if entries or path.is_dir():
            return
        if not is_local(path):
            path.read_bytes()
            return
        with open(path, "rb") as file:
            while file.read(CHUNK_BYTES):
                pass
