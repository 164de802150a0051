"""A Hub that takes commits, on this machine: the endpoints that the real client uses to publish and to read back."""

import base64
import contextlib
import hashlib
import json
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from tests import http_server


class Hub(http_server.Server):
    def __init__(self):
        super().__init__(Handler)
        self.commits: dict[str, dict[str, bytes]] = {}  # revision -> files
        self.large: dict[str, bytes] = {}  # sha256 -> content
        self.created: list[dict] = []
        self.settings: list[dict] = []
        self.pull_requests: list[str] = []
        self.agents: set[str] = set()
        self.fault = ""


class Handler(http_server.Handler):
    server: Hub

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
        headers = {"X-Repo-Commit": revision, "ETag": f'"{digest}"'}
        self.send(200, content if with_body else b"", headers, length=len(content))

    def json(self, answer: dict, status: int = 200, headers: dict | None = None) -> None:
        self.send(status, json.dumps(answer).encode(), {"Content-Type": "application/json", **(headers or {})})


@contextlib.contextmanager
def serve() -> Iterator[Hub]:
    with http_server.running(Hub()) as hub:
        yield hub
