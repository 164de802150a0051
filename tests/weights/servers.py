"""Hosts of weights on this machine: HTTPS with its own certificate authority, Google Drive, a proxy, FTP."""

import contextlib
import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import trustme
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import ThreadedFTPServer

from tests import http_server
from tests.http_server import running

DRIVE = ("drive.google.com", "drive.usercontent.google.com", "docs.google.com")
FILE_ID = "1tH1d2zZv2HtcQFPrGuVWJHXmD9sTeddQ"
FOLDER_ID = "1I3dvClr4oVH3h5cGmaFXmTc8aV-nYHof"
STATUS = {"login": 401, "forbidden": 403, "gone": 404, "removed": 410, "too many": 429, "down": 503}


class Host(http_server.Server):
    """Serves ``files`` by path, unless ``fault`` is set."""

    url = ""

    def __init__(self, context: ssl.SSLContext | None = None):
        super().__init__(Handler)
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.fault = ""
        self.requests: list[str] = []
        self.ranges: list[str] = []
        self.pause = 0.0  # seconds between quarters of a body
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)


class Handler(http_server.Handler):
    server: Host

    def do_GET(self) -> None:
        host, url = self.server, urlsplit(self.path)
        name = self.headers.get("Host", "").partition(":")[0]
        host.requests.append(f"{name}{self.path}")
        if self.path in host.redirects:
            return self.send(302, b"", Location=host.redirects[self.path])
        if host.fault in STATUS:
            return self.send(STATUS[host.fault], b"")
        if host.fault == "html":
            return self.send(200, b"<!DOCTYPE html><html>consent</html>", **{"Content-Type": "text/html"})
        if name in DRIVE:
            return self.drive(url.path, {key: value[0] for key, value in parse_qs(url.query).items()})
        if url.path not in host.files:
            return self.send(404, b"")
        return self.file(host.files[url.path])

    def drive(self, path: str, query: dict[str, str]) -> None:
        host, file_id = self.server, query.get("id", "")
        if path == "/embeddedfolderview":
            entries = [
                f'<a href="https://drive.google.com/file/d/{key.removeprefix("id:")}/view">{name}</a>'
                for key, name in getattr(host, "folder", {}).items()
            ]
            page = f"<html><head><title>weights</title></head><body>{''.join(entries)}</body></html>"
            return self.send(200, page.encode(), **{"Content-Type": "text/html; charset=utf-8"})
        if host.fault == "quota":
            page = '<html><p class="uc-error-subcaption">Too many users have viewed or downloaded this file.</p></html>'
            return self.send(200, page.encode(), **{"Content-Type": "text/html; charset=utf-8"})
        if file_id not in host.files:
            return self.send(404, b"")
        if host.fault == "confirm" and "confirm" not in query:
            page = (
                '<html><body><form id="download-form" action="https://drive.usercontent.google.com/download" method="get">'
                f'<input type="hidden" name="id" value="{file_id}"><input type="hidden" name="export" value="download">'
                '<input type="hidden" name="confirm" value="t"></form></body></html>'
            )
            return self.send(200, page.encode(), **{"Content-Type": "text/html; charset=utf-8"})
        name = {
            "Content-Disposition": 'attachment; filename="fold1_224.pth"',
            "Content-Type": "application/octet-stream",
        }
        return self.file(host.files[file_id], **name)

    def file(self, content: bytes, **headers: str) -> None:
        host = self.server
        etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        start = 0
        if "Range" in self.headers and self.headers.get("If-Range", etag) == etag:
            host.ranges.append(self.headers["Range"])
            start = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body, status = content[start:], 206 if "Content-Range" in headers else 200
        if host.fault == "wrong bytes":
            body = body[:-1] + bytes([body[-1] ^ 1])
        if host.fault == "endless":  # no length announced, and more than there should be
            self.send_response(200)
            self.send_header("Connection", "close")
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):
                for _ in range(1000):
                    self.wfile.write(content)
            self.close_connection = True
            return None
        body = body * 10 if host.fault == "larger" else body
        length = len(body)
        if host.fault in ("cut", "cut once", "hang"):
            if host.fault == "cut once":
                host.fault = ""
            self.send(status, body[: len(body) // 4], length=length, ETag=etag, **headers)
            if host.fault == "hang":
                time.sleep(3)
            self.close_connection = True
            return None
        return self.send(status, body, length=length, ETag=etag, **headers)

    def send(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        self.start(status, len(body) if length is None else length, headers)
        step = max(1, len(body) // 4) if self.server.pause else max(1, len(body))
        with contextlib.suppress(OSError):
            for start in range(0, len(body), step):
                self.wfile.write(body[start : start + step])
                self.wfile.flush()
                time.sleep(self.server.pause)


class Proxy(http_server.Server):
    """A CONNECT proxy that connects every host name to one server of this machine."""

    def __init__(self, target: int):
        super().__init__(Tunnel)
        self.target = target
        self.hosts: list[str] = []


class Tunnel(BaseHTTPRequestHandler):
    server: Proxy
    timeout = 10

    def do_CONNECT(self) -> None:
        self.server.hosts.append(self.path)
        with socket.create_connection(("127.0.0.1", self.server.target)) as other:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=pump, args=(other, self.connection), daemon=True)
            back.start()
            pump(self.connection, other)
            back.join()

    def log_message(self, *args: object) -> None:
        pass


def pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def https_host(folder: Path) -> Iterator[tuple[Host, Path]]:
    """(an HTTPS host for "localhost" and the host names of Drive, the file of its certificate authority)"""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", *DRIVE).configure_cert(context)
    bundle = folder / "authority.pem"
    authority.cert_pem.write_to_path(str(bundle))
    with running(Host(context)) as host:
        yield host, bundle


@contextlib.contextmanager
def ftp_host(folder: Path) -> Iterator[int]:
    """The port of an FTP server with anonymous access to a folder."""
    users = DummyAuthorizer()
    users.add_anonymous(str(folder))
    handler = type("Anonymous", (FTPHandler,), {"authorizer": users, "banner": "ready"})
    server = ThreadedFTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"timeout": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.socket.getsockname()[1]
    finally:
        server.close_all()
        thread.join(timeout=5)
