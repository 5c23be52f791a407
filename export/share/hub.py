"""Shares runs on the Hugging Face hub, or on a mirror of it that HF_ENDPOINT names."""

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

from export.share.bundle import Bundle, changed_file_error, make_bundle
from export.share.manifest import (
    CARD,
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
from teachers.runs.outputs import create_atomically, require_space, require_unused
from teachers.runs.paths import absolute_path, is_local

Operations = list[CommitOperationAdd | CommitOperationDelete]

# The client raises this base class where no answer comes. It belongs to the HTTP library beneath, which differs between
# versions of huggingface_hub.
_ConnectionError: Any = HfHubHTTPError.__mro__[1]
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
    """Uploads a run to a model repository in one commit, which replaces the run that was pushed there before.

    Args:
        run: the run's folder.
        repo: the repository, as OWNER/NAME, which is created if it does not exist.
        private: require that nobody but its owner may see the repository.
        revision: the branch, which is created if it does not exist; by default the repository's main branch.
        full: upload all files of the folder, with the state to resume from, rather than the policy and critic alone.
        checkpoint: the checkpoint of the policy and critic; see `load_teacher`.
        token: an access token of the hub; by default the one that the user has logged in with.

    Returns:
        `repo`, `url`, `commit`, and the manifest's summary.

    Raises:
        InputError: `run` is not the folder of a run or holds a link, or the hub refuses the upload.
    """
    _require_repo_name(repo)
    bundle = make_bundle(run, full=full, repo=repo, checkpoint=checkpoint)
    api = _make_api(token)
    with _explain_hub_errors(repo, revision):
        url = api.create_repo(repo, private=private, exist_ok=True)
        if revision:
            api.create_branch(repo, branch=revision, exist_ok=True)
        info = api.model_info(repo, revision=revision, files_metadata=True)
        if private and not info.private:
            raise InputError(
                f"{repo} exists and is public; make it private in its settings, or push without --private"
            )
        previous = _download_manifest(api, repo, info)
    manifest = bundle.manifest
    present = set(_file_sizes(info))
    new = {MANIFEST, *(entry.path for entry in manifest.files)}
    stale = {entry.path for entry in previous.files} & present - new if previous else set()
    with tempfile.TemporaryDirectory() as folder:
        operations: Operations = [
            CommitOperationAdd(MANIFEST, manifest.to_json()),
            *(_add_file(bundle, entry, Path(folder)) for entry in manifest.files),
            *(CommitOperationDelete(path, is_folder=False) for path in sorted(stale)),
        ]
        message = f"{manifest.task} {manifest.kind} of step {manifest.step}"
        with _explain_hub_errors(repo, revision):
            commit = api.create_commit(repo, operations, commit_message=message, revision=revision)
    return {"repo": repo, "url": str(url), "commit": commit.oid, **manifest.summary()}


def pull(
    repo: str,
    out: epath.PathLike,
    *,
    revision: str | None = None,
    token: str | None = None,
) -> dict[str, Any]:
    """Downloads a run that `push` uploaded into a new folder and verifies it, without running anything from it.

    Args:
        repo: the repository, as OWNER/NAME.
        out: the run's new folder.
        revision: a branch, tag or commit; by default the newest commit of the main branch.
        token: an access token of the hub; by default the one that the user has logged in with.

    Returns:
        `out`, `repo`, `commit`, and the manifest's summary.

    Raises:
        InputError: the hub has no such run, the run is damaged or of a newer format, or `out` exists or cannot be
            written. In all cases nothing is left behind.
    """
    _require_repo_name(repo)
    folder = absolute_path(out)
    require_unused(folder)
    api = _make_api(token)
    with _explain_hub_errors(repo, revision):
        info = api.model_info(repo, revision=revision, files_metadata=True)
        manifest = _download_manifest(api, repo, info)
    if manifest is None:
        raise InputError(
            f"{repo} holds no run of crl-distill (no {MANIFEST}); give a repository that crl-distill share push wrote"
        )
    _require_listed_files(manifest, _file_sizes(info), repo)
    require_space(folder, manifest.size)
    with create_atomically(folder) as partial, _make_download_folder(partial) as downloads:
        for entry in manifest.files:
            file = _download_file(api, repo, entry.path, info, downloads)
            target = partial / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            with file.open("rb") as source, target.open("wb") as sink:
                copy_verified(source.read, entry, repo, sink.write)
            file.unlink()
        mark_checkpoints_finished(partial)
    return {"out": str(out), "repo": repo, "commit": info.sha, **manifest.summary()}


def _make_api(token: str | None) -> HfApi:
    # huggingface_hub reads HF_ENDPOINT once, on import; here it is read for each call.
    endpoint = (os.environ.get("HF_ENDPOINT") or "").rstrip("/")
    return HfApi(endpoint=endpoint or None, token=token, library_name="crl-distill")


def _require_repo_name(repo: str) -> None:
    try:
        validate_repo_id(repo)
        valid = repo.count("/") == 1
    except HFValidationError:
        valid = False
    if not valid:
        raise InputError(f"{repo!r} is not the name of a repository; give it as OWNER/NAME")


@contextmanager
def _explain_hub_errors(repo: str, revision: str | None) -> Iterator[None]:
    """Turns the client's errors, whose messages have several lines, into an `InputError` of one line."""
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
        raise InputError(_describe_answer(repo, error)) from None
    except (_ConnectionError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise InputError(
            f"the hub cannot be reached for {repo} ({type(error).__name__}); check the network, HF_ENDPOINT and "
            "HF_HUB_OFFLINE"
        ) from None
    except InputError:
        raise
    # A model card that the hub does not accept, or an upload that broke off.
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{repo}: {' '.join(str(error).split())}") from None


def _describe_answer(repo: str, error: HfHubHTTPError) -> str:
    status = error.response.status_code
    if status == 401:
        return f"{repo}: the hub does not know who you are; {_LOG_IN}"
    if status == 403:
        return f"{repo}: your token may not do this; use one that may write to {repo.split('/')[0]}"
    return f"{repo}: the hub answered {status} {error.response.reason_phrase}; try again later"


def _file_sizes(info: ModelInfo) -> dict[str, int | None]:
    """Returns the sizes in bytes of the repository's files, by path."""
    return {file.rfilename: file.size for file in info.siblings or []}


def _download_manifest(api: HfApi, repo: str, info: ModelInfo) -> Manifest | None:
    """Returns the repository's manifest, or None if it has none."""
    sizes = _file_sizes(info)
    if MANIFEST not in sizes:
        return None
    if (sizes[MANIFEST] or 0) > MAX_MANIFEST_BYTES:
        raise damaged_file_error(repo, MANIFEST, "is too large")
    with tempfile.TemporaryDirectory() as folder:
        content = _download_file(api, repo, MANIFEST, info, Path(folder)).read_bytes()
    return parse_manifest(content, repo)


def _require_listed_files(manifest: Manifest, sizes: dict[str, int | None], repo: str) -> None:
    """Raises an error if the repository lacks a file of its manifest, or has it in another size."""
    for entry in manifest.files:
        if entry.path not in sizes:
            raise damaged_file_error(repo, entry.path, "is missing")
        if sizes[entry.path] != entry.size:
            raise damaged_file_error(repo, entry.path, "is not of the size that its manifest says")


def _download_file(api: HfApi, repo: str, path: str, info: ModelInfo, folder: Path) -> Path:
    """Downloads a file of the commit that `info` describes into a folder, and returns its path there."""
    with _explain_hub_errors(repo, info.sha):
        return Path(api.hf_hub_download(repo, path, revision=info.sha, local_dir=folder))


@contextmanager
def _make_download_folder(partial: epath.Path) -> Iterator[Path]:
    """Yields a temporary local folder, on the same disk as `partial` where that is local."""
    parent = partial.parent if is_local(partial) else None
    with tempfile.TemporaryDirectory(dir=parent, prefix=f"{partial.name}.") as folder:
        yield Path(folder)


def _add_file(bundle: Bundle, entry: Entry, folder: Path) -> CommitOperationAdd:
    """Returns the operation that uploads a file; `folder` takes copies of files that are not local."""
    try:
        operation = CommitOperationAdd(entry.path, _file_or_bytes(bundle, entry, folder))
    except (ValueError, OSError):  # the file is gone
        raise changed_file_error(bundle, entry) from None
    # The files of a run change while it trains.
    if operation.upload_info.sha256.hex() != entry.sha256:
        raise changed_file_error(bundle, entry)
    return operation


def _file_or_bytes(bundle: Bundle, entry: Entry, folder: Path) -> bytes | str:
    """Returns a file as the client takes it: its bytes or its local path."""
    if entry.path == CARD:
        return bundle.card
    if is_local(bundle.run):
        return os.fspath(bundle.run / entry.path)
    local = folder / entry.sha256
    with bundle.open(entry.path) as source, local.open("wb") as sink:
        shutil.copyfileobj(source, sink)
    return str(local)
