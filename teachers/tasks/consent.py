"""Remembers on this machine which task files the user has named, with the code that each runs from its folder.

A record is a file in `tasks` of the cache folder. Its name begins with the SHA-256 of the task's file, by which an
artefact names it, so that the place of the file on this machine stays out of artefacts.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from teachers.process import cache_folder
from teachers.runs.outputs import write_atomically


class Consent(NamedTuple):
    """A task's file that the user has named, and all code of its folder that this covers.

    Attributes:
        file: absolute path.
        digest: SHA-256 of the file's content.
        files: SHA-256 of the other Python files, by their path from the file's folder.
        packages: paths from there of the packages among them.
    """

    file: str
    digest: str
    files: Mapping[str, str]
    packages: frozenset[str]


def remember_consent(consent: Consent) -> None:
    """Writes a record, in place of an older one of the same file with the same content."""
    # Without a cache, commands that open an artefact ask for the file.
    with suppress(OSError, ValueError):
        record = _record(consent.file, consent.digest)
        record.parent.mkdir(parents=True, exist_ok=True)
        values = {**consent._asdict(), "packages": sorted(consent.packages)}
        write_atomically(record, json.dumps(values, indent=1) + "\n")


def recall_consent(file: str, digest: str) -> Consent | None:
    """Returns what the user's naming of a file with this content covers; None if the user has not named it."""
    with suppress(OSError):  # there is no cache
        return _read(_record(file, digest))
    return None


def named_places(name: str, digest: str) -> list[str]:
    """Returns the paths at which the user has named a file of this name and content, the newest first."""
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        return []
    dated = []
    with suppress(OSError):  # there is no cache
        for record in _folder().glob(f"{digest}-*.json"):
            consent = _read(record)
            if consent and os.path.basename(consent.file) == name:
                dated.append((record.stat().st_mtime_ns, consent.file))
    return [file for _, file in sorted(dated, reverse=True)]


def _folder() -> Path:
    return cache_folder() / "tasks"


def _record(file: str, digest: str) -> Path:
    return _folder() / f"{digest}-{hashlib.sha256(os.fsencode(file)).hexdigest()[:16]}.json"


def _read(record: Path) -> Consent | None:
    try:
        values = json.loads(record.read_text(encoding="utf-8"))
        consent = Consent(
            str(values["file"]),
            str(values["digest"]),
            {str(name): str(digest) for name, digest in values["files"].items()},
            frozenset(values["packages"]),
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return consent if _record(consent.file, consent.digest).name == record.name else None
