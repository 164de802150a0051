"""Base class of the HTTP servers of the tests: listens on 127.0.0.1, uses threads, and prints nothing."""

import contextlib
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar


class Server(ThreadingHTTPServer):
    """A server on a free local port."""

    daemon_threads = True
    request_queue_size = 32

    def __init__(self, handler: type[BaseHTTPRequestHandler]):
        super().__init__(("127.0.0.1", 0), handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address) -> None:
        pass  # some tests break connections on purpose


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10

    def body(self) -> bytes:
        """Return the body of the request, chunked or with a length."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def start(self, status: int, length: int, headers: Mapping[str, str]) -> None:
        """Send the status and the headers."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def send(self, status: int, content: bytes, headers: Mapping[str, str], length: int | None = None) -> None:
        """Send a response. ``length`` overrides the Content-Length."""
        self.start(status, len(content) if length is None else length, headers)
        with contextlib.suppress(OSError):
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


ServerType = TypeVar("ServerType", bound=ThreadingHTTPServer)


@contextlib.contextmanager
def running(server: ServerType) -> Iterator[ServerType]:
    """Run a server in a thread."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
