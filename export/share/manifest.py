"""The manifest of a shared run: its files with their sizes and checksums, and the version that wrote it.

An archive and a repository on the hub both contain it as `manifest.json`. Files that it does not list are never taken
from them.
"""

import hashlib
import json
import unicodedata
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from teachers.runs.errors import InputError
from teachers.runs.metadata import release_to_install

MANIFEST = "manifest.json"
CARD = "README.md"
FORMAT: Final = "crl-distill run"
FORMAT_VERSION = 1
MAX_MANIFEST_BYTES = 16 * 2**20  # a manifest takes about 150 bytes for each file
CHUNK_BYTES = 2**20


class Entry(BaseModel):
    """A file of a shared run.

    Attributes:
        path: relative to the run's folder, with `/` between its parts.
        size: in bytes.
        sha256: of its content, in hexadecimal.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    path: Annotated[str, Field(min_length=1, max_length=1024)]
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Manifest(BaseModel):
    """All files of a shared run.

    Attributes:
        format: distinguishes a manifest of crl-distill from others.
        format_version: of the manifest and of the layout of the files.
        crl_distill: the version that wrote it.
        kind: teacher or student.
        task: the task's name.
        step: control step of the newest checkpoint.
        full: whether all files of the run's folder are shared, or the policy and critic alone.
        files: sorted by path, without the manifest itself.
    """

    # Later versions may add fields without a new format version.
    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Literal["crl-distill run"] = FORMAT
    format_version: Annotated[int, Field(ge=1)] = FORMAT_VERSION
    crl_distill: Annotated[str, Field(max_length=40)]
    kind: Literal["teacher", "student"]
    task: Annotated[str, Field(max_length=200)]
    step: Annotated[int, Field(ge=0)]
    full: bool
    files: tuple[Entry, ...]

    @property
    def size(self) -> int:
        """Returns the number of bytes of all files together."""
        return sum(entry.size for entry in self.files)

    def to_json(self) -> bytes:
        """Returns the content of `manifest.json`."""
        return (json.dumps(self.model_dump(), indent=1) + "\n").encode()

    def summary(self) -> dict[str, Any]:
        """Returns the manifest's values, with the number of files and of bytes in place of the list of files."""
        return {
            **self.model_dump(exclude={"files"}),
            "files": len(self.files),
            "bytes": self.size,
        }


def parse_manifest(content: bytes, source: str) -> Manifest:
    """Returns the manifest in the content of a `manifest.json`, after checking it and every path in it.

    Args:
        content: all bytes of the file.
        source: name of the archive or repository, for error messages.

    Raises:
        InputError: the content is not a manifest of crl-distill, has a newer format, or names a file outside the run's
            folder.
    """
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        raise damaged_file_error(source, MANIFEST, "is not JSON") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise InputError(
            f"{source} holds no run of crl-distill; give what crl-distill share wrote"
        ) from None
    version = values.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise InputError(
            f"{source} has archive format {version}, newer than this crl-distill reads ({FORMAT_VERSION}); "
            f"install {release_to_install(values.get('crl_distill'))}"
        )
    try:
        manifest = Manifest.model_validate(values)
    except ValidationError as error:
        key = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise damaged_file_error(source, MANIFEST, f"has no valid {key}") from None
    if not (manifest.task.isprintable() and manifest.crl_distill.isprintable()):
        raise damaged_file_error(source, MANIFEST, "holds control characters")
    require_safe_paths([MANIFEST, *(entry.path for entry in manifest.files)], source)
    return manifest


def require_safe_paths(paths: list[str], source: str) -> None:
    """Raises an error if a path leaves the run's folder, or if two paths are the same file on some file system.

    Args:
        paths: relative to the run's folder.
        source: name of the archive, repository or run, for error messages.

    Raises:
        InputError: a path is not safe; the message names it and its problem.
    """
    files: set[str] = set()
    folders: set[str] = set()
    for path in paths:
        problem = _find_problem(path)
        if problem:
            raise InputError(f"{source}: {path[:200]!r} {problem}; nothing was written")
        key = path.casefold()
        if key in files:
            raise InputError(f"{source}: {path!r} occurs twice; nothing was written")
        files.add(key)
        parts = key.split("/")
        folders.update("/".join(parts[:end]) for end in range(1, len(parts)))
    for path in files & folders:
        raise InputError(f"{source}: {path!r} is both a file and a folder; nothing was written")


def _find_problem(path: str) -> str | None:
    """Returns what makes a path unsafe; None for a safe path."""
    parts = path.split("/")
    if path.startswith("/"):
        return "is an absolute path"
    if ".." in parts:
        return "leaves the folder"
    if not all(parts):
        return "has an empty part or is a folder"
    if not path.isprintable() or "\\" in path or ":" in path:
        return "holds a backslash, a colon or a control character"
    # Windows leaves out a dot or a space at the end of a name. This refuses the name "." as well.
    if any(part[-1] in ". " for part in parts):
        return "has a part that ends in a dot or a space"
    if unicodedata.normalize("NFC", path) != path:
        return "is not in Unicode's normal form"
    return None


def damaged_file_error(source: str, path: str, problem: str) -> InputError:
    """Returns the error for a file of a shared run that is not as it was written."""
    return InputError(
        f"{source}: {path!r} {problem}; it is damaged or not from crl-distill, get it again"
    )


def describe_file(path: str, read: Callable[[int], bytes]) -> Entry:
    """Returns the size and checksum of a file.

    Args:
        path: relative to the run's folder.
        read: returns the next bytes of the file, at most as many as its argument says.
    """
    checksum, size = hashlib.sha256(), 0
    while chunk := read(CHUNK_BYTES):
        checksum.update(chunk)
        size += len(chunk)
    return Entry(path=path, size=size, sha256=checksum.hexdigest())


def copy_verified(
    read: Callable[[int], bytes],
    entry: Entry,
    source: str,
    write: Callable[[bytes], object] | None = None,
) -> None:
    """Copies a file in chunks and verifies it; stops where the file becomes longer than it should be.

    Args:
        read: returns the next bytes of the file, at most as many as its argument says.
        entry: the size and checksum that the file should have.
        source: name of the archive, repository or run, for error messages.
        write: takes the chunks; without it the file is verified alone.

    Raises:
        InputError: the size or the checksum is another.
    """
    checksum, size = hashlib.sha256(), 0
    while chunk := read(CHUNK_BYTES):
        size += len(chunk)
        if size > entry.size:
            break
        checksum.update(chunk)
        if write:
            write(chunk)
    if size != entry.size:
        raise damaged_file_error(source, entry.path, f"is not of its {entry.size:,} bytes")
    if checksum.hexdigest() != entry.sha256:
        raise damaged_file_error(source, entry.path, "does not have its checksum")
