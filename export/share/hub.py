"""Runs on the Hugging Face hub, or a mirror of it that HF_ENDPOINT names."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from etils import epath
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelInfo
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined] # documented

from export.share.bundle import Bundle, bundle, changed
from export.share.manifest import (
    CARD,
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
from teachers.runs.outputs import create_atomically, require_space, require_unused
from teachers.runs.paths import absolute_path, is_local

Operations = list[CommitOperationAdd | CommitOperationDelete]

# What its client raises where no answer comes: a class of a library that huggingface_hub changes now and then.
_NoAnswer: Any = HfHubHTTPError.__mro__[1]
_LOG_IN = "log in with `hf auth login` or set HF_TOKEN"


def push(
    run: epath.PathLike,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    full: bool = False,
    checkpoint: CheckpointChoice = "newest",
    token: str | None = None,
) -> dict[str, Any]:
    """Uploads a run to a model repository in one commit, in place of the one pushed there before.

    Args:
        run: the run's folder.
        repo: as OWNER/NAME; it is created where it does not exist.
        private: nobody but its owner may see the repository.
        revision: the branch, created where it does not exist; by default the repository's main one.
        full: everything in the folder, with the state to resume from, in place of policy and critic alone.
        checkpoint: whose policy and critic; see `load_teacher`.
        token: of the hub; by default the one that the user has logged in with.

    Returns:
        `repo`, `url`, `commit`, and the manifest's summary.

    Raises:
        InputError: `run` is not the folder of a run or holds a link, or the hub refuses.
    """
    _require_repo(repo)
    made = bundle(run, full=full, repo=repo, checkpoint=checkpoint)
    api = _api(token)
    with _explained(repo, revision):
        url = api.create_repo(repo, private=private, exist_ok=True)
        if revision:
            api.create_branch(repo, branch=revision, exist_ok=True)
        info = api.model_info(repo, revision=revision, files_metadata=True)
        if private and not info.private:
            raise InputError(
                f"{repo} exists and is public; make it private in its settings, or push without --private"
            )
        earlier = _manifest(api, repo, info)
    there = set(_sizes(info))
    kept = {NAME, *(entry.path for entry in made.manifest.files)}
    stale = {entry.path for entry in earlier.files} & there - kept if earlier else set()
    with tempfile.TemporaryDirectory() as folder:
        operations: Operations = [
            CommitOperationAdd(NAME, made.manifest.to_json()),
            *(_addition(made, entry, Path(folder)) for entry in made.manifest.files),
            *(CommitOperationDelete(path, is_folder=False) for path in sorted(stale)),
        ]
        message = f"{made.manifest.task} {made.manifest.kind} of step {made.manifest.step}"
        with _explained(repo, revision):
            commit = api.create_commit(repo, operations, commit_message=message, revision=revision)
    return {"repo": repo, "url": str(url), "commit": commit.oid, **made.manifest.summary()}


def pull(
    repo: str,
    out: epath.PathLike,
    *,
    revision: str | None = None,
    token: str | None = None,
) -> dict[str, Any]:
    """Downloads a run that `push` uploaded into a new folder, and verifies it. Nothing of it is run.

    Args:
        repo: as OWNER/NAME.
        out: the run's new folder.
        revision: a branch, tag or commit; by default the newest of the main branch.
        token: of the hub; by default the one that the user has logged in with.

    Returns:
        `out`, `repo`, `commit`, and the manifest's summary.

    Raises:
        InputError: the hub has no such run, what it has is damaged or of a newer format, or `out` is taken or
            cannot be written; in all cases nothing is left behind.
    """
    _require_repo(repo)
    folder = absolute_path(out)
    require_unused(folder)
    api = _api(token)
    with _explained(repo, revision):
        info = api.model_info(repo, revision=revision, files_metadata=True)
        manifest = _manifest(api, repo, info)
    if manifest is None:
        raise InputError(
            f"{repo} holds no run of crl-distill (no {NAME}); give a repository that crl-distill share push wrote"
        )
    _require_listed(manifest, _sizes(info), repo)
    require_space(folder, manifest.size)
    with create_atomically(folder) as partial, _beside(partial) as downloads:
        for entry in manifest.files:
            file = _download(api, repo, entry.path, info, downloads)
            target = partial / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            with file.open("rb") as source, target.open("wb") as sink:
                copy_verified(source.read, entry, repo, sink.write)
            file.unlink()
        mark_checkpoints_finished(partial)
    return {"out": str(out), "repo": repo, "commit": info.sha, **manifest.summary()}


def _api(token: str | None) -> HfApi:
    # Looked up for each call: the library itself reads it once, when it is imported.
    endpoint = (os.environ.get("HF_ENDPOINT") or "").rstrip("/")
    return HfApi(endpoint=endpoint or None, token=token, library_name="crl-distill")


def _require_repo(repo: str) -> None:
    try:
        validate_repo_id(repo)
        valid = repo.count("/") == 1
    except HFValidationError:
        valid = False
    if not valid:
        raise InputError(f"{repo!r} is no repository of the hub; give it as OWNER/NAME")


@contextmanager
def _explained(repo: str, revision: str | None) -> Iterator[None]:
    """Turns what the hub answers into one line. What the client itself says of it is left out: it takes several."""
    try:
        yield
    except RevisionNotFoundError:
        raise InputError(
            f"{repo} has no revision {revision!r}; give a branch, tag or commit"
        ) from None
    except GatedRepoError:
        raise InputError(f"{repo} is gated; ask for access on its page, then {_LOG_IN}") from None
    except RepositoryNotFoundError:
        raise InputError(
            f"{repo} does not exist or is not yours to see; check its name, or {_LOG_IN}"
        ) from None
    except HfHubHTTPError as error:
        raise InputError(_refusal(repo, error)) from None
    except (_NoAnswer, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise InputError(
            f"the hub cannot be reached for {repo} ({type(error).__name__}); check the network, HF_ENDPOINT and "
            "HF_HUB_OFFLINE"
        ) from None
    except InputError:
        raise
    except (
        ValueError,
        RuntimeError,
    ) as error:  # a card that the hub does not take, an upload that broke off
        raise InputError(f"{repo}: {' '.join(str(error).split())}") from None


def _refusal(repo: str, error: HfHubHTTPError) -> str:
    status = error.response.status_code
    if status == 401:
        return f"{repo}: the hub does not know who you are; {_LOG_IN}"
    if status == 403:
        return f"{repo}: your token may not do this; use one that may write to {repo.split('/')[0]}"
    return f"{repo}: the hub answered {status} {error.response.reason_phrase}; try again later"


def _sizes(info: ModelInfo) -> dict[str, int | None]:
    """The repository's files, with their sizes in bytes."""
    return {file.rfilename: file.size for file in info.siblings or []}


def _manifest(api: HfApi, repo: str, info: ModelInfo) -> Manifest | None:
    sizes = _sizes(info)
    if NAME not in sizes:
        return None
    if (sizes[NAME] or 0) > LARGEST:
        raise damaged(repo, NAME, "is too large")
    with tempfile.TemporaryDirectory() as folder:
        raw = _download(api, repo, NAME, info, Path(folder)).read_bytes()
    return parse_manifest(raw, repo)


def _require_listed(manifest: Manifest, sizes: dict[str, int | None], repo: str) -> None:
    """Refuses a repository whose files are not those of its manifest, before any is downloaded."""
    for entry in manifest.files:
        if entry.path not in sizes:
            raise damaged(repo, entry.path, "is missing")
        if sizes[entry.path] != entry.size:
            raise damaged(repo, entry.path, "is not of the size that its manifest says")


def _download(api: HfApi, repo: str, path: str, info: ModelInfo, folder: Path) -> Path:
    """One file of the very commit that was looked at, into a folder of its own rather than the user's cache."""
    with _explained(repo, info.sha):
        return Path(api.hf_hub_download(repo, path, revision=info.sha, local_dir=folder))


@contextmanager
def _beside(partial: epath.Path) -> Iterator[Path]:
    """A local folder for downloads, on the disk of `partial` where that is local."""
    parent = partial.parent if is_local(partial) else None
    with tempfile.TemporaryDirectory(dir=parent, prefix=f"{partial.name}.") as folder:
        yield Path(folder)


def _addition(made: Bundle, entry: Entry, folder: Path) -> CommitOperationAdd:
    try:
        operation = CommitOperationAdd(entry.path, _content(made, entry, folder))
    except (ValueError, OSError):  # the file is gone
        raise changed(made, entry) from None
    if operation.upload_info.sha256.hex() != entry.sha256:  # as metrics of a run that still trains
        raise changed(made, entry)
    return operation


def _content(made: Bundle, entry: Entry, folder: Path) -> bytes | str:
    """What the client takes for a file: its bytes or its local path."""
    if entry.path == CARD:
        return made.card
    if is_local(made.run):
        return os.fspath(made.run / entry.path)
    local = folder / entry.sha256
    with made.open(entry.path) as source, local.open("wb") as sink:
        shutil.copyfileobj(source, sink)
    return str(local)
