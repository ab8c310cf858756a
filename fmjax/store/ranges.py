"""Files of web servers that are read by place: a range at a time, checked, asked for again where that may help.

huggingface_hub's file system would take the whole file where a server ignores a range, and wait without end for one
that drips. Here an answer has the bytes that were asked for, of the content that was met first, or it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import requests
from urllib3.exceptions import HTTPError

from fmjax.errors import CheckpointError
from fmjax.store import addresses
from fmjax.store.http import Bearer, Broken, Session, accept, answer, chunks, watched
from fmjax.store.network import UnreachableError, answering_s, rest, within

# of an answer with a part of a file: first byte, last byte, size of the file (RFC 9110 sec. 14.4)
SPAN = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
UNKNOWN = -1
CHANGED = "the file has changed since it was first read"


@dataclass(frozen=True)
class Remote:
    """A file at an address."""

    address: str
    size: int = UNKNOWN  # bytes
    validator: str = ""  # what its host calls its content: an ETag or a date; "" where nobody looks
    commit: str = ""  # of the hub's repository that it is in, which the address names; "" elsewhere

    def __str__(self) -> str:
        return addresses.shown(self.address)


@dataclass
class _Piece:
    """The bytes of one answer, as they come."""

    start: int
    wanted: int  # bytes that it has
    content: bytearray

    @property
    def size(self) -> int:
        return len(self.content)

    @property
    def complete(self) -> bool:
        return self.size == self.wanted

    @property
    def progress(self) -> str:
        return f"{self.size:,} of {self.wanted:,} bytes"


def read(session: Session, file: Remote, start: int, length: int) -> bytes:
    """The bytes at a place of a file. session: one connection for several of them.

    Raises CheckpointError, with the reason, for what the file's host does not give, or gives of another content;
    UnreachableError where it sends next to nothing.
    """
    piece, _ = _patiently(session, file, f"bytes={start}-{start + length - 1}", length)
    if (piece.start, piece.wanted) != (start, length):
        raise CheckpointError(f"{addresses.place(file.address)} sends other bytes than asked for")
    return bytes(piece.content)


def end(session: Session, file: Remote, count: int) -> tuple[Remote, bytes]:
    """(the file with its size and what names its content, its last bytes: so many, or all that it has)."""
    # not all hosts take "the last so many": of a file whose size is known the bytes are named
    span = f"bytes=-{count}"
    if file.size > 0:
        span = f"bytes={max(file.size - count, 0)}-{file.size - 1}"
    piece, found = _patiently(session, file, span, count)
    if piece.start + piece.wanted != found.size or piece.wanted != min(count, found.size):
        raise CheckpointError(f"{addresses.place(file.address)} sends other bytes than asked for")
    return found, bytes(piece.content)


def _patiently(session: Session, file: Remote, span: str, most: int) -> tuple[_Piece, Remote]:
    """An answer, asked for again where that may help, with a pause that grows."""
    failures = 0
    while True:
        try:
            return _asked(session, file, {"Range": span}, most)
        except Broken as broken:
            failures += 1
            rest(failures, str(broken), broken.wait_s)


def _asked(
    session: Session, file: Remote, wanted: Mapping[str, str], most: int
) -> tuple[_Piece, Remote]:
    """One answer. Raises Broken where another may be right, else what is final."""
    host, piece = addresses.place(file.address), None
    session.auth = _secret(file)
    # a host that is silent is asked again, too: a run of days outlives a pause of its network
    try:
        with within(answering_s(), lambda: answer(session, file.address, wanted)) as response:
            accept(response, file.address)
            found = _found(response, file)
            piece = _begun(response, most)
            with watched(response, piece):
                _fill(response, piece)
    except TimeoutError as error:
        raise Broken(f"{host} did not finish its answer in {answering_s():.0f} s") from error
    except requests.exceptions.SSLError as error:
        raise CheckpointError(
            f"the certificate of {host} is not trusted: set REQUESTS_CA_BUNDLE to your proxy's"
        ) from error
    except UnreachableError as error:
        raise Broken(str(error)) from error
    except (requests.RequestException, HTTPError) as error:
        progress = f" after {piece.progress}" if piece else ""
        raise Broken(
            f"the connection to {host} broke{progress} ({type(error).__name__})"
        ) from error
    if not piece.complete:
        raise Broken(f"{host} ended its answer after {piece.progress}")
    return piece, found


def _secret(file: Remote) -> Bearer | None:
    """The hub's token, for the hub alone."""
    if not file.commit:
        return None
    from huggingface_hub.utils import build_hf_headers

    token = build_hf_headers().get("authorization")
    return Bearer(token) if token else None


def _found(response: requests.Response, file: Remote) -> Remote:
    """The file as an answer describes it. Raises CheckpointError where it is another than before."""
    headers, where = response.headers, addresses.shown(file.address)
    encoding = headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise CheckpointError(f"{where} comes packed ({encoding[:20]!r}), which was not asked for")
    # there are no such bytes any more (RFC 9110 sec. 15.5.17)
    if response.status_code == 416:
        raise CheckpointError(f"{where} is shorter than {file.size:,} bytes: {CHANGED}")
    span = SPAN.fullmatch(headers.get("Content-Range", ""))
    # a whole file in the place of a part may be terabytes, and none of it is read
    if response.status_code != 206 or span is None:
        host, status = addresses.place(file.address), response.status_code
        raise CheckpointError(
            f"{host} answers {status} and not with the part of {where} that was asked for: download the whole, and "
            f"leave --data.stream out"
        )
    size = int(span[3])
    if file.size not in (UNKNOWN, size):
        raise CheckpointError(f"{where} has {size:,} bytes, not {file.size:,}: {CHANGED}")
    commit = headers.get("X-Repo-Commit", file.commit)
    if file.commit and commit != file.commit:
        raise CheckpointError(f"{where} is of the commit {commit[:40]!a}: {CHANGED}")
    # of the hub a commit names the content, and the hosts that it redirects to have names of their own
    validator = "" if file.commit else headers.get("ETag") or headers.get("Last-Modified", "")
    if file.validator and validator != file.validator:
        raise CheckpointError(f"{where} has another ETag or date: {CHANGED}")
    return replace(file, size=size, validator=validator)


def _begun(response: requests.Response, most: int) -> _Piece:
    """The piece that an answer begins. Raises CheckpointError where it would be longer than what was asked for."""
    span = SPAN.fullmatch(response.headers["Content-Range"])
    first, last = (int(number) for number in span.groups()[:2]) if span else (0, -1)
    if not 0 < last - first + 1 <= most:
        host = addresses.place(response.url)
        raise CheckpointError(
            f"{host} sends {last - first + 1:,} bytes, where {most:,} were asked for"
        )
    return _Piece(first, last - first + 1, bytearray())


def _fill(response: requests.Response, piece: _Piece) -> None:
    for chunk in chunks(response):
        piece.content += chunk
        if piece.size > piece.wanted:
            raise CheckpointError(
                f"{addresses.place(response.url)} sends more than the {piece.wanted:,} bytes that it announced"
            )
