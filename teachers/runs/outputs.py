"""New folders for runs and results."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import jax
from etils import epath

from teachers.runs.devices import on_main_process
from teachers.runs.errors import InputError
from teachers.runs.paths import is_local, reaching, require_reachable


def require_new(out: epath.PathLike) -> None:
    """Refuses a folder that already holds something.

    Raises:
        InputError: the folder is not empty, is a file, or cannot be reached.
    """
    out = epath.Path(out)
    require_reachable(out)
    with reaching(out):
        if out.exists() and not out.is_dir():
            raise InputError(f"{out} is a file; choose a folder with --out")
        if out.is_dir() and any(out.iterdir()):
            raise InputError(
                f"{out} already holds files; choose another --out or remove it (nothing was overwritten)"
            )


@contextmanager
def new_folder(out: epath.PathLike) -> Iterator[None]:
    """A new folder; if the block is interrupted before it holds a checkpoint, it is removed again.

    Raises:
        InputError: it is taken, or cannot be created or written.
    """
    out = epath.Path(out)

    def make() -> None:
        require_new(out)
        make_folder(out)

    on_main_process(make)
    try:
        yield
    except KeyboardInterrupt:
        if jax.process_index() == 0 and not any(out.glob("checkpoints/*[0-9]")):
            out.rmtree(missing_ok=True)
        raise


def make_folder(out: epath.PathLike) -> None:
    """Creates a folder and its parents; in a cloud, where there are none but by their files, nothing.

    Raises:
        InputError: it cannot be created, written or reached.
    """
    if not is_local(out):
        require_reachable(out)
        return
    try:
        epath.Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot create {out}: {error.strerror}; choose another --out") from None
    if not os.access(out, os.W_OK):
        raise InputError(f"cannot write in {out}; choose another --out")
