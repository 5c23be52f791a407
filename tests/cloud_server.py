"""A local server in place of Google Cloud Storage, with the part of its JSON API that TensorStore, gcsfs and Orbax use.

It stores objects in memory. As in the real service, a folder exists only while an object lies below it, an object
appears completely or not at all, and `ifGenerationMatch` refuses to replace an object of another generation.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import google_crc32c

PAGE = 50  # most objects in a page of a listing; the real service allows more, so that tests would see one page
TIMESTAMP = "2026-01-01T00:00:00.000Z"


@dataclass
class StoredObject:
    """Content of an object, and the number that changes whenever it is written."""

    content: bytes
    generation: int


class RefusedError(Exception):
    """The error with which the server answers a request."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


@dataclass
class Cloud:
    """The state of the server.

    Attributes:
        url: the server's address.
        buckets: the objects of each bucket, by name.
        uploads: bucket, name and received bytes of objects that arrive in several requests.
        requests: method and path of each request so far.
        failing: status of the error that answers every request; 0 for none.
        written: called with the name of each object before it is written; may raise RefusedError.
        generation: number of objects written so far.
        lock: held while a request is answered.
    """

    url: str
    buckets: dict[str, dict[str, StoredObject]] = field(default_factory=lambda: {"lab": {}})
    uploads: list[tuple[str, str, bytearray]] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    failing: int = 0
    written: Callable[[str], None] = str
    generation: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def names(self, prefix: str = "") -> list[str]:
        return sorted(name for name in self.buckets["lab"] if name.startswith(prefix))

    def put(self, name: str, content: bytes, bucket: str = "lab") -> StoredObject:
        self.generation += 1
        self.buckets[bucket][name] = StoredObject(content, self.generation)
        return self.buckets[bucket][name]


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of a `Cloud`."""

    protocol_version = "HTTP/1.1"
    # Headers and body are sent in one packet; in two, each answer would wait 40 ms for an acknowledgement.
    wbufsize = -1
    cloud: Cloud

    def log_message(self, *_: Any) -> None:
        pass

    def _handle(self) -> None:
        self.body = self._read()
        split = urlsplit(self.path)
        self.query = dict(parse_qsl(split.query))
        try:
            with self.cloud.lock:
                self.cloud.requests.append((self.command, split.path))
                if self.cloud.failing:
                    raise RefusedError(self.cloud.failing, "Anonymous caller may not do this.")
                for method, pattern, answer in ROUTES:
                    found = re.fullmatch(pattern, split.path)
                    if found and self.command == method:
                        answer(self, **{key: unquote(v) for key, v in found.groupdict().items()})
                        return
                raise RefusedError(501, f"this server lacks {self.command} {self.path}")
        except RefusedError as error:
            details = {"code": error.status, "message": error.message}
            self._send(error.status, json.dumps({"error": details}).encode())

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _handle  # noqa: N815

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            return b"".join(self._chunks())
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _send(
        self, status: int, content: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode())

    def objects(self, bucket: str) -> dict[str, StoredObject]:
        if bucket not in self.cloud.buckets:
            raise RefusedError(404, "The specified bucket does not exist.")
        return self.cloud.buckets[bucket]

    def get_object(self, bucket: str, name: str) -> StoredObject:
        found = self.objects(bucket).get(name)
        if found is None:
            raise RefusedError(404, f"No such object: {bucket}/{name}")
        return found

    def write(self, bucket: str, name: str, content: bytes) -> None:
        there = self.objects(bucket).get(name)
        wanted = self.query.get("ifGenerationMatch")
        if wanted is not None and int(wanted) != (there.generation if there else 0):
            raise RefusedError(
                412, "At least one of the pre-conditions you specified did not hold."
            )
        self.cloud.written(name)
        self._json(describe(bucket, name, self.cloud.put(name, content, bucket)))


def describe(bucket: str, name: str, stored: StoredObject) -> dict[str, Any]:
    checksum = google_crc32c.value(stored.content).to_bytes(4, "big")
    return {
        "kind": "storage#object",
        "id": f"{bucket}/{name}/{stored.generation}",
        "bucket": bucket,
        "name": name,
        "generation": str(stored.generation),
        "metageneration": "1",
        "size": str(len(stored.content)),
        "md5Hash": base64.b64encode(hashlib.md5(stored.content).digest()).decode(),
        "crc32c": base64.b64encode(checksum).decode(),
        "contentType": "application/octet-stream",
        "storageClass": "STANDARD",
        "timeCreated": TIMESTAMP,
        "updated": TIMESTAMP,
    }


def get_bucket(request: Handler, bucket: str) -> None:
    request.objects(bucket)
    request._json({"kind": "storage#bucket", "id": bucket, "name": bucket, "location": "EU"})


def create_bucket(request: Handler) -> None:
    name = json.loads(request.body)["name"]
    request.cloud.buckets[name] = {}
    request._json({"kind": "storage#bucket", "id": name, "name": name})


def list_objects(request: Handler, bucket: str) -> None:
    query, objects = request.query, request.objects(bucket)
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    found: dict[str, bool] = {}  # names, and whether they are folders
    for name in objects:
        if not name.startswith(prefix) or name < query.get("startOffset", ""):
            continue
        if "endOffset" in query and name >= query["endOffset"]:
            continue
        head, cut, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
        found[prefix + head + cut if cut else name] = bool(cut)
    left = sorted(each for each in found if each > query.get("pageToken", ""))
    page = left[: min(PAGE, int(query.get("maxResults", PAGE)))]
    answer: dict[str, Any] = {"kind": "storage#objects"}
    if items := [describe(bucket, each, objects[each]) for each in page if not found[each]]:
        answer["items"] = items
    if folders := [each for each in page if found[each]]:
        answer["prefixes"] = folders
    if len(page) < len(left):
        answer["nextPageToken"] = page[-1]
    request._json(answer)


def read_object(request: Handler, bucket: str, name: str) -> None:
    stored = request.get_object(bucket, name)
    if request.query.get("ifGenerationNotMatch") == str(stored.generation):
        raise RefusedError(304, "Not Modified")
    if request.query.get("ifGenerationMatch", str(stored.generation)) != str(stored.generation):
        raise RefusedError(412, "At least one of the pre-conditions you specified did not hold.")
    if request.query.get("alt") != "media":
        request._json(describe(bucket, name, stored))
        return
    headers = {
        "x-goog-generation": str(stored.generation),
        "Content-Type": "application/octet-stream",
    }
    content, size = stored.content, len(stored.content)
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("Range", ""))
    if not asked:
        request._send(200, content, headers)
        return
    first, last = asked.groups()
    begin = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if begin >= size:
        raise RefusedError(416, "Requested range not satisfiable")
    headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
    request._send(206, content[begin:end], headers)


def start_upload(request: Handler, bucket: str) -> None:
    kind = request.query["uploadType"]
    if kind == "media":
        request.write(bucket, request.query["name"], request.body)
    elif kind == "multipart":
        boundary = re.search(r'boundary="?([^";]+)', request.headers["Content-Type"])
        assert boundary
        _, head, body = request.body.split(b"--" + boundary[1].encode(), 2)
        body = body[: body.rindex(b"--" + boundary[1].encode())]
        about = json.loads(re.split(rb"\r?\n\r?\n", head, maxsplit=1)[1])
        content = re.split(rb"\r?\n\r?\n", body, maxsplit=1)[1]
        request.write(bucket, about["name"], re.sub(rb"\r?\n\Z", b"", content))
    else:
        name = request.query.get("name") or json.loads(request.body)["name"]
        request.objects(bucket)
        request.cloud.uploads.append((bucket, name, bytearray()))
        number = len(request.cloud.uploads) - 1
        request._send(200, b"", {"Location": f"{request.cloud.url}/continue?upload={number}"})


def continue_upload(request: Handler) -> None:
    bucket, name, received = request.cloud.uploads[int(request.query["upload"])]
    asked = re.fullmatch(
        r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", request.headers.get("Content-Range", "")
    )
    if asked and asked[1]:
        del received[int(asked[1]) :]
    received += request.body
    if asked and (asked[2] == "*" or int(asked[2]) != len(received)):
        request._send(308, b"", {"Range": f"bytes=0-{len(received) - 1}"} if received else {})
    else:
        request.write(bucket, name, bytes(received))


def delete_object(request: Handler, bucket: str, name: str) -> None:
    stored = request.get_object(bucket, name)
    if request.query.get("ifGenerationMatch", str(stored.generation)) != str(stored.generation):
        raise RefusedError(412, "At least one of the pre-conditions you specified did not hold.")
    del request.cloud.buckets[bucket][name]
    request._send(204)


def copy_object(request: Handler, bucket: str, name: str, to: str, target: str) -> None:
    made = request.cloud.put(target, request.get_object(bucket, name).content, to)
    request._json({"done": True, "resource": describe(to, target, made)})


def move_object(request: Handler, bucket: str, name: str, target: str) -> None:
    stored = request.get_object(bucket, name)
    del request.cloud.buckets[bucket][name]
    request._json(describe(bucket, target, request.cloud.put(target, stored.content, bucket)))


BUCKET = r"/storage/v1/b/(?P<bucket>[^/]+)"
OBJECT = BUCKET + r"/o/(?P<name>[^/]+)"
ROUTES: list[tuple[str, str, Any]] = [
    ("GET", BUCKET, get_bucket),
    ("POST", r"/storage/v1/b", create_bucket),
    ("GET", BUCKET + r"/o/?", list_objects),
    ("GET", rf"(?:/download)?{OBJECT}", read_object),
    ("POST", rf"/upload{BUCKET}/o", start_upload),
    ("POST", r"/continue", continue_upload),
    ("PUT", r"/continue", continue_upload),
    ("DELETE", OBJECT, delete_object),
    ("POST", OBJECT + r"/rewriteTo/b/(?P<to>[^/]+)/o/(?P<target>[^/]+)", copy_object),
    ("POST", OBJECT + r"/moveTo/o/(?P<target>[^/]+)", move_object),
]


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # TensorStore requests many objects at once

    def handle_error(self, *_: Any) -> None:
        """Prints nothing when a client was killed or closes a connection early."""


@contextmanager
def serve_cloud() -> Iterator[Cloud]:
    """Runs a server with one empty bucket, `lab`, during the block."""
    server = Server(("127.0.0.1", 0), Handler)
    cloud = Cloud(f"http://127.0.0.1:{server.server_address[1]}")
    server.RequestHandlerClass = type("Served", (Handler,), {"cloud": cloud})
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield cloud
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def environment(cloud: Cloud) -> dict[str, str]:
    """Returns the environment variables that direct the clients to the server; some read them at import."""
    return {
        "TENSORSTORE_GCS_HTTP_URL": cloud.url,
        "STORAGE_EMULATOR_HOST": cloud.url,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "nobody",  # keeps TensorStore from looking for credentials
        "NO_GCE_CHECK": "true",
        "GOOGLE_CLOUD_PROJECT": "lab",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # would ask for the kind of a bucket by gRPC
        "NO_PROXY": "127.0.0.1,localhost",
    }
