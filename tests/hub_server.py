"""A Hub on this machine, with one file and a fault of choice."""

import contextlib
import hashlib
from collections.abc import Iterator

from tests import http_server

REVISION = "0123456789abcdef0123456789abcdef01234567"


class Hub(http_server.Server):
    """Serves ``content`` as small/weights/model.safetensors, unless ``fault`` is set."""

    def __init__(self, content: bytes):
        super().__init__(Handler)
        self.content = content
        self.served = content  # the bytes that are sent
        self.fault = ""
        self.filename = "model.safetensors"
        self.headers: dict[str, str] = {}
        self.requests: list[str] = []


@contextlib.contextmanager
def serve(content: bytes) -> Iterator[Hub]:
    with http_server.running(Hub(content)) as hub:
        yield hub


# fault -> (status, X-Error-Code), as the client of the Hub expects them
ANSWERS = {
    "unauthorized": (401, None),
    "gated": (403, "GatedRepo"),
    "forbidden": (403, None),
    "no repository": (404, "RepoNotFound"),
    "no revision": (404, "RevisionNotFound"),
    "no file": (404, "EntryNotFound"),
    "too many": (429, None),
    "down": (503, None),
}


class Handler(http_server.Handler):
    server: Hub

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        hub = self.server
        hub.requests.append(f"{self.command} {self.path}")
        if hub.fault in ANSWERS:
            status, code = ANSWERS[hub.fault]
            return self.send(status, b"", {"X-Error-Code": code} if code else {})
        if hub.fault == "portal":
            return self.send(200, b"<html>Please log in to this network</html>" if with_body else b"", {})
        known = {f"/small/weights/resolve/{revision}/{hub.filename}" for revision in (REVISION, "main")}
        if self.path not in known:
            return self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
        commit = "f" * 40 if hub.fault == "moved" else REVISION
        digest = hashlib.sha256(hub.content).hexdigest()
        headers = {"X-Repo-Commit": commit, "ETag": f'"{digest}"', "X-Linked-Etag": f'"{digest}"'}
        body = hub.served
        start = 0
        if with_body and "Range" in self.headers:
            start = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0])
        if not with_body:
            return self.send(200, b"", headers, length=len(body))
        if hub.fault == "cut" or hub.fault == "cut once":
            hub.fault = "" if hub.fault == "cut once" else hub.fault
            self.send(206 if start else 200, body[start : start + len(body) // 4], headers, length=len(body) - start)
            self.close_connection = True
            return None
        return self.send(206 if start else 200, body[start:], headers)

    def send(self, status: int, content: bytes, headers: dict[str, str], length: int | None = None) -> None:
        super().send(status, content, {**headers, **self.server.headers}, length)
