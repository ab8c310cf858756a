"""Hostile answers of servers: name -> what is asked, how it is answered, and what must come of it."""

from __future__ import annotations

import gzip
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from safetensors.numpy import save

from tests.support.misbehaving_server import Reply, Server

NUMBERS = b"".join(hashlib.sha256(str(i).encode()).digest() for i in range(6000))
CONTENT = save({"w": np.frombuffer(NUMBERS, np.uint8)})
OTHER = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])  # one bit
HALF = 1 << 16
FILE = "model.safetensors"
COMMIT, LATER = "a" * 40, "b" * 40
PUBLISHED = {"sha256": hashlib.sha256(CONTENT).hexdigest()}
OK, CHUNKED = b"HTTP/1.1 200 OK\r\n", b"Transfer-Encoding: chunked\r\n\r\n"
LONG = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(CONTENT)
LONGEST_S = 8.0  # that a server goes on with what never ends
PICKLE = b"\x80\x04cos\nsystem\n"

Setup = Callable[[Server, str], None]


@dataclass(frozen=True)
class Case:
    """expected: of the error; "" where the right file must come. name: of the file. source: more of its row. keeps: a
    part stays, to go on from. resume: a part of a first call is there, "flip": with one bit changed."""

    setup: Setup
    expected: str = ""
    name: str = FILE
    source: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    keeps: bool = False
    resume: str = ""


def answers(*replies: Reply) -> Setup:
    """These answers to GET, then the last one for ever."""

    def setup(server: Server, path: str) -> None:
        server.files[path] = CONTENT
        server.replies[path] = list(replies[:-1])
        server.always[path] = replies[-1]

    return setup


def raw(*pieces: bytes) -> Reply:
    return Reply(raw=lambda: iter(pieces))


def forever(head: bytes, piece: bytes, *, rest_s: float = 0.0) -> Reply:
    """The head, then the same piece again and again."""

    def send() -> Iterator[bytes]:
        yield head
        start = time.monotonic()
        while time.monotonic() - start < LONGEST_S:
            yield piece
            time.sleep(rest_s)

    return Reply(raw=send)


def body(content: bytes, **headers: str) -> Setup:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return answers(
        Reply(body=content, headers={"Content-Type": "application/octet-stream", **named})
    )


def resumed(headers: dict[str, str], content: bytes = OTHER) -> Setup:
    """The first half, then a 206 with the second half of something else, then the whole file."""
    span = {"Content-Range": f"bytes {HALF}-{len(content) - 1}/{len(content)}"}
    part = {"Content-Length": str(len(content) - HALF), **span, **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in part.items())
    second = raw(b"HTTP/1.1 206 Partial Content\r\n" + head.encode() + b"\r\n" + content[HALF:])
    return answers(Reply(cut=HALF), second, Reply())


def redirect(target: str) -> Setup:
    return answers(Reply(302, {"Location": target}))


def circle(server: Server, path: str) -> None:
    server.always[path] = Reply(302, {"Location": path})


def packed(content: bytes, times: int) -> bytes:
    for _ in range(times):
        content = gzip.compress(content, 9)
    return content


def chunked(content: bytes, more: bytes = b"") -> Reply:
    return raw(OK + more + CHUNKED, b"%x\r\n" % len(content) + content + b"\r\n0\r\n\r\n")


BOMB = packed(bytes(64 << 20), 1)
TAG = hashlib.sha256(CONTENT).hexdigest()[:16]  # as the server's own
JSON = json.dumps({"error": "quota exceeded", "detail": "x" * 200}).encode()
PLAIN: dict[str, Case] = {
    "gzip-bomb": Case(
        body(BOMB, Content_Encoding="gzip"), r"sends .* packed \('gzip'\), which was not asked for"
    ),
    "gzip-twice": Case(
        body(packed(BOMB, 1), Content_Encoding="gzip, gzip"), r"packed \('gzip, gzip'\)"
    ),
    "deflate": Case(body(CONTENT, Content_Encoding="deflate"), r"packed \('deflate'\)"),
    "unknown-encoding": Case(
        body(CONTENT, Content_Encoding="\x1b[2J-7z"), r"packed \('\\x1b\[2j-7z'\)"
    ),
    "endless-chunks": Case(
        answers(forever(OK + CHUNKED, b"10000\r\n" + bytes(HALF) + b"\r\n")),
        "sends more than the 1,048,576 bytes that",
    ),
    "chunks-past-the-length": Case(
        answers(chunked(CONTENT + bytes(HALF), b"Content-Length: %d\r\n" % len(CONTENT))),
        "more than the 192,072 bytes",
    ),
    "one-endless-chunk-line": Case(answers(forever(OK + CHUNKED, b"1" * HALF)), "broke after 0 of"),
    "negative-chunk": Case(
        answers(raw(OK + CHUNKED, b"-5\r\n" + CONTENT)), "broke after|does not say|ended"
    ),
    "ten-terabytes": Case(
        answers(raw(OK + b"Content-Length: %d\r\n\r\n" % 10**13)),
        "which has 1,048,576 at most",
    ),
    "length-is-a-superscript": Case(
        answers(raw(OK + b"Content-Length: \xb2\r\n\r\n")), "does not say how long"
    ),
    "length-of-5000-digits": Case(
        answers(raw(OK + b"Content-Length: %s\r\n\r\n" % (b"9" * 5000))), "does not say how"
    ),
    "two-lengths": Case(
        answers(raw(OK + b"Content-Length: 5\r\nContent-Length: 7\r\n\r\nxxxxx")), "127.0.0.1"
    ),
    "a-thousand-headers": Case(
        answers(raw(OK + b"X: y\r\n" * 1000 + b"\r\n")), "127.0.0.1 broke after"
    ),
    "body-drips": Case(
        answers(forever(LONG + CONTENT[:100], b"x", rest_s=0.2)),
        "sent less than 65,536 bytes in 1 s",
        keeps=True,
    ),
    "chunk-line-drips": Case(
        answers(forever(OK + CHUNKED, b"0", rest_s=0.2)), "sent less than 65,536 bytes in 1 s"
    ),
    "head-drips": Case(
        answers(forever(OK, b"X: y\r\n", rest_s=0.2)), "did not finish its answer in 1 s"
    ),
    "status-drips": Case(
        answers(forever(b"HTTP/1.1 200 ", b"O", rest_s=0.2)), "did not finish its answer in 1 s"
    ),
    "resume-with-another-etag": Case(resumed({"ETag": '"other"'})),
    "resume-without-etag": Case(resumed({})),
    "resume-with-a-weak-etag": Case(resumed({"ETag": f'W/"{TAG}"'})),
    "resume-with-another-length": Case(resumed({"ETag": f'"{TAG}"'}, OTHER + bytes(100))),
    "resume-with-5000-digits": Case(
        resumed({"ETag": f'"{TAG}"', "Content-Range": f"bytes {HALF}-{'9' * 5000}/*"})
    ),
    "flipped-bit-in-the-part": Case(
        answers(Reply(cut=HALF), *[Reply(503)] * 6, Reply()), resume="flip"
    ),
    "json-as-weights": Case(body(JSON), "is JSON text"),
    "json-said": Case(
        body(JSON, Content_Type="Application/JSON; charset=utf-8"), "answered with JSON text, not"
    ),
    "page-as-weights": Case(body(b"\r\n<!DOCTYPE html><p>log in"), "is a web page"),
    "twelve-bytes": Case(body(b"hello world!"), "is not a whole safetensors file"),
    "no-bytes": Case(body(b""), "ended the file after 0 of 0 bytes"),
    "git-lfs-pointer": Case(
        body(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "is a git-lfs"
    ),
    "header-longer-than-the-file": Case(body(CONTENT[:2000]), "is not a whole safetensors file"),
    "half-a-zip": Case(body(b"PK\3\4" + bytes(3000)), "nothing was kept", name="model.pt"),
    "a-pickle": Case(body(PICKLE), "is a pickle, but not one of torch's", name="model.pth"),
    "json-instead-of-the-published": Case(body(JSON), "is not the published", source=PUBLISHED),
    "redirect-to-a-file": Case(
        redirect("file:///etc/passwd"), "redirects to 'file:///etc/passwd', which is no web"
    ),
    "redirect-to-ftp": Case(
        redirect("ftp://127.0.0.1/x"), "redirects to 'ftp://127.0.0.1/x', which is no web address"
    ),
    "redirect-to-data": Case(redirect("data:text/plain,x"), "which is no web address"),
    "redirect-to-a-broken-address": Case(redirect("http://[::1"), "which is no web address"),
    "redirect-to-port-99999": Case(redirect("http://127.0.0.1:99999/x"), "which is no web address"),
    "redirect-with-an-endless-body": Case(
        answers(
            forever(
                b"HTTP/1.1 302 Found\r\nLocation: /next\r\n" + CHUNKED,
                b"10000\r\n" + bytes(HALF) + b"\r\n",
            )
        ),
        "answered 404",
    ),
    "redirect-with-a-bomb": Case(
        answers(Reply(302, {"Location": "/next", "Content-Encoding": "gzip"}, body=BOMB)),
        "answered 404",
    ),
    "redirect-in-a-circle": Case(circle, "redirected in a circle"),
    "reason-with-escapes": Case(
        answers(raw(b"HTTP/1.1 418 \x1b]0;x\x07\x1b[2J\r\n\r\n")), "answered 418 for http"
    ),
    "rest-of-a-superscript": Case(
        answers(Reply(429, {"Retry-After": "\xb2"})), r"\(too many requests\)"
    ),
    "rest-of-400-digits": Case(answers(Reply(503, {"Retry-After": "9" * 400})), "asks to wait"),
    "rest-until-the-year-99999": Case(
        answers(Reply(503, {"Retry-After": "Mon, 01 Jan 99999 0:0:0 GMT"})), "503"
    ),
}
