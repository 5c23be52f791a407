"""Which files of a run are shared, and their manifest."""

import os
import stat
from collections.abc import Iterator
from io import BytesIO
from typing import Any, NamedTuple

from etils import epath

from export.artefacts import load_agent
from export.share.card import model_card
from export.share.manifest import CARD, NAME, Entry, Manifest, describe, require_safe
from teachers.runs.checkpoint_choice import CheckpointChoice, read_newest_sound
from teachers.runs.checkpoints import DamagedError, read_metadata
from teachers.runs.errors import InputError
from teachers.runs.layout import CHECKPOINTS
from teachers.runs.metadata import Metadata, library_versions
from teachers.runs.paths import is_local

ITEMS = ("metadata", "checksums", "params")  # of a checkpoint: all that a policy and a critic need


class Bundle(NamedTuple):
    """A run to be shared.

    Attributes:
        run: the run's folder.
        card: the content of its model card.
        manifest: all files, the card among them.
    """

    run: epath.Path
    card: bytes
    manifest: Manifest

    def open(self, path: str) -> Any:
        """Opens one of the manifest's files, to read its bytes."""
        return BytesIO(self.card) if path == CARD else (self.run / path).open("rb")


def bundle(
    run: epath.PathLike,
    *,
    full: bool = False,
    repo: str | None = None,
    checkpoint: CheckpointChoice = "newest",
) -> Bundle:
    """Collects what is to be shared of a run.

    Args:
        run: the run's folder.
        full: everything in it but hidden files at its top, in place of the newest policy and critic alone.
        repo: the repository that the model card is to name.
        checkpoint: whose policy and critic; a damaged newest one is passed over with a warning.

    Raises:
        InputError: `run` is not the folder of a run, or holds a link or a name that cannot be shared.
    """
    folder = epath.Path(run)
    step, metadata = read_newest_sound(folder, lambda step: _sound(folder, step), checkpoint)
    card = _own_card(folder) or model_card(metadata, step, repo).encode()
    entries = [describe(CARD, BytesIO(card).read)]
    paths = sorted("/".join(parts) for parts in _selected(folder, (), step, full))
    require_safe([CARD, NAME, *paths], str(folder))
    for path in paths:
        with (folder / path).open("rb") as file:
            entries.append(describe(path, file.read))
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


def _sound(run: epath.Path, step: int) -> tuple[int, Metadata]:
    """A checkpoint's step and description, if it is as it was saved.

    Raises:
        DamagedError: it is not.
    """
    metadata = read_metadata(run, step)
    try:
        load_agent(run, None, step)
    except DamagedError:
        raise
    except InputError:  # a task of somebody's own, that this machine lacks
        pass
    return step, metadata


def changed(made: Bundle, entry: Entry) -> InputError:
    """The error for a file that is no longer as it was when the manifest was made."""
    return InputError(
        f"{made.run}: {entry.path!r} changed meanwhile; share the run again when its training rests"
    )


def _own_card(run: epath.Path) -> bytes | None:
    """The card of a run that was shared before, or that its owner wrote."""
    card = run / CARD
    if not card.exists():
        return None
    _require_plain(card)
    return card.read_bytes()


def _selected(
    run: epath.Path, above: tuple[str, ...], step: int, full: bool
) -> Iterator[tuple[str, ...]]:
    """The parts of the paths of all files to share below a folder of the run.

    Raises:
        InputError: there is a link or a special file among them.
    """
    for entry in run.joinpath(*above).iterdir():
        parts = (*above, entry.name)
        is_folder = entry.is_dir()
        if not _shared(parts, is_folder, step, full):
            continue
        _require_plain(entry)
        if is_folder:
            yield from _selected(run, parts, step, full)
        else:
            yield parts


def _shared(parts: tuple[str, ...], is_folder: bool, step: int, full: bool) -> bool:
    top = parts[0]
    if top.startswith(".") or parts in ((CARD,), (NAME,)):  # both are written anew
        return False
    if top == CHECKPOINTS:
        if len(parts) == 1:
            return is_folder
        if not parts[1].isdecimal():  # one that Orbax has not finished
            return False
        if full:
            return True
        newest = int(parts[1]) == step
        return newest and (len(parts) != 3 or not is_folder or parts[2] in ITEMS)
    return full or parts == ("config.toml",)


def _require_plain(entry: epath.Path) -> None:
    if not is_local(entry):
        return
    mode = os.lstat(entry).st_mode
    if stat.S_ISLNK(mode):
        raise InputError(
            f"{entry} is a link, which cannot be shared; put what it leads to in its place"
        )
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{entry} is neither a file nor a folder; remove it to share the run")
