"""The lock that lets one process at a time write a folder: on one machine, on disks that machines share, and in a cloud.

The owner keeps the file `.lock` in the folder, and writes it anew every few seconds. On a disk of one machine, the kernel
knows whether the owner is alive, also after it was killed (flock). On other disks this knowledge may end at the machine, and
a cloud has none: there, a process that finds the file waits. If the file changes the owner is alive, and if it does not the
owner is dead. Clocks of different machines are never compared.
"""

import errno
import fcntl
import json
import os
import secrets
import socket
import stat
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from etils import epath

from teachers.runs.devices import all_processes_agree, on_main_process
from teachers.runs.errors import InputError, SaveError
from teachers.runs.layout import LOCK
from teachers.runs.paths import (
    absolute_path,
    create_folder,
    is_local,
    require_reachable,
    require_utf8,
    translate_storage_errors,
)

BEAT = 5.0  # seconds after which an owner writes its lock anew
PATIENCE = 30.0  # seconds without a change after which an owner counts as dead
SETTLE = 2.0  # seconds after which a lock that two processes wrote together has its last content
LOCK_BYTES = 512  # every write has this size, so that no reader finds a part of one
NO_FILE = (errno.ELOOP, errno.EISDIR, errno.ENXIO)  # a link, a folder, a socket
# Types of file systems, or their beginnings, that several machines can mount at once.
SHARED_FILE_SYSTEMS = (
    *("nfs", "cifs", "smb", "fuse", "lustre", "ceph", "gpfs", "beegfs", "9p", "virtiofs", "afs"),
    *("glusterfs", "ocfs2", "gfs2"),
)

_lost: set[epath.Path] = set()  # folders that another process has taken from this one


@contextmanager
def lock_folder(folder: epath.PathLike) -> Iterator[None]:
    """Creates a folder if there is none, and keeps every other process from locking it until the block ends.

    Where several processes train together, the first one holds the lock for all. A folder that was created for the block
    and is still empty at its end is removed.

    Raises:
        InputError: another process holds the lock, or the folder cannot be created, written or reached.
    """
    folder = epath.Path(folder)
    with ExitStack() as held:
        on_main_process(lambda: held.enter_context(_hold(folder)))
        yield


def require_lock(folder: epath.PathLike) -> None:
    """Raises an error if another process has taken a folder, or one above it, that this one had locked.

    This happens only to a process that did not run for a while, such as one that was suspended, or that had lost its network.

    Raises:
        SaveError: it has.
    """
    if all_processes_agree(lock_is_lost(folder)):
        raise SaveError(
            f"{folder} was taken over by another process while this one did not run or had no network; this one ends"
        )


def lock_is_lost(folder: epath.PathLike) -> bool:
    """Returns whether this process has noticed that another has taken a folder; see `require_lock`."""
    folder = epath.Path(folder)
    return not _lost.isdisjoint({folder, *folder.parents})


@contextmanager
def _hold(folder: epath.Path) -> Iterator[None]:
    require_reachable(folder)
    require_utf8(absolute_path(folder))
    is_new = is_local(folder) and not folder.exists()
    create_folder(folder)
    _lost.discard(folder)
    lock = _Lock(folder)
    try:
        with translate_storage_errors(folder):
            while not lock.try_to_acquire():
                pass
        with lock.beats():
            yield
    finally:
        lock.release()
        if is_new:
            with suppress(OSError):  # it is not empty
                Path(folder).rmdir()


class _Lock:
    """The lock file of one folder, as this process sees it."""

    def __init__(self, folder: epath.Path) -> None:
        self._folder, self._file = folder, folder / LOCK
        self._token = secrets.token_hex(8)
        self._count = 0
        self._descriptor: int | None = None  # of a local file
        self._kernel_decides = False  # whether a process that has no lock of the kernel is dead
        self._stop = threading.Event()

    def try_to_acquire(self) -> bool:
        """Takes the lock; returns False if its file was removed meanwhile, so that it has to be tried again.

        Raises:
            InputError: another process holds the lock, or the file is no lock.
        """
        self._kernel_decides = is_local(self._file) and self._open()
        self._require_lock_file()
        found = self._read()
        if found and not (self._kernel_decides and found.get("kernel") == _kernel()):
            self._wait_until_owner_is_dead(found)
        if self._descriptor is not None and not self._is_own_file():
            self._close()
            return False
        self._write()
        if not self._kernel_decides:
            time.sleep(SETTLE)
            if not self._is_own_content():
                raise self._in_use_error()
        return True

    def release(self) -> None:
        """Removes the lock file if it is that of this process."""
        with suppress(Exception):  # the storage may be out of reach
            if self._count and self._is_own_content():
                self._file.unlink(missing_ok=True)
        self._close()

    @contextmanager
    def beats(self) -> Iterator[None]:
        """Writes the lock every few seconds in a thread, until the block ends."""
        thread = threading.Thread(target=self._beat, daemon=True, name=f"lock {self._file}")
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join(BEAT)

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            with suppress(Exception):  # the network may come back
                found = self._read()
                # Without a file, another process has taken the lock and has ended. What cannot be understood is a part of
                # a write.
                if found is None or (found and found.get("token") != self._token):
                    _lost.add(self._folder)
                    return
                self._write()

    def _open(self) -> bool:
        """Opens a local lock file and locks it, and returns whether that says that no other process holds it.

        Raises:
            InputError: another process holds it, it belongs to another user, or it is a link or the like.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._descriptor = os.open(self._file, flags, 0o666)
        except PermissionError:
            raise InputError(
                f"{self._file} is the lock of another user; if none of their processes writes there, remove it"
            ) from None
        except OSError as error:
            if error.errno in NO_FILE:
                raise self._no_lock_error() from None
            raise
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            raise self._no_lock_error()
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._in_use_error() from None
        except OSError:  # the file system has no such locks
            return False
        return not _is_shared(self._folder)

    def _require_lock_file(self) -> None:
        """Raises an error if the file holds something that no process has written as a lock.

        Raises:
            InputError: it does.
        """
        found = self._read()
        if found is None or "token" in found:
            return
        with suppress(FileNotFoundError):  # another process has removed it
            # What has the size of a lock is one that was written in part.
            if self._file.stat().length not in (0, LOCK_BYTES):
                raise self._no_lock_error()

    def _is_own_file(self) -> bool:
        """Returns whether the file that was opened is still the one of this name."""
        assert self._descriptor is not None
        try:
            return os.path.samestat(os.stat(self._file), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def _is_own_content(self) -> bool:
        return (self._read() or {}).get("token") == self._token

    def _read(self) -> dict[str, Any] | None:
        """Returns what the owner wrote last; empty if that cannot be understood, and None if there is no file."""
        try:
            content = json.loads(self._file.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        return content if isinstance(content, dict) else {}

    def _write(self) -> None:
        self._count += 1
        content = {
            "host": socket.gethostname()[:200],
            "process": os.getpid(),
            "kernel": _kernel(),
            "token": self._token,
            "beat": self._count,
        }
        written = json.dumps(content).ljust(LOCK_BYTES).encode()
        if self._descriptor is None:
            self._file.write_bytes(written)
        else:  # in place, because the kernel's lock belongs to this very file
            os.pwrite(self._descriptor, written, 0)
            if not self._kernel_decides:  # other machines have to see it
                os.fsync(self._descriptor)

    def _wait_until_owner_is_dead(self, found: dict[str, Any]) -> None:
        """Waits for the next beat of an owner of whom the kernel knows nothing.

        Raises:
            InputError: the beat came.
        """
        warnings.warn(
            f"{self._folder} holds the lock of {_describe_owner(found)}; waiting up to {PATIENCE:.0f} s to see whether it "
            "is still running",
            stacklevel=2,
        )
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            time.sleep(min(1.0, PATIENCE / 10))
            newest = self._read()
            if newest is None:  # the owner has ended
                return
            if newest and newest != found:
                raise self._in_use_error()

    def _in_use_error(self) -> InputError:
        return InputError(
            f"{self._folder} is being written by {_describe_owner(self._read())}; wait until it ends, or choose another --out"
        )

    def _no_lock_error(self) -> InputError:
        return InputError(
            f"{self._file} is not a lock of crl-distill; move it away, or choose another --out (nothing was overwritten)"
        )

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _describe_owner(content: dict[str, Any] | None) -> str:
    if not content:
        return "another process"
    return f"process {content.get('process')} on {content.get('host')}"


def _is_shared(folder: epath.Path) -> bool:
    """Returns whether a local folder lies on a file system that several machines can mount."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    except (OSError, ValueError):  # not on Linux
        return False
    return _file_system(os.path.realpath(folder), mounts).startswith(SHARED_FILE_SYSTEMS)


def _file_system(path: str, mounts: str) -> str:
    """Returns the type of the file system on which an absolute path lies.

    Args:
        path: the path.
        mounts: the content of `/proc/self/mountinfo`.
    """
    longest, kind = "", ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        mounted = before.split()[4].replace("\\040", " ")
        is_below = f"{path}/".startswith(mounted.rstrip("/") + "/")
        if is_below and len(mounted) >= len(longest):  # a later mount covers an earlier one
            longest, kind = mounted, after.split()[0]
    return kind


def _kernel() -> str:
    """Returns an identifier of the running kernel, which all containers of a machine share."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return socket.gethostname()
