"""A stand-in for the Hugging Face hub: the part of its HTTP interface that huggingface_hub uses for models.

It keeps what it is given, in memory, and answers as the hub does: small text files come inside the commit and
binary ones through LFS, which are then served from another host; errors carry `X-Error-Code`.
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
    """Branches name commits, and commits hold whole trees: path to content."""

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
    """What the stand-in knows.

    Attributes:
        url: for HF_ENDPOINT.
        users: their names by token.
        repositories: by OWNER/NAME.
        objects: of LFS, by SHA-256.
        requests: method and path of each request so far.
        failing: a status to answer everything with, or 0.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.storage = f"http://localhost:{port}"  # another host, as the hub's storage is
        self.users: dict[str, str] = {"hf_ada": "ada", "hf_bob": "bob"}
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.failing = 0
        self.lock = threading.Lock()

    def tree(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        found = self.repositories[repo]
        return found.commits[found.branches[revision]]


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
                for method, pattern, answer in ROUTES:
                    found = re.fullmatch(pattern, path)
                    if found and self.command in method.split():
                        answer(self, **{k: unquote(v) for k, v in found.groupdict().items()})
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
        given = self.headers.get("Authorization")
        if given is None:
            return None
        user = self.hub.users.get(given.removeprefix("Bearer "))
        if user is None:
            raise RefusedError(401, "Invalid credentials in Authorization header")
        return user

    def _repository(self, repo: str, write: bool = False) -> Repository:
        user, found = self._user(), self.hub.repositories.get(repo)
        owner = repo.split("/")[0]
        if found is None or (found.private and user != owner):
            if user is None:  # the hub does not tell strangers what exists
                raise RefusedError(401, "Invalid username or password.")
            raise RefusedError(404, "Repository not found", "RepoNotFound")
        if write and user is None:
            raise RefusedError(401, "Invalid username or password.")
        if write and user != owner:
            raise RefusedError(403, "Forbidden: you must have write access")
        return found

    def _commit_of(self, found: Repository, revision: str) -> str:
        oid = found.resolve(revision)
        if oid is None:
            raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return oid

    def create(self) -> None:
        asked, user = json.loads(self.body), self._user()
        owner = asked.get("organization") or user
        if user is None:
            raise RefusedError(401, "Invalid username or password.")
        if user != owner:
            raise RefusedError(403, f"You don't have the rights to create a model under {owner}")
        repo = f"{owner}/{asked['name']}"
        url = f"{self.hub.url}/{repo}"
        if repo in self.hub.repositories:
            self._json({"error": "You already created this model repo", "url": url}, 409)
            return
        created = Repository(private=asked.get("visibility") == "private")
        created.commit("main", {".gitattributes": b"*.bin filter=lfs\n"})
        self.hub.repositories[repo] = created
        self._json({"url": url, "name": repo, "id": repo})

    def branch(self, repo: str, branch: str) -> None:
        found = self._repository(repo, write=True)
        if branch in found.branches:
            raise RefusedError(409, "Reference already exists")
        found.branches[branch] = found.branches["main"]
        self._json({}, 201)

    def info(self, repo: str, revision: str = "main") -> None:
        found = self._repository(repo)
        oid = self._commit_of(found, revision)
        siblings = [
            {"rfilename": path, "size": len(content), "blobId": hashlib.sha1(content).hexdigest()}
            for path, content in found.commits[oid].items()
        ]
        self._json({"id": repo, "sha": oid, "private": found.private, "siblings": siblings})

    def validate(self) -> None:
        front = json.loads(self.body)["content"].split("---\n")
        errors = []
        try:
            if not isinstance(yaml.safe_load(front[1]), dict):
                errors.append({"message": '"yaml" must be of type object'})
        except (yaml.YAMLError, IndexError):
            errors.append({"message": "the metadata is no YAML"})
        self._json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def preupload(self, repo: str, revision: str) -> None:
        found = self._repository(repo, write=True)
        self._commit_of(found, revision)
        files = []
        for asked in json.loads(self.body)["files"]:
            binary = is_binary(base64.b64decode(asked["sample"]))
            mode = "lfs" if binary else "regular"
            files.append({"path": asked["path"], "uploadMode": mode, "shouldIgnore": False})
        self._json({"files": files})

    def batch(self, repo: str) -> None:
        self._repository(repo, write=True)
        answers = []
        for asked in json.loads(self.body)["objects"]:
            answer: dict[str, Any] = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.hub.objects:
                answer["actions"] = {"upload": {"href": f"{self.hub.storage}/lfs/{asked['oid']}"}}
            answers.append(answer)
        self._json({"transfer": "basic", "objects": answers})

    def store(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise RefusedError(400, "the content does not have this SHA-256")
        self.hub.objects[oid] = self.body
        self._send(200)

    def commit(self, repo: str, revision: str) -> None:
        found = self._repository(repo, write=True)
        tree = dict(found.commits[self._commit_of(found, revision)])
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
        oid = found.commit(revision, tree)
        self._json({"commitUrl": f"{self.hub.url}/{repo}/commit/{oid}", "commitOid": oid})

    def resolve(self, repo: str, revision: str, path: str) -> None:
        found = self._repository(repo)
        oid = self._commit_of(found, revision)
        content = found.commits[oid].get(path)
        if content is None:
            raise RefusedError(404, "Entry not found", "EntryNotFound")
        headers = {"X-Repo-Commit": oid, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 not in self.hub.objects:
            self._send(200, content, headers)
            return
        linked = {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{sha256}"'}
        self._send(302, b"", headers | linked | {"Location": f"{self.hub.storage}/lfs/{sha256}"})

    def fetch(self, oid: str) -> None:
        self._send(200, self.hub.objects[oid])


ROUTES = [
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", Handler.validate),
    ("POST", MODEL + "/branch/(?P<branch>[^/]+)", Handler.branch),
    ("POST", MODEL + "/preupload/(?P<revision>[^/]+)", Handler.preupload),
    ("POST", MODEL + "/commit/(?P<revision>[^/]+)", Handler.commit),
    ("GET", MODEL + "/revision/(?P<revision>[^/]+)", Handler.info),
    ("GET", MODEL, Handler.info),
    ("POST", r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", "/lfs/(?P<oid>[0-9a-f]{64})", Handler.store),
    ("GET HEAD", "/lfs/(?P<oid>[0-9a-f]{64})", Handler.fetch),
    (
        "GET HEAD",
        "/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)",
        Handler.resolve,
    ),
]


@contextmanager
def served_hub() -> Iterator[Hub]:
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
