"""What a shared run consists of: each file with its size and checksum, and the version that wrote it.

An archive and a repository of the hub both carry this as `manifest.json`, and nothing that it does not list is
taken from them.
"""

import hashlib
import json
import unicodedata
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from teachers.runs.errors import InputError
from teachers.runs.metadata import release_to_install

NAME = "manifest.json"
CARD = "README.md"
FORMAT: Final = "crl-distill run"
FORMAT_VERSION = 1
LARGEST = 16 * 2**20  # bytes of a manifest; ours have about 150 for each file
CHUNK = 2**20


class Entry(BaseModel):
    """One file.

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
        format: tells a manifest of ours from others.
        format_version: of the manifest and of the layout of what it lists.
        crl_distill: the version that wrote it.
        kind: teacher or student.
        task: the task's name.
        step: control step of the newest checkpoint.
        full: whether everything in the run's folder is here, or the policy and critic alone.
        files: sorted by path; the manifest itself is not among them.
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
        """Bytes of all files together."""
        return sum(entry.size for entry in self.files)

    def to_json(self) -> bytes:
        """The content of `manifest.json`."""
        return (json.dumps(self.model_dump(), indent=1) + "\n").encode()

    def summary(self) -> dict[str, Any]:
        """What it says, with the number of its files and their bytes in place of the list."""
        return {
            **self.model_dump(exclude={"files"}),
            "files": len(self.files),
            "bytes": self.size,
        }


def parse_manifest(raw: bytes, source: str) -> Manifest:
    """Checks a manifest that was read from `source`, and every path in it.

    Args:
        raw: the content of `manifest.json`.
        source: named in errors.

    Raises:
        InputError: it is not one of ours, of a newer format, or names a file outside the run's folder.
    """
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        raise damaged(source, NAME, "is not JSON") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InputError(
            f"{source} holds no run of crl-distill; give what crl-distill share wrote"
        ) from None
    version = found.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise InputError(
            f"{source} has archive format {version}, newer than this crl-distill reads ({FORMAT_VERSION}); "
            f"install {release_to_install(found.get('crl_distill'))}"
        )
    try:
        manifest = Manifest.model_validate(found)
    except ValidationError as error:
        key = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise damaged(source, NAME, f"has no valid {key}") from None
    if not (manifest.task.isprintable() and manifest.crl_distill.isprintable()):
        raise damaged(source, NAME, "holds control characters")
    require_safe([NAME, *(entry.path for entry in manifest.files)], source)
    return manifest


def require_safe(paths: list[str], source: str) -> None:
    """Refuses paths that leave the folder, or that some file system takes for another path of the list.

    Args:
        paths: relative to the run's folder.
        source: named in errors.

    Raises:
        InputError: which path, and what is wrong with it.
    """
    files: set[str] = set()
    folders: set[str] = set()
    for path in paths:
        problem = _problem(path)
        if problem:
            raise InputError(f"{source}: {path[:200]!r} {problem}; it is refused as a whole")
        key = path.casefold()
        if key in files:
            raise InputError(f"{source}: {path!r} occurs twice; it is refused as a whole")
        files.add(key)
        parts = key.split("/")
        folders.update("/".join(parts[:end]) for end in range(1, len(parts)))
    for path in files & folders:
        raise InputError(
            f"{source}: {path!r} is both a file and a folder; it is refused as a whole"
        )


def _problem(path: str) -> str | None:
    parts = path.split("/")
    if path.startswith("/"):
        return "is an absolute path"
    if ".." in parts:
        return "leaves the folder"
    if not all(parts):
        return "has an empty part or is a folder"
    if not path.isprintable() or "\\" in path or ":" in path:
        return "holds a backslash, a colon or a control character"
    if any(part[-1] in ". " for part in parts):  # which Windows leaves out; '.' is among them
        return "has a part that ends in a dot or a space"
    if unicodedata.normalize("NFC", path) != path:
        return "is not in Unicode's normal form"
    return None


def damaged(source: str, path: str, what: str) -> InputError:
    """The error for a shared run that is not as it was written."""
    return InputError(f"{source}: {path!r} {what}; it is damaged or not ours, get it again")


def describe(path: str, read: Callable[[int], bytes]) -> Entry:
    """Size and checksum of a file, from the function that reads so many bytes of it."""
    digest, size = hashlib.sha256(), 0
    while chunk := read(CHUNK):
        digest.update(chunk)
        size += len(chunk)
    return Entry(path=path, size=size, sha256=digest.hexdigest())


def copy_verified(
    read: Callable[[int], bytes],
    entry: Entry,
    source: str,
    write: Callable[[bytes], object] | None = None,
) -> None:
    """Copies a file in pieces, and never more of it than it should have.

    Args:
        read: gives so many bytes of the file.
        entry: what it should be.
        source: named in errors.
        write: takes the pieces; without it the file is only verified.

    Raises:
        InputError: its size or checksum is another.
    """
    digest, size = hashlib.sha256(), 0
    while chunk := read(CHUNK):
        size += len(chunk)
        if size > entry.size:
            break
        digest.update(chunk)
        if write:
            write(chunk)
    if size != entry.size:
        raise damaged(source, entry.path, f"is not of its {entry.size:,} bytes")
    if digest.hexdigest() != entry.sha256:
        raise damaged(source, entry.path, "does not have its checksum")
