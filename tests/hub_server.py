"""A stand-in for the Hugging Face hub: the part of its HTTP interface that huggingface_hub uses for models.

It stores uploads in memory and answers as the hub does: small text files come inside the commit, binary files through
LFS, and these are served from another host. Errors have the header `X-Error-Code`.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

MODEL = r"/api/models/(?P<repo>[^/]+/[^/]+)"


@dataclass
class Repository:
    """A model repository: branches name commits, and a commit holds the content of every file by its path."""

    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, branch: str, tree: dict[str, bytes]) -> str:
        oid = hashlib.sha1(f"{branch} {len(self.commits)}".encode()).hexdigest()
        self.commits[oid] = tree
        self.branches[branch] = oid
        return oid

    def resolve(self, revision: str) -> str | None:
        oid = self.branches.get(revision, revision)
        return oid if oid in self.commits else None


class RefusedError(Exception):
    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


class Hub:
    """The state of the stand-in.

    Attributes:
        url: the value for HF_ENDPOINT.
        storage: the URL of LFS, on another host, as the hub's is.
        users: names of the users by token.
        repositories: the repositories by OWNER/NAME.
        objects: contents stored through LFS, by SHA-256.
        requests: method and path of each request so far.
        failing: a status with which every request is answered; 0 for none.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.storage = f"http://localhost:{port}"
        self.users: dict[str, str] = {"hf_ada": "ada", "hf_bob": "bob"}
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.failing = 0
        self.lock = threading.Lock()

    def tree(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        repository = self.repositories[repo]
        return repository.commits[repository.branches[revision]]


def is_binary(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return True
    return b"\0" in content


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def _handle(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(size)
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = b"".join(self._chunks())
        path = urlsplit(self.path).path
        try:
            with self.hub.lock:
                self.hub.requests.append((self.command, path))
                if self.hub.failing:
                    raise RefusedError(self.hub.failing, "out of order")
                for methods, pattern, answer in ROUTES:
                    match = re.fullmatch(pattern, path)
                    if match and self.command in methods.split():
                        answer(self, **{k: unquote(v) for k, v in match.groupdict().items()})
                        return
            raise RefusedError(404, "Sorry, we can't find the page you are looking for.")
        except RefusedError as error:
            headers = {"X-Error-Message": error.message}
            if error.code:
                headers["X-Error-Code"] = error.code
            self._send(error.status, json.dumps({"error": error.message}).encode(), headers)

    do_GET = do_HEAD = do_POST = do_PUT = _handle  # noqa: N815

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()

    def _send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _user(self) -> str | None:
        token = self.headers.get("Authorization")
        if token is None:
            return None
        user = self.hub.users.get(token.removeprefix("Bearer "))
        if user is None:
            raise RefusedError(401, "Invalid credentials in Authorization header")
        return user

    def _find_repository(self, repo: str, write: bool = False) -> Repository:
        user, repository = self._user(), self.hub.repositories.get(repo)
        owner = repo.split("/")[0]
        if repository is None or (repository.private and user != owner):
            if user is None:  # the hub does not tell strangers what exists
                raise RefusedError(401, "Invalid username or password.")
            raise RefusedError(404, "Repository not found", "RepoNotFound")
        if write and user is None:
            raise RefusedError(401, "Invalid username or password.")
        if write and user != owner:
            raise RefusedError(403, "Forbidden: you must have write access")
        return repository

    def _find_commit(self, repository: Repository, revision: str) -> str:
        oid = repository.resolve(revision)
        if oid is None:
            raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return oid

    def create_repository(self) -> None:
        request, user = json.loads(self.body), self._user()
        owner = request.get("organization") or user
        if user is None:
            raise RefusedError(401, "Invalid username or password.")
        if user != owner:
            raise RefusedError(403, f"You don't have the rights to create a model under {owner}")
        repo = f"{owner}/{request['name']}"
        url = f"{self.hub.url}/{repo}"
        if repo in self.hub.repositories:
            self._json({"error": "You already created this model repo", "url": url}, 409)
            return
        created = Repository(private=request.get("visibility") == "private")
        created.commit("main", {".gitattributes": b"*.bin filter=lfs\n"})
        self.hub.repositories[repo] = created
        self._json({"url": url, "name": repo, "id": repo})

    def create_branch(self, repo: str, branch: str) -> None:
        repository = self._find_repository(repo, write=True)
        if branch in repository.branches:
            raise RefusedError(409, "Reference already exists")
        repository.branches[branch] = repository.branches["main"]
        self._json({}, 201)

    def describe(self, repo: str, revision: str = "main") -> None:
        repository = self._find_repository(repo)
        oid = self._find_commit(repository, revision)
        siblings = [
            {"rfilename": path, "size": len(content), "blobId": hashlib.sha1(content).hexdigest()}
            for path, content in repository.commits[oid].items()
        ]
        self._json({"id": repo, "sha": oid, "private": repository.private, "siblings": siblings})

    def validate_card(self) -> None:
        front = json.loads(self.body)["content"].split("---\n")
        errors = []
        try:
            if not isinstance(yaml.safe_load(front[1]), dict):
                errors.append({"message": '"yaml" must be of type object'})
        except (yaml.YAMLError, IndexError):
            errors.append({"message": "the metadata is no YAML"})
        self._json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def choose_upload_modes(self, repo: str, revision: str) -> None:
        repository = self._find_repository(repo, write=True)
        self._find_commit(repository, revision)
        files = []
        for entry in json.loads(self.body)["files"]:
            binary = is_binary(base64.b64decode(entry["sample"]))
            mode = "lfs" if binary else "regular"
            files.append({"path": entry["path"], "uploadMode": mode, "shouldIgnore": False})
        self._json({"files": files})

    def prepare_uploads(self, repo: str) -> None:
        self._find_repository(repo, write=True)
        answers = []
        for entry in json.loads(self.body)["objects"]:
            answer: dict[str, Any] = {"oid": entry["oid"], "size": entry["size"]}
            if entry["oid"] not in self.hub.objects:
                answer["actions"] = {"upload": {"href": f"{self.hub.storage}/lfs/{entry['oid']}"}}
            answers.append(answer)
        self._json({"transfer": "basic", "objects": answers})

    def store_object(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise RefusedError(400, "the content does not have this SHA-256")
        self.hub.objects[oid] = self.body
        self._send(200)

    def create_commit(self, repo: str, revision: str) -> None:
        repository = self._find_repository(repo, write=True)
        tree = dict(repository.commits[self._find_commit(repository, revision)])
        for line in self.body.splitlines():
            action = json.loads(line)
            key, value = action["key"], action["value"]
            if key == "file":
                tree[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                tree[value["path"]] = self.hub.objects[value["oid"]]
            elif key == "deletedFile":
                if tree.pop(value["path"], None) is None:
                    raise RefusedError(404, "A file with this name doesn't exist", "EntryNotFound")
            elif key != "header":
                raise RefusedError(400, f"unknown key {key}")
        oid = repository.commit(revision, tree)
        self._json({"commitUrl": f"{self.hub.url}/{repo}/commit/{oid}", "commitOid": oid})

    def download(self, repo: str, revision: str, path: str) -> None:
        repository = self._find_repository(repo)
        oid = self._find_commit(repository, revision)
        content = repository.commits[oid].get(path)
        if content is None:
            raise RefusedError(404, "Entry not found", "EntryNotFound")
        headers = {"X-Repo-Commit": oid, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 not in self.hub.objects:
            self._send(200, content, headers)
            return
        linked = {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{sha256}"'}
        self._send(302, b"", headers | linked | {"Location": f"{self.hub.storage}/lfs/{sha256}"})

    def download_object(self, oid: str) -> None:
        self._send(200, self.hub.objects[oid])


ROUTES = [
    ("POST", "/api/repos/create", Handler.create_repository),
    ("POST", "/api/validate-yaml", Handler.validate_card),
    ("POST", MODEL + "/branch/(?P<branch>[^/]+)", Handler.create_branch),
    ("POST", MODEL + "/preupload/(?P<revision>[^/]+)", Handler.choose_upload_modes),
    ("POST", MODEL + "/commit/(?P<revision>[^/]+)", Handler.create_commit),
    ("GET", MODEL + "/revision/(?P<revision>[^/]+)", Handler.describe),
    ("GET", MODEL, Handler.describe),
    ("POST", r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", Handler.prepare_uploads),
    ("PUT", "/lfs/(?P<oid>[0-9a-f]{64})", Handler.store_object),
    ("GET HEAD", "/lfs/(?P<oid>[0-9a-f]{64})", Handler.download_object),
    (
        "GET HEAD",
        "/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)",
        Handler.download,
    ),
]


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """Runs a stand-in until the block ends."""

    class Bound(Handler):
        pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Bound) as server:
        Bound.hub = Hub(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield Bound.hub
        finally:
            server.shutdown()
            thread.join()
