"""Shares a run as one file: a zip archive that is verified before any of its files is written."""

import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from etils import epath

from export.share.bundle import changed_file_error, make_bundle
from export.share.manifest import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    Entry,
    Manifest,
    copy_verified,
    damaged_file_error,
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

SUFFIX = ".zip"

# What Python raises for a zip file with damaged bytes.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
)
_MAX_RATIO = 0.95  # of compressed to original size; files that compress less are stored as they are
# Every file has the first date of the zip format, so that packing a run again gives the same bytes.
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


def pack(
    run: epath.PathLike,
    file: epath.PathLike,
    *,
    full: bool = False,
    checkpoint: CheckpointChoice = "newest",
) -> dict[str, Any]:
    """Writes a run into a new archive.

    Args:
        run: the run's folder.
        file: the archive to write, whose name ends in `.zip`.
        full: pack all files of the folder, with the state to resume from, rather than the policy and critic alone.
        checkpoint: the checkpoint of the policy and critic; see `load_teacher`.

    Returns:
        The archive's path, under `out`, and the manifest's summary.

    Raises:
        InputError: `run` is not the folder of a run or holds a link, or `file` exists or cannot be written.
    """
    out = absolute_path(file)
    require_new_file(out, SUFFIX)
    bundle = make_bundle(run, full=full, checkpoint=checkpoint)
    with (
        create_atomically(out) as partial,
        local_draft(partial) as draft,
        zipfile.ZipFile(draft, "w") as archive,
    ):
        archive.writestr(_member_info(MANIFEST, zipfile.ZIP_DEFLATED), bundle.manifest.to_json())
        for entry in bundle.manifest.files:
            with bundle.open(entry.path) as source:
                info = _member_info(entry.path, _choose_compression(source.read(2**16)))
            info.file_size = entry.size
            with bundle.open(entry.path) as source, archive.open(info, "w") as sink:
                try:
                    copy_verified(source.read, entry, str(bundle.run), sink.write)
                except InputError:
                    raise changed_file_error(bundle, entry) from None
    return {"out": str(file), **bundle.manifest.summary()}


def unpack(file: epath.PathLike, out: epath.PathLike) -> dict[str, Any]:
    """Verifies an archive and writes its run into a new folder, without running anything from it.

    Args:
        file: the archive.
        out: the run's new folder.

    Returns:
        The folder's path, under `out`, and the manifest's summary.

    Raises:
        InputError: the archive is damaged, hostile or of a newer format, or `out` exists or cannot be written. In all
            cases nothing is left behind.
    """
    folder = absolute_path(out)
    require_unused(folder)
    with _open_archive(file) as (archive, manifest):
        require_space(folder, manifest.size)
        for entry in manifest.files:
            with _open_member(archive, entry, file) as read:
                copy_verified(read, entry, str(file))
        with create_atomically(folder) as partial:
            for entry in manifest.files:
                target = partial / entry.path
                target.parent.mkdir(parents=True, exist_ok=True)
                with _open_member(archive, entry, file) as read, target.open("wb") as sink:
                    copy_verified(read, entry, str(file), sink.write)
            mark_checkpoints_finished(partial)
    return {"out": str(out), **manifest.summary()}


def describe_archive(file: epath.PathLike) -> dict[str, Any]:
    """Returns the summary of an archive's manifest, without reading the other files.

    Raises:
        InputError: `file` is not an archive of crl-distill, or has a newer format.
    """
    with _open_archive(file) as (_, manifest):
        return manifest.summary()


class _Archive(NamedTuple):
    reader: zipfile.ZipFile
    manifest: Manifest


@contextmanager
def _open_archive(file: epath.PathLike) -> Iterator[_Archive]:
    """Opens an archive whose members are those of its manifest."""
    path = absolute_path(file)
    require_reachable(path)
    with translate_storage_errors(path):
        exists, is_folder = path.exists(), path.is_dir()
    if not exists:
        raise InputError(f"{file} does not exist; give a file that crl-distill share pack wrote")
    if is_folder:
        raise InputError(f"{file} is a folder; give a file that crl-distill share pack wrote")
    with path.open("rb") as stream:
        try:
            reader = zipfile.ZipFile(stream)
        except (*_ZIP_ERRORS, OSError):
            raise InputError(
                f"{file} is damaged or no zip archive; give a file that crl-distill share pack wrote"
            ) from None
        with reader:
            manifest = _read_manifest(reader, str(file))
            _require_listed_members(reader, manifest, str(file))
            yield _Archive(reader, manifest)


def _read_manifest(reader: zipfile.ZipFile, source: str) -> Manifest:
    infos = {info.filename: info for info in reader.infolist()}
    if MANIFEST not in infos:
        raise InputError(f"{source} holds no run of crl-distill; give what crl-distill share wrote")
    if infos[MANIFEST].file_size > MAX_MANIFEST_BYTES:
        raise damaged_file_error(source, MANIFEST, "is too large")
    try:
        with reader.open(infos[MANIFEST]) as member:
            content = member.read(MAX_MANIFEST_BYTES + 1)
    except (*_ZIP_ERRORS, OSError):
        raise damaged_file_error(source, MANIFEST, "cannot be read") from None
    return parse_manifest(content, source)


def _require_listed_members(reader: zipfile.ZipFile, manifest: Manifest, source: str) -> None:
    """Raises an error unless the archive's table of contents lists the manifest's files, as regular files, and no more."""
    listed = {entry.path: entry for entry in manifest.files}
    names: set[str] = set()
    for info in reader.infolist():
        if info.filename in names:
            raise damaged_file_error(source, info.filename, "occurs twice")
        names.add(info.filename)
        if info.orig_filename != info.filename:  # Python cuts a name off at a NUL
            raise damaged_file_error(source, info.orig_filename, "holds a control character")
        if info.filename == MANIFEST:
            continue
        if info.filename not in listed:
            raise damaged_file_error(source, info.filename, "is not in its manifest")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise damaged_file_error(source, info.filename, "is a link or a special file")
        if info.flag_bits & 0x1:
            raise damaged_file_error(source, info.filename, "is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise damaged_file_error(
                source, info.filename, "is compressed in a way that crl-distill does not use"
            )
        if info.file_size != listed[info.filename].size:
            raise damaged_file_error(
                source, info.filename, "is not of the size that its manifest says"
            )
    missing = listed.keys() - names
    if missing:
        raise damaged_file_error(source, min(missing), "is missing")


@contextmanager
def _open_member(
    archive: zipfile.ZipFile, entry: Entry, file: epath.PathLike
) -> Iterator[Callable[[int], bytes]]:
    """Opens a file of the archive, and yields the function that reads its next bytes."""
    with _explain_read_errors(entry, file):
        member = archive.open(entry.path)

    def read(size: int) -> bytes:
        with _explain_read_errors(entry, file):
            return member.read(size)

    with member:
        yield read


@contextmanager
def _explain_read_errors(entry: Entry, file: epath.PathLike) -> Iterator[None]:
    try:
        yield
    except (*_ZIP_ERRORS, OSError):
        raise damaged_file_error(str(file), entry.path, "cannot be read") from None


def _member_info(path: str, compression: int) -> zipfile.ZipInfo:
    """Returns the description of an archive's member, which is the same on every machine."""
    info = zipfile.ZipInfo(path, _ZIP_EPOCH)
    info.compress_type = compression
    info.create_system = 3  # Unix
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    return info


def _choose_compression(beginning: bytes) -> int:
    """Returns how to store a file that begins with these bytes; the arrays of checkpoints are compressed already."""
    is_compressible = len(zlib.compress(beginning)) < _MAX_RATIO * len(beginning)
    return zipfile.ZIP_DEFLATED if is_compressible else zipfile.ZIP_STORED
