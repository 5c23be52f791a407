"""A run as one file to give away: a zip archive that is verified before anything of it is written."""

import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from etils import epath

from export.share.bundle import bundle, changed
from export.share.manifest import (
    LARGEST,
    NAME,
    Entry,
    Manifest,
    copy_verified,
    damaged,
    parse_manifest,
)
from teachers.runs.checkpoint_choice import CheckpointChoice
from teachers.runs.checkpoint_files import mark_checkpoints_finished
from teachers.runs.errors import InputError
from teachers.runs.outputs import (
    create_atomically,
    local_draft,
    require_new_file,
    require_space,
    require_unused,
)
from teachers.runs.paths import absolute_path, require_reachable, translate_storage_errors

ENDING = ".zip"

# Zip files name no finer error than these for bytes that are not what they should be.
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
)
_WORTHWHILE = 0.95  # of its size, beyond which a file is stored as it is
_BEGINNING = (
    1980,
    1,
    1,
    0,
    0,
    0,
)  # the zip format's first moment: packing again gives the same bytes


def pack(
    run: epath.PathLike,
    file: epath.PathLike,
    *,
    full: bool = False,
    checkpoint: CheckpointChoice = "newest",
) -> dict[str, Any]:
    """Writes a run into one new file.

    Args:
        run: the run's folder.
        file: the archive to write, whose name ends in `.zip`.
        full: everything in the folder, with the state to resume from, in place of policy and critic alone.
        checkpoint: whose policy and critic; see `load_teacher`.

    Returns:
        `out`, and the manifest's summary.

    Raises:
        InputError: `run` is not the folder of a run or holds a link, or `file` is taken or cannot be written.
    """
    out = absolute_path(file)
    require_new_file(out, ENDING)
    made = bundle(run, full=full, checkpoint=checkpoint)
    with (
        create_atomically(out) as partial,
        local_draft(partial) as draft,
        zipfile.ZipFile(draft, "w") as archive,
    ):
        archive.writestr(_entry(NAME, zipfile.ZIP_DEFLATED), made.manifest.to_json())
        for entry in made.manifest.files:
            with made.open(entry.path) as source:
                info = _entry(entry.path, _compression(source.read(2**16)))
            info.file_size = entry.size
            with made.open(entry.path) as source, archive.open(info, "w") as sink:
                try:
                    copy_verified(source.read, entry, str(made.run), sink.write)
                except InputError:
                    raise changed(made, entry) from None
    return {"out": str(file), **made.manifest.summary()}


def unpack(file: epath.PathLike, out: epath.PathLike) -> dict[str, Any]:
    """Verifies an archive and writes its run into a new folder. Nothing of it is run.

    Args:
        file: the archive.
        out: the run's new folder.

    Returns:
        `out`, and the manifest's summary.

    Raises:
        InputError: the archive is damaged, hostile or of a newer format, or `out` is taken or cannot be
            written; in all cases nothing is left behind.
    """
    folder = absolute_path(out)
    require_unused(folder)
    with _opened(file) as (archive, manifest):
        require_space(folder, manifest.size)
        for entry in manifest.files:
            with _member(archive, entry, file) as read:
                copy_verified(read, entry, str(file))
        with create_atomically(folder) as partial:
            for entry in manifest.files:
                target = partial / entry.path
                target.parent.mkdir(parents=True, exist_ok=True)
                with _member(archive, entry, file) as read, target.open("wb") as sink:
                    copy_verified(read, entry, str(file), sink.write)
            mark_checkpoints_finished(partial)
    return {"out": str(out), **manifest.summary()}


def describe_archive(file: epath.PathLike) -> dict[str, Any]:
    """The summary of an archive's manifest; its files are not read.

    Raises:
        InputError: it is no archive of ours, or of a newer format.
    """
    with _opened(file) as (_, manifest):
        return manifest.summary()


class _Archive(NamedTuple):
    reader: zipfile.ZipFile
    manifest: Manifest


@contextmanager
def _opened(file: epath.PathLike) -> Iterator[_Archive]:
    """Opens an archive whose table of contents is just what its manifest lists."""
    path = absolute_path(file)
    require_reachable(path)
    with translate_storage_errors(path):
        exists, is_folder = path.exists(), path.is_dir()
    if not exists:
        raise InputError(f"{file} does not exist; give a file that crl-distill share pack wrote")
    if is_folder:
        raise InputError(f"{file} is a folder; give a file that crl-distill share pack wrote")
    with path.open("rb") as raw:
        try:
            reader = zipfile.ZipFile(raw)
        except (*_BROKEN, OSError):
            raise InputError(
                f"{file} is damaged or no zip archive; give a file that crl-distill share pack wrote"
            ) from None
        with reader:
            yield _Archive(reader, _manifest(reader, str(file)))


def _manifest(reader: zipfile.ZipFile, source: str) -> Manifest:
    infos = {info.filename: info for info in reader.infolist()}
    if NAME not in infos:
        raise InputError(f"{source} holds no run of crl-distill; give what crl-distill share wrote")
    if infos[NAME].file_size > LARGEST:
        raise damaged(source, NAME, "is too large")
    try:
        with reader.open(infos[NAME]) as member:
            raw = member.read(LARGEST + 1)
    except (*_BROKEN, OSError):
        raise damaged(source, NAME, "cannot be read") from None
    manifest = parse_manifest(raw, source)

    listed = {entry.path: entry for entry in manifest.files}
    seen: set[str] = set()
    for info in reader.infolist():
        if info.filename in seen:
            raise damaged(source, info.filename, "occurs twice")
        seen.add(info.filename)
        if info.orig_filename != info.filename:  # Python has cut it off at a NUL
            raise damaged(source, info.orig_filename, "holds a control character")
        if info.filename == NAME:
            continue
        if info.filename not in listed:
            raise damaged(source, info.filename, "is not in its manifest")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise damaged(source, info.filename, "is a link or a special file")
        if info.flag_bits & 0x1:
            raise damaged(source, info.filename, "is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise damaged(source, info.filename, "is compressed in a way that we do not use")
        if info.file_size != listed[info.filename].size:
            raise damaged(source, info.filename, "is not of the size that its manifest says")
    missing = listed.keys() - seen
    if missing:
        raise damaged(source, min(missing), "is missing")
    return manifest


@contextmanager
def _member(
    archive: zipfile.ZipFile, entry: Entry, file: epath.PathLike
) -> Iterator[Callable[[int], bytes]]:
    """Opens a file of the archive; what is yielded reads so many bytes of it."""
    with _readable(entry, file):
        member = archive.open(entry.path)

    def read(size: int) -> bytes:
        with _readable(entry, file):
            return member.read(size)

    with member:
        yield read


@contextmanager
def _readable(entry: Entry, file: epath.PathLike) -> Iterator[None]:
    try:
        yield
    except (*_BROKEN, OSError):
        raise damaged(str(file), entry.path, "cannot be read") from None


def _entry(path: str, compression: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(path, _BEGINNING)
    info.compress_type = compression
    info.create_system = 3  # Unix, wherever it is written
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    return info


def _compression(beginning: bytes) -> int:
    """How to store a file that begins so; arrays in checkpoints are compressed already."""
    useful = len(zlib.compress(beginning)) < _WORTHWHILE * len(beginning)
    return zipfile.ZIP_DEFLATED if useful else zipfile.ZIP_STORED
