"""A server on the loopback that gives files as plain hosts and as the Hugging Face hub do, and fails on demand."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RESOLVE = re.compile(
    r"/(?P<repo>(?:datasets/)?[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)"
)
FACTS = re.compile(
    r"/api/(?P<repo>datasets/[^/]+/[^/]+)/(?P<kind>revision|tree)/(?P<revision>[^/?]+)(\?.*)?"
)
# of a part of a file: from a byte on, from one to another, so many at its end
RANGE = re.compile(r"bytes=(?P<first>\d*)-(?P<last>\d*)")
BRANCHES = ("main", "refs%2Fconvert%2Fparquet")  # all of them are at a repository's commit
STATUS = {"GatedRepo": 403, "RepoNotFound": 401, "RevisionNotFound": 404, "EntryNotFound": 404}


@dataclass(frozen=True)
class Reply:
    """How one request is answered. cut: the connection is closed after so many bytes of the body."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None  # in the place of the file
    cut: int | None = None
    ranges: bool = True
    wait_s: float = 0.0
    # all that is sent, head included, in the place of the rest
    raw: Callable[[], Iterable[bytes]] | None = None


@dataclass(frozen=True)
class Seen:
    method: str
    path: str
    headers: dict[str, str]


class _Http(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up on a bad answer is what the tests are about, and nothing to print."""


class Server:
    """files: path -> content. replies: path -> the next answers to GET, heads: to HEAD; then that of `always`.
    repos: repository -> the commit of its main; its files are at /REPO/resolve/COMMIT/FILE. gone: path -> the hub's
    X-Error-Code."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"
        self.files: dict[str, bytes] = {}
        self.replies: dict[str, list[Reply]] = {}
        self.heads: dict[str, list[Reply]] = {}
        self.always: dict[str, Reply] = {}
        self.repos: dict[str, str] = {}
        self.gone: dict[str, str] = {}
        self.seen: list[Seen] = []
        self._digests: dict[str, tuple[bytes | None, str]] = {}

    def gets(self, end: str = "") -> list[Seen]:
        """The GET requests for paths with that end."""
        return [s for s in self.seen if s.method == "GET" and s.path.endswith(end)]

    def publish(self, repo: str, commit: str, file: str, content: bytes) -> None:
        """A file of a repository, whose main is now that commit."""
        self.repos[repo] = commit
        self.files[f"/{repo}/resolve/{commit}/{file}"] = content

    def reply(self, method: str, path: str) -> Reply:
        following = self.heads if method == "HEAD" else self.replies
        if following.get(path):
            return following[path].pop(0)
        return self.always.get(path, Reply())

    def hub(self, path: str) -> tuple[str, dict[str, str], str]:
        """(path of the content, the hub's headers, error code) for a path of the hub."""
        found = RESOLVE.fullmatch(path)
        if not found:
            return path, {}, ""
        repo, revision, file = found.group("repo", "revision", "file")
        if repo not in self.repos:
            return path, {}, "RepoNotFound"
        if repo in self.gone:
            return path, {}, self.gone[repo]
        commit = self.repos[repo] if revision in BRANCHES else revision
        content = f"/{repo}/resolve/{commit}/{file}"
        if content not in self.files:
            known = any(p.startswith(f"/{repo}/resolve/{commit}/") for p in self.files)
            return path, {"X-Repo-Commit": commit}, "EntryNotFound" if known else "RevisionNotFound"
        digest = self.digest(content)
        headers = {"X-Repo-Commit": commit, "X-Linked-Etag": f'"{digest}"'}
        return content, headers | {"X-Linked-Size": str(len(self.files[content]))}, ""

    def facts(self, path: str) -> tuple[bytes | None, str]:
        """(what the hub says of a dataset at a revision, error code); (None, "") for another path."""
        found = FACTS.fullmatch(path)
        if not found:
            return None, ""
        repo, kind, revision = found.group("repo", "kind", "revision")
        if repo not in self.repos:
            return b"", "RepoNotFound"
        if repo in self.gone:
            return b"", self.gone[repo]
        commit = self.repos[repo] if revision in BRANCHES else revision
        root = f"/{repo}/resolve/{commit}/"
        files = {p.removeprefix(root): f for p, f in self.files.items() if p.startswith(root)}
        if not files:
            return b"", "RevisionNotFound"
        if kind == "tree":
            rows = [
                {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
                for name, content in files.items()
            ]
            return json.dumps(rows).encode(), ""
        rows = [{"rfilename": name, "size": len(content)} for name, content in files.items()]
        facts = {"id": repo.removeprefix("datasets/"), "sha": commit, "siblings": rows}
        return json.dumps(facts | {"private": False, "tags": []}).encode(), ""

    def digest(self, path: str) -> str:
        """The sha256 of a file, which is asked for with every part of it."""
        content = self.files[path]
        if self._digests.get(path, (None, ""))[0] is not content:
            self._digests[path] = (content, hashlib.sha256(content).hexdigest())
        return self._digests[path][1]


@contextmanager
def serving() -> Iterator[Server]:
    """A server for the length of a `with`."""
    http = _Http(("127.0.0.1", 0), _Handler)
    http.state = Server(http.server_address[1])  # type: ignore[attr-defined]
    thread = threading.Thread(
        target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield http.state  # type: ignore[attr-defined]
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def closed_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _bounds(first: str, last: str, size: int) -> tuple[int, int]:
    """Where a range begins, and behind which byte it ends."""
    if not first:
        return max(size - int(last), 0), size
    return int(first), min(int(last) + 1, size) if last else size


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, *_: object) -> None:
        """Nothing: the tests read `seen`."""

    def _answer(self, *, body: bool) -> None:
        server: Server = self.server.state  # type: ignore[attr-defined]
        path = re.sub(r"^http://[^/]+", "", self.path)  # a proxy is asked for whole addresses
        server.seen.append(Seen(self.command, self.path, dict(self.headers)))
        reply = server.reply(self.command, path)
        time.sleep(reply.wait_s)
        if reply.raw:
            return self._send_raw(reply.raw())
        facts, error = server.facts(path)
        if facts is not None and not error and reply.status == 200:
            return self._send(
                reply, reply.body or facts, {"Content-Type": "application/json"}, body
            )
        if not error:
            path, extra, error = server.hub(path)
        else:
            extra = {}
        if error:
            return self._send(
                Reply(STATUS[error], {"X-Error-Code": error, "X-Error-Message": error}),
                b"",
                extra,
                body,
            )
        content = reply.body if reply.body is not None else server.files.get(path)
        if content is None or reply.status != 200:
            return self._send(reply if reply.status != 200 else Reply(404), b"no file", extra, body)
        known = reply.body is None and path in server.files
        digest = server.digest(path) if known else hashlib.sha256(content).hexdigest()
        etag = f'"{digest[:16]}"'
        span = RANGE.fullmatch(self.headers.get("Range", ""))
        if span and reply.ranges and self.headers.get("If-Range", etag) == etag:
            start, stop = _bounds(span["first"], span["last"], len(content))
            extra = extra | {"Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
            return self._send(
                Reply(206, reply.headers, cut=reply.cut),
                content[start:stop],
                extra | {"ETag": etag},
                body,
            )
        return self._send(reply, content, extra | {"ETag": etag}, body)

    def _send_raw(self, pieces: Iterable[bytes]) -> None:
        self.close_connection = True
        with suppress(OSError):  # the client has hung up
            for piece in pieces:
                self.wfile.write(piece)
                self.wfile.flush()

    def _send(self, reply: Reply, content: bytes, extra: dict[str, str], body: bool) -> None:
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(len(content)), **extra, **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content[: reply.cut])
        if body and reply.cut is not None:
            self.close_connection = True
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
