"""A server on this machine that speaks the Hub's protocol: its API, its files with ranges, its store, its refusals."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

LARGE_BYTES = 1000
"""Files from this size on lie in the store, as those that Git LFS keeps."""


@dataclass
class Repo:
    """A model or a data set on the server."""

    files: dict[str, bytes]
    gated: bool = False
    private: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    """Branches beside main, and their commits."""
    tags: tuple[str, ...] = ()
    history: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """The files at earlier commits."""
    messages: list[str] = field(default_factory=list)
    """What the commits said that came in, the newest last."""

    @property
    def commit(self) -> str:
        text = json.dumps({path: git_blob(content) for path, content in sorted(self.files.items())})
        return hashlib.sha1(text.encode()).hexdigest()


@dataclass
class Fault:
    """What goes wrong once with a request for a path."""

    kind: Literal["status", "drop", "stall", "garble", "no range"]
    status: int = 500
    after_bytes: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class Seen:
    """A request that came in."""

    method: str
    path: str
    headers: dict[str, str]
    store: bool


def git_blob(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


class HubServer:
    """Serves repositories from memory on a port of its own, and large files from another, as the Hub's store does."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        """By `models/owner/name` or `datasets/owner/name`."""
        self.tokens: set[str] = set()
        """Tokens of accounts that have accepted all terms."""
        self.known_tokens: set[str] = set()
        """Tokens of other accounts."""
        self.faults: dict[str, list[Fault]] = {}
        """What happens to the next GETs of a path in a repository, or of `api`."""
        self.renamed: dict[str, str] = {}
        """Repositories that have another name now, as the Hub remembers them."""
        self.writers: set[str] = set()
        """Tokens that may write."""
        self.page_size = 1000
        self.seen: list[Seen] = []
        self.released = threading.Event()
        """Ends stalled answers."""
        self.stalled = threading.Event()
        """Set as soon as an answer stalls."""
        self.before: Callable[[str], None] = lambda path: None
        """Called with the path in a repository of every GET of a file."""
        self._servers = [self._serve(store) for store in (False, True)]
        ports = [each.server_address[1] for each in self._servers]
        self.url, self.store_url = f"http://127.0.0.1:{ports[0]}", f"http://localhost:{ports[1]}"

    def _serve(self, store: bool) -> ThreadingHTTPServer:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                Answer(hub, self, store).give()

            do_HEAD = do_GET

            def do_POST(self) -> None:
                Answer(hub, self, store).take()

            def log_message(self, *arguments: object) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *arguments: object) -> None:
                """Pass over callers that hang up, as they do when they are cancelled."""

        server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server

    def close(self) -> None:
        self.released.set()
        for each in self._servers:
            each.shutdown()
            each.server_close()

    def model(self, name: str, files: dict[str, bytes], **more: bool) -> Repo:
        return self.repos.setdefault(f"models/{name}", Repo(files, **more))

    def data(self, name: str, files: dict[str, bytes], **more: bool) -> Repo:
        return self.repos.setdefault(f"datasets/{name}", Repo(files, **more))

    def rename(self, before: str, after: str) -> None:
        """Give a model another name; its old one leads on to it."""
        self.repos[f"models/{after}"] = self.repos.pop(f"models/{before}")
        self.renamed[f"models/{before}"] = f"models/{after}"

    def gets(self, path: str) -> list[Seen]:
        """Return the requests for a file's content, in the order in which they came."""
        wanted = [each for each in self.seen if each.method == "GET" and each.path.endswith(f"/{path}")]
        return [each for each in wanted if each.store] or wanted


class Answer:
    """One answer of the server."""

    def __init__(self, hub: HubServer, handler: BaseHTTPRequestHandler, store: bool) -> None:
        self.hub, self.handler, self.store = hub, handler, store
        self.token = handler.headers.get("authorization", "").removeprefix("Bearer ")
        parts = urlsplit(handler.path)
        self.path, self.query = parts.path, parse_qs(parts.query)
        headers = {name.lower(): value for name, value in handler.headers.items()}
        hub.seen.append(Seen(handler.command, unquote(self.path), headers, store))

    def give(self) -> None:
        words = self.path.strip("/").split("/")
        if self._led_on(words):
            return
        if words == ["api", "models"]:
            self._give_list()
        elif words[0] == "api" and words[1] in ("models", "datasets"):
            self._give_api(words)
        elif "resolve" in words:
            self._give_file(words)
        else:
            self._refuse(404, "")

    def _led_on(self, words: list[str]) -> bool:
        """Lead on from a repository's old name to its new one, and tell whether it was asked for by the old one."""
        named = words[1:4] if words[0] == "api" else ["models", *words[:2]]
        after = self.hub.renamed.get("/".join(named))
        if after is None:
            return False
        before = "/".join(named).removeprefix("models/")
        place = self.handler.path.replace(before, after.removeprefix("models/"), 1)
        self._send(307, b"", {"Location": f"{self.hub.url}{place}"})
        return True

    def take(self) -> None:
        """Answer a POST: a new repository, or a commit on top of a known one."""
        body = self.handler.rfile.read(int(self.handler.headers.get("content-length", 0)))
        words = self.path.strip("/").split("/")
        if self.path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif self.token not in self.hub.writers:
            self._refuse(403 if self.token else 401, "", "You need a token that may write.")
        elif self._fault("post"):
            return
        elif words == ["api", "repos", "create"]:
            self._create(json.loads(body))
        elif len(words) == 6 and words[4] == "preupload":
            files = json.loads(body)["files"]
            self._json(
                {"files": [{"path": each["path"], "uploadMode": "regular", "shouldIgnore": False} for each in files]}
            )
        elif len(words) == 6 and words[4] == "commit":
            self._commit_files(f"{words[1]}/{words[2]}/{words[3]}", [json.loads(line) for line in body.splitlines()])
        else:
            self._refuse(404, "")

    def _create(self, asked: dict[str, str]) -> None:
        name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        url = {"url": f"{self.hub.url}/{name}", "name": name}
        if f"models/{name}" in self.hub.repos:
            self._send(409, json.dumps(url | {"error": "You already created this repository"}).encode(), {})
            return
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.hub.repos[f"models/{name}"] = Repo({".gitattributes": b""}, private=private)
        self._json(url)

    def _commit_files(self, key: str, lines: list[dict[str, Any]]) -> None:
        repo = self.hub.repos.get(key)
        if repo is None:
            self._refuse(404, "RepoNotFound")
            return
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit") not in (None, repo.commit):
            self._refuse(412, "", "A commit has happened since. Please refresh and try again.")
            return
        repo.history[repo.commit] = dict(repo.files)
        for line in lines:
            if line["key"] == "file":
                repo.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del repo.files[line["value"]["path"]]
        repo.messages.append(header["summary"])
        if (front := repo.files.get("README.md", b"").decode().split("---")) and len(front) > 2:
            repo.tags = tuple(yaml.safe_load(front[1]).get("tags", ()))
        name = key.removeprefix("models/")
        self._json(
            {"success": True, "commitOid": repo.commit, "commitUrl": f"{self.hub.url}/{name}/commit/{repo.commit}"}
        )

    def _give_list(self) -> None:
        """List the models with all the tags that are asked for, and the words in their names."""
        wanted, word = self.query.get("filter", []), self.query.get("search", [""])[0]
        found = [
            {"id": key.removeprefix("models/"), "sha": repo.commit, "tags": list(repo.tags), "downloads": 1}
            for key, repo in self.hub.repos.items()
            if key.startswith("models/") and set(wanted) <= set(repo.tags) and word in key and not repo.private
        ]
        self._json(found)

    def _repo(self, key: str) -> Repo | None:
        """Return the repository where the caller may know of it."""
        if self.token and self.token not in self.hub.tokens | self.hub.known_tokens | self.hub.writers:
            self._refuse(401, "", "Invalid credentials in Authorization header")
            return None
        repo = self.hub.repos.get(key)
        if repo is None or (repo.private and self.token not in self.hub.tokens | self.hub.writers):
            self._refuse(404 if self.token else 401, "RepoNotFound")
            return None
        return repo

    def _commit(self, repo: Repo, revision: str) -> str | None:
        named = unquote(revision)
        commit = (
            repo.commit
            if named == "main"
            else named
            if named in (repo.commit, *repo.history)
            else repo.branches.get(named)
        )
        if commit is None:
            self._refuse(404, "RevisionNotFound")
        return commit

    def _give_api(self, words: list[str]) -> None:
        key, name = f"{words[1]}/{words[2]}/{words[3]}", f"{words[2]}/{words[3]}"
        if self._fault("api"):
            return
        repo = self._repo(key)
        commit = self._commit(repo, words[5] if len(words) > 5 else "main") if repo else None
        if repo is None or commit is None:
            return
        if len(words) == 4 or words[4] == "revision":
            siblings = [{"rfilename": path} for path in sorted(repo.history.get(commit, repo.files))]
            gated = "manual" if repo.gated else False
            self._json({"id": name, "sha": commit, "gated": gated, "siblings": siblings, "tags": list(repo.tags)})
            return
        listed = [self._listed(path, content) for path, content in sorted(repo.files.items())]
        start = int(self.query.get("cursor", ["0"])[0])
        end = start + self.hub.page_size
        onward = f'<{self.hub.url}{self.path}?cursor={end}>; rel="next"' if end < len(listed) else None
        self._json(listed[start:end], {"Link": onward} if onward else {})

    def _listed(self, path: str, content: bytes) -> dict[str, object]:
        entry: dict[str, object] = {"type": "file", "path": path, "size": len(content), "oid": git_blob(content)}
        if len(content) >= LARGE_BYTES:
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
        return entry

    def _give_file(self, words: list[str]) -> None:
        place = words.index("resolve")
        owner = words[:place] if words[0] == "datasets" else ["models", *words[:place]]
        path = unquote("/".join(words[place + 2 :]))
        if self.store:
            stored = self.hub.repos["/".join(owner)]
            return self._content(path, stored.history.get(words[place + 1], stored.files)[path])
        repo = self._repo("/".join(owner))
        commit = self._commit(repo, words[place + 1]) if repo else None
        if repo is None or commit is None:
            return None
        if repo.gated and self.token not in self.hub.tokens:
            return self._refuse(403 if self.token else 401, "GatedRepo")
        files = repo.history.get(commit, repo.files)
        if path not in files:
            return self._refuse(404, "EntryNotFound")
        content = files[path]
        headers = {"X-Repo-Commit": commit}
        if len(content) >= LARGE_BYTES:
            digest = hashlib.sha256(content).hexdigest()
            headers |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{digest}"'}
            headers["Location"] = f"{self.hub.store_url}{self.handler.path}?signature=s3cr3t"
            return self._send(302, b"", headers)
        return self._content(path, content, headers | {"ETag": f'"{git_blob(content)}"'})

    def _content(self, path: str, content: bytes, headers: dict[str, str] | None = None) -> None:
        headers = dict(headers or {})
        fault: Fault | None = None
        if self.handler.command == "GET":
            self.hub.before(path)
            waiting = self.hub.faults.get(path, [])
            fault = waiting.pop(0) if waiting else None
        if fault is not None and fault.kind == "status":
            return self._send(fault.status, fault.body, fault.headers)
        asked = self.handler.headers.get("range")
        status, sent = 200, content
        if asked and (fault is None or fault.kind != "no range"):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            end = min(int(last) if last else len(content) - 1, len(content) - 1)
            status, sent = 206, content[int(first) : end + 1]
            headers["Content-Range"] = f"bytes {first}-{end}/{len(content)}"
        if fault is not None and fault.kind == "garble":
            sent = bytes(each ^ 1 for each in sent)
        if fault is not None and fault.kind in ("drop", "stall"):
            return self._break(fault, status, sent, headers)
        return self._send(status, sent, headers)

    def _break(self, fault: Fault, status: int, sent: bytes, headers: dict[str, str]) -> None:
        """Send a part, then end the line or let it be silent."""
        self._head(status, len(sent), headers)
        self.handler.wfile.write(sent[: fault.after_bytes])
        self.handler.wfile.flush()
        if fault.kind == "stall":
            self.hub.stalled.set()
            self.hub.released.wait(30)
        self.handler.close_connection = True

    def _fault(self, key: str) -> bool:
        """Answer with what is to go wrong, and tell whether anything was."""
        waiting = self.hub.faults.get(key, [])
        if not waiting:
            return False
        fault = waiting.pop(0)
        self._send(fault.status, fault.body, fault.headers)
        return True

    def _refuse(self, status: int, code: str, said: str = "Refused.") -> None:
        self._send(status, json.dumps({"error": said}).encode(), {"X-Error-Code": code, "X-Error-Message": said})

    def _json(self, values: object, headers: dict[str, str] | None = None) -> None:
        self._send(200, json.dumps(values).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.handler.send_response(status)
        for name, value in headers.items():
            self.handler.send_header(name, value)
        self.handler.send_header("Content-Length", str(length))
        self.handler.end_headers()

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self._head(status, len(body), headers)
        if self.handler.command != "HEAD":
            self.handler.wfile.write(body)
