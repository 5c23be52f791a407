"""Everything about writing: which paths are free, how folders are created, and files that are complete or absent.

A command writes in three steps: it raises an error if its output path is taken (`require_...`), creates the folder
(`new_run_folder`, or `create_marked_folder` for a folder that a later call may continue), and writes files that never
appear half-written (`write_atomically`, `create_atomically`).
"""

import os
import secrets
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import jax
from etils import epath

from teachers.runs.devices import on_main_process
from teachers.runs.errors import InputError
from teachers.runs.layout import CHECKPOINTS, CONFIG, EVENTS, LOCK, METRICS, UNFINISHED
from teachers.runs.lock import lock_is_lost
from teachers.runs.paths import (
    create_folder,
    is_local,
    list_folder,
    require_reachable,
    translate_storage_errors,
)


def require_unused(path: epath.PathLike) -> None:
    """Raises an error if a path is taken; a path is free if it does not exist or is an empty folder.

    Raises:
        InputError: the path is a file or a folder with content, or it cannot be reached.
    """
    path = epath.Path(path)
    require_reachable(path)
    with translate_storage_errors(path):
        if path.is_dir():
            if _holds_files(path):
                raise InputError(
                    f"{path} already holds files; choose another --out or remove it (nothing was overwritten)"
                )
        elif path.exists():
            raise InputError(
                f"{path} exists and is a file; choose another --out or remove it (nothing was overwritten)"
            )


def _holds_files(folder: epath.Path) -> bool:
    """Returns whether a folder holds anything but a lock."""
    return any(entry.name != LOCK for entry in folder.iterdir())


def require_new_file(file: epath.PathLike, *endings: str) -> None:
    """Raises an error if a file cannot be written, so that a command fails before its work and not after.

    Args:
        file: the file to write.
        endings: the endings that its name may have, such as `.png`.

    Raises:
        InputError: the name has another ending, the file exists, or its folder cannot be written or reached.
    """
    file = epath.Path(file)
    if file.suffix not in endings:
        raise InputError(f"{file}: the file's name must end in {' or '.join(endings)}")
    require_reachable(file)
    with translate_storage_errors(file):
        if file.is_dir():
            raise InputError(f"{file} is a folder; give the name of a file")
        if file.exists():
            raise InputError(
                f"{file} exists; choose another name or remove it (nothing was overwritten)"
            )
    if not is_local(file):
        return
    existing = next(folder for folder in file.absolute().parents if folder.exists())
    if not os.access(existing, os.W_OK):
        raise InputError(f"cannot write in {existing}; choose another folder for {file.name}")


def free_bytes(folder: epath.PathLike) -> int | None:
    """Returns the free space of the file system of an existing folder; None in a cloud, which has no such limit."""
    return shutil.disk_usage(folder).free if is_local(folder) else None


def require_space(path: epath.Path, size: int) -> None:
    """Raises an error if the file system of `path` has fewer than `size` bytes free; does nothing in a cloud.

    Raises:
        InputError: there is too little space.
    """
    if not is_local(path):
        return
    free = free_bytes(next(folder for folder in path.parents if folder.exists()))
    if free is not None and size > free:
        raise InputError(
            f"{path} would take {size:,} bytes, but only {free:,} are free; choose an --out on another disk"
        )


@contextmanager
def new_run_folder(run: epath.PathLike) -> Iterator[None]:
    """Creates the folder of a new run, and empties it if Ctrl-C ends the block before the first checkpoint.

    A folder that another process has taken over meanwhile is left as it is.

    Raises:
        InputError: the path is taken, or the folder cannot be created or written.
    """
    run = epath.Path(run)

    def create() -> None:
        require_unused(run)
        create_folder(run)

    on_main_process(create)
    try:
        yield
    except KeyboardInterrupt:
        is_own = jax.process_index() == 0 and not lock_is_lost(run)
        if is_own and not _holds_checkpoint(run):
            with suppress(OSError):  # another error must not take the place of Ctrl-C
                for entry in list_folder(run):
                    if entry.name != LOCK:
                        _remove(entry)
        raise


def _holds_checkpoint(run: epath.Path) -> bool:
    """Returns whether a run has a checkpoint, complete or not, of its result or of an unfinished distillation."""
    folders = [folder for folder in _checkpoint_folders(run) if folder.is_dir()]
    return any(entry.name.isdecimal() for folder in folders for entry in folder.iterdir())


def _checkpoint_folders(run: epath.Path) -> list[epath.Path]:
    return [run / CHECKPOINTS, run / UNFINISHED / CHECKPOINTS]


def remove_unfinished_run(run: epath.PathLike) -> None:
    """Removes the files that a run wrote before it ended without a checkpoint; the empty folder stays.

    Unfinished checkpoints have to be removed before, with `remove_unfinished_checkpoints`.

    Raises:
        InputError: the folder holds any other file or a checkpoint; then nothing is removed.
    """
    run = epath.Path(run)
    if not run.is_dir():
        return
    files, folders = _log_files(run), [run / CHECKPOINTS, run / UNFINISHED]
    others = [entry for entry in run.iterdir() if entry not in {*files, *folders, run / LOCK}]
    for checkpoints in _checkpoint_folders(run):
        if checkpoints.is_dir():
            others += checkpoints.iterdir()
    others += [entry for entry in list_folder(run / UNFINISHED) if entry.name != CHECKPOINTS]
    if others:
        raise _unexpected_file(run, others[0].name, "an unfinished run")
    for file in files:
        file.unlink(missing_ok=True)
    for folder in folders:
        if folder.is_dir():
            folder.rmtree()


def remove_progress(run: epath.PathLike) -> None:
    """Removes the checkpoints of a distillation that is finished; what else lies in their folder stays."""
    folder = epath.Path(run) / UNFINISHED
    (folder / CHECKPOINTS).rmtree(missing_ok=True)
    if is_local(folder):
        with suppress(OSError):  # it is missing, or holds something else
            Path(folder).rmdir()


def _log_files(run: epath.Path) -> list[epath.Path]:
    """Returns the paths of all files that a run leaves beside its checkpoints; some may not exist."""
    files = [run / CONFIG, run / METRICS]
    events = [entry for entry in run.iterdir() if entry.name.startswith(EVENTS)]
    return [*files, *map(_temporary_path, files), *events]


def read_marker(folder: epath.PathLike, marker: str, owner: str) -> str | None:
    """Reads the marker file by which a command recognises a folder of its own.

    Args:
        folder: the output folder that the user chose.
        marker: name of the marker file.
        owner: what leaves such folders, for the error, such as "a demo".

    Returns:
        The content of the marker; None if the folder is unused.

    Raises:
        InputError: the folder holds files but no marker, is a file, or cannot be reached.
    """
    folder = epath.Path(folder)
    require_reachable(folder)
    with translate_storage_errors(folder):
        if (folder / marker).exists():
            return (folder / marker).read_bytes().decode(errors="replace")
        if folder.is_dir() and _holds_files(folder):
            raise InputError(
                f"{folder} already holds files that are not those of {owner}; choose another --out or remove it "
                "(nothing was overwritten)"
            )
    require_unused(folder)
    return None


def create_marked_folder(folder: epath.PathLike, marker: str, content: str) -> None:
    """Creates a folder with a marker file, or replaces the marker in an existing folder.

    Raises:
        InputError: the folder cannot be created, written or reached.
    """
    create_folder(folder)
    write_atomically(epath.Path(folder) / marker, content)


def empty_marked_folder(
    folder: epath.PathLike, marker: str, names: Collection[str], owner: str
) -> None:
    """Removes everything in a folder in which a command recognised its marker, except its lock.

    Args:
        folder: the folder.
        marker: name of the marker file.
        names: other files and folders that the command leaves there.
        owner: see `read_marker`.

    Raises:
        InputError: the folder holds something else too; then nothing is removed.
    """
    folder = epath.Path(folder)
    with translate_storage_errors(folder):
        entries = {entry.name: entry for entry in folder.iterdir() if entry.name != LOCK}
        names = {*names, marker}
        partial = {name for name in entries if any(_is_partial(name, of) for of in names)}
        if others := sorted(set(entries) - set(names) - partial):
            raise _unexpected_file(folder, others[0], owner)
        # The marker is the last, so that a call that is killed here can be repeated.
        for entry in sorted(entries.values(), key=lambda entry: entry.name == marker):
            _remove(entry)


def _is_partial(name: str, of: str) -> bool:
    """Returns whether a killed process has left a file or folder of this name while it was writing another."""
    is_draft = name.startswith(f".{of}.") and name.endswith(".partial")
    return is_draft or name == f"{of}.tmp"


def _unexpected_file(folder: epath.Path, name: str, owner: str) -> InputError:
    return InputError(
        f"{folder} already holds files that {owner} does not leave, such as {name}; choose another --out or remove it "
        "(nothing was overwritten)"
    )


@contextmanager
def create_atomically(path: epath.Path) -> Iterator[epath.Path]:
    """Lets the block write a file or folder under a temporary name, and renames it to `path` at the end.

    Yields:
        The temporary path, beside `path`. After an error or an interruption nothing of it is left.

    Raises:
        InputError: `path` is taken, or cannot be written.
    """
    require_unused(path)
    partial = path.parent / f".{path.name}.{secrets.token_hex(4)}.partial"
    try:
        with translate_storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            require_unused(path)  # another process may have created it meanwhile
            _rename(partial, path)
    except OSError as error:
        # The error is not called a full disk or the like, as a file that was being read may also have disappeared.
        reason = error.strerror or type(error).__name__
        raise InputError(
            f"cannot write {path}: {error.filename or path.parent}: {reason}; choose another --out"
        ) from None
    finally:
        _remove(partial)


def _rename(partial: epath.Path, path: epath.Path) -> None:
    if path.is_dir():
        if (path / LOCK).exists():
            raise InputError(
                f"{path} is being written by another process, or one that was killed has left {LOCK} there; wait, remove "
                "it, or choose another --out"
            )
        path.rmdir()
    try:
        partial.rename(path)
    except BaseException:
        if not is_local(
            path
        ):  # a rename in a cloud copies file by file, so that some may be there already
            _remove(path)
        raise


def _remove(path: epath.Path) -> None:
    if path.is_dir():
        path.rmtree(missing_ok=True)
    elif path.exists():
        path.unlink(missing_ok=True)


def write_atomically(file: epath.PathLike, content: str | bytes) -> None:
    """Writes a file, replacing an older one; at no moment is it there in part."""
    file = epath.Path(file)
    # In a cloud a file appears complete anyway, and a rename would copy it.
    target = _temporary_path(file) if is_local(file) else file
    with translate_storage_errors(file), _remove_on_error(target):
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        if target != file:
            target.replace(file)


def _temporary_path(file: epath.Path) -> epath.Path:
    return file.with_name(f"{file.name}.tmp")


@contextmanager
def _remove_on_error(file: epath.Path) -> Iterator[None]:
    """Removes a local file if writing it fails, and names it in the error, which Python does not do for a full disk."""
    try:
        yield
    except OSError as error:
        if is_local(file):
            with suppress(OSError):
                file.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, error.filename or str(file)) from None


@contextmanager
def local_draft(file: epath.PathLike) -> Iterator[Path]:
    """Gives libraries that write local files alone a path to write; a file in a cloud is uploaded after the block.

    Yields:
        The file itself if it is local, else a temporary path.
    """
    if is_local(file):
        yield Path(file)
        return
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / epath.Path(file).name
        yield draft
        with translate_storage_errors(file):
            epath.Path(file).write_bytes(draft.read_bytes())
