"""Hostile answers of what claims to be the Hugging Face hub."""

from __future__ import annotations

import hashlib

from tests.security.servers import (
    BOMB,
    COMMIT,
    CONTENT,
    FILE,
    HALF,
    JSON,
    LATER,
    OTHER,
    Case,
    Setup,
    forever,
)
from tests.support.misbehaving_server import Reply, Server

# out of blobs/, the repository, hub/, the client's folder and the one that is allowed
UP = "../" * 5
# git's name
SHA1 = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT, usedforsecurity=False).hexdigest()


def hub(
    *, head: dict[str, str] | None = None, get: Reply | None = None, status: int = 200
) -> Setup:
    """A repository whose HEAD has these headers, and whose GET is answered so."""

    def setup(server: Server, repo: str) -> None:
        server.publish(repo, COMMIT, FILE, CONTENT)
        server.always[f"/{repo}/resolve/main/{FILE}"] = Reply(status, head or {})
        server.always[f"/{repo}/resolve/{COMMIT}/{FILE}"] = get or Reply()

    return setup


def second_head(reply: Reply) -> Setup:
    """The first HEAD is right, all later ones are not."""

    def setup(server: Server, repo: str) -> None:
        hub()(server, repo)
        for revision in ("main", COMMIT):
            path = f"/{repo}/resolve/{revision}/{FILE}"
            server.always[path] = reply
            server.replies[path] = [Reply()] * 9
        server.heads[f"/{repo}/resolve/main/{FILE}"] = [Reply()]

    return setup


def other_commit(server: Server, repo: str) -> None:
    server.publish(repo, LATER, FILE, CONTENT)
    server.always[f"/{repo}/resolve/{LATER}/{FILE}"] = Reply(headers={"X-Repo-Commit": COMMIT})


def circle(server: Server, repo: str) -> None:
    server.publish(repo, COMMIT, FILE, CONTENT)
    path = f"/{repo}/resolve/main/{FILE}"
    server.always[path] = Reply(302, {"Location": path})


def etag(value: str, **more: str) -> Setup:
    return hub(
        head={"X-Linked-Etag": value} | {key.replace("_", "-"): text for key, text in more.items()}
    )


def commit(value: str) -> Setup:
    return hub(head={"X-Repo-Commit": value})


def named(content: bytes) -> dict[str, str]:
    return {
        "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
        "X-Linked-Size": str(len(content)),
    }


NO_ETAG, NO_COMMIT = "with the ETag '.*', not 40 or 64 hex", "with the commit '.*', not 40 hex"
EVIL = Reply(headers={"X-Linked-Etag": f'"{UP}pwned"', "X-Repo-Commit": f"{UP}pwned"})
GONE = {"X-Repo-Commit": f"{UP}pwned", "X-Error-Code": "EntryNotFound"}
HUB: dict[str, Case] = {
    "etag-leads-out": Case(etag(f'"{UP}pwned"'), NO_ETAG),
    "etag-is-absolute": Case(etag('"/nowhere/pwned"'), NO_ETAG),
    "etag-is-weak-and-leads-out": Case(etag(f'W/"{UP}pwned"'), NO_ETAG),
    "etag-is-two-dots": Case(etag('".."'), NO_ETAG),
    "etag-is-a-windows-path": Case(etag('"C:\\\\Windows\\\\pwned"'), NO_ETAG),
    "etag-of-63-digits": Case(etag('"' + "a" * 63 + '"'), NO_ETAG),
    "etag-of-other-digits": Case(etag('"' + "\xb2" * 64 + '"'), NO_ETAG),
    "etag-in-capitals": Case(etag('"' + "A" * 64 + '"'), NO_ETAG),
    "etag-of-a-megabyte": Case(etag('"' + "../" * 20000 + '"'), NO_ETAG),
    "etag-with-escapes": Case(etag('"\x1b]0;pwned\x07"'), NO_ETAG),
    "commit-leads-out": Case(commit(f"{UP}pwned"), NO_COMMIT),
    "commit-is-a-name": Case(commit("main"), NO_COMMIT),
    "commit-of-39-digits": Case(commit("a" * 39), NO_COMMIT),
    "commit-is-empty": Case(commit(""), NO_COMMIT),
    "commit-is-not-the-pinned": Case(other_commit, f"not {LATER}", source={"revision": LATER}),
    "gone-with-a-commit-that-leads-out": Case(
        hub(head=GONE, status=404), "has no file model.safetensors"
    ),
    "second-head-leads-out": Case(second_head(EVIL)),
    "second-head-is-gone-and-leads-out": Case(second_head(Reply(404, GONE))),
    "head-drips": Case(
        lambda server, repo: server.always.update(
            {
                f"/{repo}/resolve/main/{FILE}": forever(
                    b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", rest_s=0.2
                )
            }
        ),
        "did not answer",
    ),
    "head-in-a-circle": Case(circle, "TooManyRedirects"),
    "reason-with-escapes": Case(
        hub(head={"X-Error-Message": "\x1b[2J\x07"}, status=418), "answered 418"
    ),
    "size-that-is-not-sent": Case(
        hub(head={"X-Linked-Size": "999"}), "bytes for .*, which has 999"
    ),
    "size-of-a-terabyte": Case(
        hub(
            head={"X-Linked-Size": str(10**12)},
            get=forever(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n", b""),
        ),
        "sends 1,000,000,000,000 bytes",
    ),
    "size-is-negative": Case(hub(head={"X-Linked-Size": "-1"})),
    "gzip-bomb": Case(
        hub(get=Reply(headers={"Content-Encoding": "gzip"}, body=BOMB)), r"packed \('gzip'\)"
    ),
    "endless-chunks": Case(
        hub(
            get=forever(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                b"10000\r\n" + bytes(HALF) + b"\r\n",
            )
        ),
        "sends more than",
    ),
    "redirect-to-a-file": Case(
        hub(get=Reply(302, {"Location": "file:///etc/passwd"})), "which is no web address"
    ),
    "one-bit-under-gits-name": Case(
        hub(head={"X-Linked-Etag": f'"{SHA1}"'}, get=Reply(body=OTHER)),
        f"its sha1 is not the {SHA1}",
    ),
    "json-under-its-own-name": Case(
        hub(
            head=named(JSON), get=Reply(body=JSON, headers={"Content-Type": "binary/octet-stream"})
        ),
        "is JSON text",
    ),
    "right-under-gits-name": Case(hub(head={"X-Linked-Etag": f'"{SHA1}"'})),
}
