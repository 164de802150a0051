"""A Hub with one file and a chosen fault, on this machine, for as long as a test runs."""

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REVISION = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves ``content`` as small/weights/model.safetensors; ``fault`` says what it does instead."""

    daemon_threads = True
    request_queue_size = 32

    def __init__(self, content: bytes):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.served = content  # what is really sent
        self.fault = ""
        self.filename = "model.safetensors"
        self.headers: dict[str, str] = {}
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextlib.contextmanager
def serve(content: bytes) -> Iterator[Hub]:
    hub = Hub(content)
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join(timeout=5)


# fault -> (status, X-Error-Code): as the Hub answers, seen from its client's reading of these
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


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"
    timeout = 10

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

    def send(self, status: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, **self.server.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass
