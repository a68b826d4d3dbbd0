"""A small hub on this machine, with the part of the interface that uploading a student and
downloading a model need.

Repositories can be created, files arrive by git LFS or in the commit, and commits are atomic.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

TOKEN = "hf_token-of-the-test"
SIGNATURE = "signature-of-the-test"


@dataclass
class Repository:
    """The contents of a repository, after the last commit, and of its named revisions."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: int = 0
    revisions: dict[str, str] = field(default_factory=dict)
    trees: dict[str, dict[str, bytes]] = field(default_factory=dict)


class Hub(ThreadingHTTPServer):
    """The hub. `fails` is a part of a path whose requests get `status`, or no answer at all."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.uploads = 0
        self.fails = ""
        self.status: int | None = None

    @property
    def url(self) -> str:
        """The url it listens on."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def publish(self, name: str, revision: str, files: dict[str, bytes]) -> str:
        """Give a repository files under a revision's name, and return their commit."""
        repository = self.repositories.setdefault(name, Repository(private=False))
        commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        repository.revisions[revision] = commit
        repository.trees[commit] = files
        return commit

    def handle_error(self, *_: Any) -> None:
        """Ignore clients that have disconnected."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self._body()
        if self._failed() or self._unknown():
            return
        path = self.path.partition("?")[0]
        if path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            head = json.loads(body)["content"].split("---\n")[1]
            assert yaml.safe_load(head)["model-index"]
            self._answer(200, {"errors": [], "warnings": []})
        elif found := re.fullmatch(r"/api/models/(.+)/preupload/main", path):
            files = json.loads(body)["files"]
            modes = [
                {
                    "path": each["path"],
                    "uploadMode": "lfs" if each["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                    "oid": self._oid(found.group(1), each["path"]),
                }
                for each in files
            ]
            self._answer(200, {"files": modes})
        elif re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", path):
            self._answer(200, {"transfer": "basic", "objects": self._wanted(json.loads(body))})
        elif found := re.fullmatch(r"/api/models/(.+)/commit/main", path):
            self._commit(found.group(1), [json.loads(line) for line in body.splitlines()])
        else:
            self._answer(404, {"error": path})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self._failed() or self._unknown() or self._download():
            return
        found = re.fullmatch(r"/api/models/([^?]+?)(/revision/main)?", self.path)
        assert found, self.path
        name = found.group(1)
        repository = self.server.repositories.get(name)
        if repository is None:
            self._answer(404, {"error": "Repository not found"})
            return
        about = {"id": name, "private": repository.private, "sha": str(repository.commits)}
        self._answer(200, about)

    def _download(self) -> bool:
        """Answer a request for a revision's commit, its list of files or a file of it."""
        path = unquote(self.path.partition("?")[0])
        found = re.fullmatch(r"(?:/api/models)?/([^/]+/[^/]+)/(revision|tree|resolve)/(.+)", path)
        repository = found and self.server.repositories.get(found[1])
        if not found or not repository or not repository.trees:
            return False
        kind, rest = found[2], found[3]
        if kind == "revision":
            commit = repository.revisions.get(rest, rest)
            known = commit in repository.trees
            about = {"id": found[1], "sha": commit} if known else {"error": "no such revision"}
            self._answer(200 if known else 404, about, "" if known else "RevisionNotFound")
        elif kind == "tree":
            self._answer(200, [_entry(*item) for item in repository.trees[rest].items()])
        else:
            commit, _, name = rest.partition("/")
            content = repository.trees[commit][name]
            self._send(200, content, {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": commit})
        return True

    def do_PUT(self) -> None:
        body = self._body()
        if self._failed():
            return
        oid, _, query = self.path.removeprefix("/lfs/").partition("?")
        assert query == f"signature={SIGNATURE}"
        assert "Authorization" not in self.headers
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.objects[oid] = body
        self.server.uploads += 1
        self._answer(200, {})

    def _create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization'] or 'owner'}/{wanted['name']}"
        known = name in self.server.repositories
        private = wanted.get("visibility") == "private" or wanted.get("private") is True
        self.server.repositories.setdefault(name, Repository(private))
        self._answer(409 if known else 200, {"url": f"{self.server.url}/{name}"})

    def _wanted(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        found = []
        for each in batch["objects"]:
            if each["oid"] not in self.server.objects:
                href = f"{self.server.url}/lfs/{each['oid']}?signature={SIGNATURE}"
                each = each | {"actions": {"upload": {"href": href}}}
            found.append(each)
        return found

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        repository, files = self.server.repositories[name], {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
        repository.files |= files
        repository.commits += 1
        url = f"{self.server.url}/{name}/commit/{repository.commits}"
        self._answer(200, {"commitUrl": url, "commitOid": str(repository.commits)})

    def _oid(self, name: str, path: str) -> str | None:
        content = self.server.repositories[name].files.get(path)
        if content is None:
            return None
        if path.endswith(".safetensors"):
            return hashlib.sha256(content).hexdigest()
        return _oid(content)

    def _failed(self) -> bool:
        if not self.server.fails or self.server.fails not in self.path:
            return False
        if self.server.status:
            self._answer(self.server.status, {"error": "no"})
        else:
            self.close_connection = True
            self.connection.close()
        return True

    def _unknown(self) -> bool:
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if not known:
            self._answer(401, {"error": "Invalid credentials in Authorization header"})
        return not known

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers["Content-Length"]))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, status: int, values: Any, code: str = "") -> None:
        named = {"X-Error-Code": code} if code else {}
        content = json.dumps(values).encode()
        self._send(status, content, {"Content-Type": "application/json"} | named)

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _oid(content: bytes) -> str:
    """Return git's name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _entry(path: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(content), "oid": _oid(content)}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[Hub]:
    """Yield a hub whose token and address are in the environment."""
    server = Hub()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    # The user's own settings must not matter. Xet is a separate service: without it,
    # huggingface_hub uploads by LFS.
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
