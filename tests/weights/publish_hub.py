"""A Hub that takes commits, on this machine: what the real client asks of it when it publishes and reads back."""

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.commits: dict[str, dict[str, bytes]] = {}  # revision -> files
        self.large: dict[str, bytes] = {}  # sha256 -> content
        self.created: list[dict] = []
        self.settings: list[dict] = []
        self.pull_requests: list[str] = []
        self.agents: set[str] = set()
        self.fault = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address) -> None:
        pass


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"
    timeout = 10

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_POST(self) -> None:
        hub, path, body = self.server, urlsplit(self.path), self.body()
        hub.agents.add(self.headers.get("User-Agent", ""))
        if hub.fault == "forbidden":
            return self.json({"error": "no write access"}, 403)
        if path.path == "/api/repos/create":
            asked = json.loads(body)
            hub.created.append(asked)
            return self.json({"url": f"{hub.url}/{asked.get('organization', 'me')}/{asked['name']}"})
        if path.path == "/api/validate-yaml":
            text = json.loads(body)["content"]
            fault = [] if text.startswith("---\n") and "\nlicense: " in text else [{"message": "no licence"}]
            return self.json({"errors": fault, "warnings": []}, 400 if fault else 200)
        if "/preupload/" in path.path:
            files = json.loads(body)["files"]
            modes = [
                {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular"}
                for f in files
            ]
            return self.json({"files": [{**mode, "shouldIgnore": False} for mode in modes]})
        if path.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {"oid": o["oid"], "size": o["size"], "actions": {"upload": {"href": f"{hub.url}/upload/{o['oid']}"}}}
                for o in json.loads(body)["objects"]
            ]
            return self.json({"transfer": "basic", "objects": objects})
        if "/commit/" in path.path:
            return self.commit(body, path.query, path.path.split("/api/models/")[1].partition("/commit/")[0])
        return self.json({"error": f"unknown {self.path}"}, 404)

    def commit(self, body: bytes, query: str, repo_id: str) -> None:
        hub, files = self.server, {}
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = hub.large[value["oid"]]
        revision = hashlib.sha1(body).hexdigest()
        hub.commits[revision] = files
        answer = {"commitOid": revision, "commitUrl": f"{hub.url}/{repo_id}/commit/{revision}"}
        if "create_pr=1" in query:
            hub.pull_requests.append(repo_id)
            answer["pullRequestUrl"] = f"{hub.url}/{repo_id}/discussions/1"
        return self.json(answer)

    def do_PUT(self) -> None:
        content = self.body()
        if self.path.startswith("/api/"):
            self.server.settings.append(json.loads(content))
            return self.json({})
        self.server.large[self.path.rpartition("/")[2]] = content
        return self.json({})

    def do_GET(self) -> None:
        self.file(with_body=True)

    def do_HEAD(self) -> None:
        self.file(with_body=False)

    def file(self, with_body: bool) -> None:
        hub = self.server
        hub.agents.add(self.headers.get("User-Agent", ""))
        _, _, rest = unquote(self.path).partition("/resolve/")
        revision, _, name = rest.partition("/")
        if revision == "main" and hub.commits:
            revision = list(hub.commits)[-1]
        content = hub.commits.get(revision, {}).get(name)
        if content is None:
            return self.json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        digest = hashlib.sha256(content).hexdigest()
        if hub.fault == "changes files":
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.send_response(200)
        self.send_header("X-Repo-Commit", revision)
        self.send_header("ETag", f'"{digest}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def json(self, answer: dict, status: int = 200, headers: dict | None = None) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@contextlib.contextmanager
def serve() -> Iterator[Hub]:
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join(timeout=5)
