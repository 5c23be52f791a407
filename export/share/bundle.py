"""Chooses the files of a run that are shared, and makes their manifest."""

import os
import stat
import tomllib
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from io import BytesIO
from typing import Any, NamedTuple

from etils import epath

from export.artefacts import load_agent
from export.share.card import render_run_card
from export.share.manifest import (
    CARD,
    MANIFEST,
    Entry,
    Manifest,
    describe_file,
    require_safe_paths,
)
from teachers.runs.checkpoint_choice import CheckpointChoice, read_newest_sound
from teachers.runs.checkpoint_readable import UnreadableError
from teachers.runs.checkpoints import DamagedError, read_metadata
from teachers.runs.errors import InputError
from teachers.runs.layout import CHECKPOINTS, CONFIG, LOCK, UNFINISHED
from teachers.runs.metadata import Metadata, library_versions
from teachers.runs.paths import is_local
from teachers.tasks.load import portable_reference

# The parts of a checkpoint that a policy and a critic need.
CHECKPOINT_ITEMS = ("metadata", "checksums", "params")
NEVER_SHARED = (UNFINISHED, LOCK)


class Bundle(NamedTuple):
    """A run to be shared.

    Attributes:
        run: the run's folder.
        card: the content of its model card.
        manifest: all files, with the card among them.
    """

    run: epath.Path
    card: bytes
    manifest: Manifest

    def open(self, path: str) -> Any:
        """Opens one of the manifest's files for reading its bytes."""
        return BytesIO(self.card) if path == CARD else (self.run / path).open("rb")


def make_bundle(
    run: epath.PathLike,
    *,
    full: bool = False,
    repo: str | None = None,
    checkpoint: CheckpointChoice = "newest",
) -> Bundle:
    """Collects the files of a run that are to be shared.

    Args:
        run: the run's folder.
        full: share all files but those hidden at the top of the folder and the folder `unfinished`, rather than the policy
            and critic alone.
        repo: the repository that the model card names.
        checkpoint: the checkpoint of the policy and critic. If it is `newest` and the newest is damaged, an earlier one
            is taken, with a warning. Another warning says that a run of an early version names the folder of the task's
            file.

    Raises:
        InputError: `run` is not the folder of a run, or holds a link or a file name that cannot be shared.
    """
    folder = epath.Path(run)
    step, metadata = read_newest_sound(folder, lambda step: _read_intact(folder, step), checkpoint)
    card = _read_card(folder) or render_run_card(metadata, step, repo).encode()
    entries = [describe_file(CARD, BytesIO(card).read)]
    paths = sorted("/".join(parts) for parts in _select_files(folder, (), step, full))
    require_safe_paths([CARD, MANIFEST, *paths], str(folder))
    _warn_of_task_folders(folder, paths)
    for path in paths:
        with (folder / path).open("rb") as file:
            entries.append(describe_file(path, file.read))
    return Bundle(
        folder,
        card,
        Manifest(
            crl_distill=library_versions()["crl-distill"],
            kind=metadata.kind,
            task=metadata.task,
            step=step,
            full=full,
            files=tuple(sorted(entries, key=lambda entry: entry.path)),
        ),
    )


def changed_file_error(bundle: Bundle, entry: Entry) -> InputError:
    """Returns the error for a file that has changed since the manifest was made."""
    return InputError(
        f"{bundle.run}: {entry.path!r} changed meanwhile; share the run again when its training has stopped"
    )


def _read_intact(run: epath.Path, step: int) -> tuple[int, Metadata]:
    """Returns a checkpoint's step and metadata.

    Raises:
        DamagedError: the checkpoint is not as it was saved.
        UnreadableError: it cannot be read.
    """
    metadata = read_metadata(run, step)
    try:
        load_agent(run, None, step)
    except (DamagedError, UnreadableError):
        raise
    except InputError:
        pass  # This machine may lack a task that the user wrote. Sharing does not need it.
    return step, metadata


def _warn_of_task_folders(run: epath.Path, paths: Iterable[str]) -> None:
    """Warns if the files at these paths say in which folder the task's file lies, as those of early versions do."""
    steps = {int(path.split("/")[1]) for path in paths if path.startswith(f"{CHECKPOINTS}/")}
    references = []
    for step in steps:
        try:
            metadata = read_metadata(run, step)
        except UnreadableError:
            raise
        except InputError:  # a damaged checkpoint
            continue
        references += [metadata.task_source, metadata.config.get("task")]
    with suppress(OSError, ValueError):
        references.append(tomllib.loads((run / CONFIG).read_text(encoding="utf-8")).get("task"))
    names = {name for name in references if isinstance(name, str)}
    if private := sorted(name for name in names if portable_reference(name) != name):
        warnings.warn(
            f"{run} is of an early version and names {', '.join(private)}, which is shared with it; to share the file's name "
            "alone, resume it with more steps or train it again with this version; else leave it",
            stacklevel=3,
        )


def _read_card(run: epath.Path) -> bytes | None:
    """Returns the run's own model card: of a run that was shared before, or written by its owner; None without one."""
    card = run / CARD
    if not card.exists():
        return None
    _require_regular(card)
    return card.read_bytes()


def _select_files(
    run: epath.Path, folder: tuple[str, ...], step: int, full: bool
) -> Iterator[tuple[str, ...]]:
    """Yields the paths, as tuples of parts, of all files to share in a folder of the run and below.

    Raises:
        InputError: there is a link or a special file among them.
    """
    for entry in run.joinpath(*folder).iterdir():
        parts = (*folder, entry.name)
        is_folder = entry.is_dir()
        if not _is_shared(parts, is_folder, step, full):
            continue
        _require_regular(entry)
        if is_folder:
            yield from _select_files(run, parts, step, full)
        else:
            yield parts


def _is_shared(parts: tuple[str, ...], is_folder: bool, step: int, full: bool) -> bool:
    """Returns whether a file or folder of the run is shared."""
    top = parts[0]
    # The card and the manifest are written anew.
    if top.startswith(".") or top in NEVER_SHARED or parts in ((CARD,), (MANIFEST,)):
        return False
    if top == CHECKPOINTS:
        if len(parts) == 1:
            return is_folder
        if not parts[1].isdecimal():  # a checkpoint that Orbax has not finished
            return False
        if full:
            return True
        is_chosen = int(parts[1]) == step
        return is_chosen and (len(parts) != 3 or not is_folder or parts[2] in CHECKPOINT_ITEMS)
    return full or parts == (CONFIG,)


def _require_regular(entry: epath.Path) -> None:
    if not is_local(entry):
        return
    mode = os.lstat(entry).st_mode
    if stat.S_ISLNK(mode):
        raise InputError(
            f"{entry} is a link, which cannot be shared; put what it leads to in its place"
        )
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{entry} is neither a file nor a folder; remove it to share the run")
