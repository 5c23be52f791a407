"""The lock that lets one process at a time write a folder: on one machine, on disks that machines share, and in a cloud.

The owner keeps the file `.lock` in the folder, and writes it anew every few seconds. On one machine, the kernel knows
whether the owner is alive, also after it was killed (flock). Another machine cannot ask this kernel, and a cloud has no such
locks: there, a process that finds the file waits. If the file changes the owner is alive, and if it does not the owner is
dead. Clocks of different machines are never compared.
"""

import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from etils import epath

from teachers.runs.devices import on_main_process
from teachers.runs.errors import InputError, SaveError
from teachers.runs.layout import LOCK
from teachers.runs.outputs import create_folder
from teachers.runs.paths import (
    absolute_path,
    is_local,
    require_reachable,
    require_utf8,
    translate_storage_errors,
)

BEAT = 5.0  # seconds after which an owner writes its lock anew
PATIENCE = 30.0  # seconds without a change after which an owner counts as dead
SETTLE = 2.0  # seconds after which a lock that two processes wrote together has its last content
LOCK_BYTES = 512  # every write has this size, so that no reader finds a part of one

_lost: set[epath.Path] = set()  # folders that another process has taken from this one


@contextmanager
def lock_folder(folder: epath.PathLike) -> Iterator[None]:
    """Creates a folder if there is none, and keeps every other process from locking it until the block ends.

    Where several processes train together, the first one holds the lock for all.

    Raises:
        InputError: another process holds the lock, or the folder cannot be created, written or reached.
    """
    folder = epath.Path(folder)
    with ExitStack() as held:
        on_main_process(lambda: held.enter_context(_hold(folder)))
        yield


def require_lock(folder: epath.PathLike) -> None:
    """Raises an error if another process has taken a folder that this one had locked.

    This happens only to a process that did not run for a while, such as one that was suspended, or that had lost its network.

    Raises:
        SaveError: it has.
    """
    if epath.Path(folder) in _lost:
        raise SaveError(
            f"{folder} was taken over by another process while this one did not run or had no network; this one ends, "
            "and writes nothing more there"
        )


@contextmanager
def _hold(folder: epath.Path) -> Iterator[None]:
    require_reachable(folder)
    require_utf8(absolute_path(folder))
    create_folder(folder)
    _lost.discard(folder)
    with ExitStack() as stack:
        kernel_lock = stack.enter_context(_kernel_lock(folder)) if is_local(folder) else False
        beats = _Beats(folder / LOCK)
        with translate_storage_errors(folder):
            found = beats.read()
            if found and not (kernel_lock and found.get("kernel") == _kernel()):
                beats.require_dead_owner(found)
            beats.write()
            if not kernel_lock:
                time.sleep(SETTLE)
                beats.require_own()
        stack.enter_context(beats.repeat())
        yield


@contextmanager
def _kernel_lock(folder: epath.Path) -> Iterator[bool]:
    """Holds the kernel's lock of the lock file, and removes the file at the end.

    Yields:
        Whether the file system has such locks.

    Raises:
        InputError: another process holds it.
    """
    path = Path(folder / LOCK)
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            supported = True
        except BlockingIOError:
            os.close(file)
            raise _in_use_error(folder / LOCK) from None
        except OSError:
            supported = False
        # The owner before may have removed the file between our two calls.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(path), os.fstat(file)):
                break
        os.close(file)
    try:
        yield supported
    finally:
        os.close(file)


class _Beats:
    """The content of a lock file, which its owner writes again and again."""

    def __init__(self, file: epath.Path) -> None:
        self._file = file
        self._token = secrets.token_hex(8)
        self._count = 0
        self._stop = threading.Event()

    def read(self) -> dict[str, object]:
        """Returns what the owner wrote last; an empty dictionary if nothing."""
        with suppress(FileNotFoundError, ValueError):
            content = json.loads(self._file.read_bytes())
            return content if isinstance(content, dict) else {}
        return {}

    def write(self) -> None:
        """Writes the lock anew."""
        self._count += 1
        content = {
            "host": socket.gethostname()[:200],
            "process": os.getpid(),
            "kernel": _kernel(),
            "token": self._token,
            "beat": self._count,
        }
        text = json.dumps(content).ljust(LOCK_BYTES)
        if not is_local(self._file):
            self._file.write_bytes(text.encode())
            return
        # In place, because the kernel's lock belongs to this very file.
        file = os.open(self._file, os.O_WRONLY)
        try:
            os.pwrite(file, text.encode(), 0)
        finally:
            os.close(file)

    def require_dead_owner(self, found: dict[str, object]) -> None:
        """Waits for the next beat of an owner on another machine.

        Raises:
            InputError: the beat came.
        """
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            time.sleep(min(1.0, PATIENCE / 10))
            newest = self.read()
            if not newest:  # the owner has ended
                return
            if newest != found:
                raise _in_use_error(self._file)

    def require_own(self) -> None:
        """Raises an error if another process has written the lock since.

        Raises:
            InputError: one has.
        """
        if self.read().get("token") != self._token:
            raise _in_use_error(self._file)

    @contextmanager
    def repeat(self) -> Iterator[None]:
        """Writes the lock every few seconds in a thread until the block ends, and removes it then."""
        thread = threading.Thread(target=self._repeat, daemon=True, name=f"lock {self._file}")
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join(BEAT)
            if self._file.parent not in _lost:
                with suppress(Exception):  # the storage may be out of reach
                    self._file.unlink(missing_ok=True)

    def _repeat(self) -> None:
        while not self._stop.wait(BEAT):
            with suppress(Exception):  # the network may come back
                newest = self.read()
                if newest and newest.get("token") != self._token:
                    _lost.add(self._file.parent)
                    return
                self.write()


def _in_use_error(file: epath.Path) -> InputError:
    owner = _Beats(file).read()
    name = f"process {owner['process']} on {owner['host']}" if owner else "another process"
    return InputError(
        f"{file.parent} is being written by {name}; wait until it ends, or choose another --out"
    )


def _kernel() -> str:
    """Returns an identifier of the running kernel, which all containers of a machine share."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return socket.gethostname()
