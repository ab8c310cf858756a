"""One address -> one file: resumed, retried, bounded in bytes and time, and moved into place when it is whole."""

from __future__ import annotations

import errno
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import requests
from requests.auth import AuthBase
from requests.utils import get_auth_from_url
from urllib3.exceptions import HTTPError, ProtocolError

from fmjax.console import console
from fmjax.errors import CheckpointError
from fmjax.store import addresses
from fmjax.store.network import (
    AGAIN,
    MEANINGS,
    UnreachableError,
    answering_s,
    contact,
    rest,
    retry_after,
    timeout_s,
    within,
)
from fmjax.store.part import Part

PROGRESS = 6.0  # times the limit for an answer: for every CHUNK of a body
ENOUGH = 1 << 20  # bytes after which the failures are counted from the beginning
CHUNK = 1 << 16  # what a broken connection may lose
REDIRECTS = 10
SILENT = (requests.exceptions.Timeout, requests.exceptions.ProxyError)
GATES = {  # a part of the address -> what gives access
    "dinov3": "request your link at https://ai.meta.com/resources/models-and-libraries/dinov3-downloads/ and fetch the "
    "file with it",
}
PAGES = {  # kinds of content that are no weights
    "text/html": "a web page",
    "application/json": "JSON text",
    "application/problem+json": "JSON text",
    "application/xml": "XML text",
    "text/xml": "XML text",
}


@runtime_checkable
class Growing(Protocol):
    """What the bytes of an answer are added to."""

    @property
    def size(self) -> int: ...  # bytes so far
    @property
    def complete(self) -> bool: ...
    @property
    def progress(self) -> str: ...


class Broken(Exception):
    """One try that failed and may be repeated, after so many seconds where the server says so."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Session(requests.Session):
    """Follows no redirect: requests would read the body of each, however long or inflated, and try any scheme."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


class _Refused(Exception):
    """An answer that can never become the file: nothing of it is kept."""


@dataclass(frozen=True)
class Copy:
    """A file on this machine, and what its host says of it: the commit, and the name of the content, which is its
    sha256, or git's sha1 of a small file."""

    path: Path
    revision: str | None = None
    etag: str | None = None


@dataclass(frozen=True)
class Bounds:
    """What a file can have: at most `most` bytes, and `exactly` so many where another source says so."""

    most: int
    exactly: int | None = None


@dataclass(frozen=True)
class Bearer(AuthBase):
    """Sends the value of an Authorization header."""

    value: str

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = self.value
        return request


def download(address: str, path: Path, *, bounds: Bounds, secret: AuthBase | None = None) -> None:
    """Fetches an address; `path` is there when the whole file is. A later call goes on from what PATH.part has.

    secret: sent to the host of the address and to no other. Raises CheckpointError with the reason; UnreachableError
    where the host gives no answer, within ten seconds, or sends next to nothing.
    """
    contact(address)
    # failures in a row: a try that brought enough begins a new row
    failures, kept = 0, 0
    try:
        part = Part(path)
        with Session() as session:
            while True:
                try:
                    session.auth = secret or user(address)
                    _try(session, address, part, bounds)
                    break
                except Broken as broken:
                    if part.size - kept >= ENOUGH:
                        failures, kept = 0, part.size
                    failures += 1
                    rest(failures, str(broken), broken.wait_s)
        part.finish()
    except OSError as error:
        with suppress(OSError):
            Part(path).clear()
        raise CheckpointError(unwritable(path.parent, error)) from error


def need_space(folder: Path, size: int) -> None:
    """Raises CheckpointError where a disk has not so many bytes left."""
    # the folder need not be there yet; its disk is that of the first parent that is
    there = next(f for f in (folder, *folder.parents) if f.exists())
    free = shutil.disk_usage(there).free
    if free < size:
        raise CheckpointError(
            f"{size:,} bytes are needed and the disk of {folder} has {free:,} left: free some, or set FMJAX_CACHE and "
            f"HF_HOME to folders on another disk"
        )


def unwritable(folder: Path, error: OSError) -> str:
    """Why a file could not be written there."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        reason = "the disk is full"
    return (
        f"{folder} cannot be written ({reason}): free some space, or set FMJAX_CACHE and HF_HOME to "
        f"folders that can be"
    )


def user(address: str) -> tuple[str, str] | None:
    """The name and password in an address."""
    name, password = get_auth_from_url(address)
    return (name, password) if name or password else None


def _try(session: requests.Session, address: str, part: Part, bounds: Bounds) -> None:
    """Adds what one request gives to the part. Raises Broken where another may give more, else what is final."""
    host = addresses.place(address)
    # every way in which a request ends: final ones are CheckpointErrors, those that a retry may mend are Broken
    try:
        with within(answering_s(), lambda: answer(session, address, part.wanted())) as response:
            accept(response, address)
            _begin(response, address, part, bounds)
            _store(response, part, bounds)
    except TimeoutError as error:
        raise UnreachableError(
            f"{host} did not finish its answer in {answering_s():.0f} s: set FMJAX_TIMEOUT_S to wait longer"
        ) from error
    except _Refused as error:
        part.clear()
        raise CheckpointError(f"{host} {error}") from error
    except requests.exceptions.SSLError as error:
        reason = addresses.scrubbed(str(error).rpartition("Caused by ")[2])
        raise CheckpointError(
            f"the certificate of {host} is not trusted ({reason}): set REQUESTS_CA_BUNDLE to your proxy's"
        ) from error
    except (requests.RequestException, HTTPError) as error:
        # before anything came there is nothing to go on from: the host itself is the trouble
        if not part.total and isinstance(error, SILENT):
            raise UnreachableError(
                f"{host} did not answer ({type(error).__name__}): check the network and HTTPS_PROXY, or set "
                f"FMJAX_TIMEOUT_S to wait longer than {timeout_s():.0f} s"
            ) from error
        raise Broken(f"the connection to {host} broke after {part.progress}") from error
    if not part.whole:
        raise Broken(f"{host} ended the file after {part.progress}")


def answer(session: requests.Session, address: str, wanted: Mapping[str, str]) -> requests.Response:
    """The answer of an address, or of the last one that it redirects to."""
    # followed by hand: each target is checked before it is asked, and the password stays with the first host
    headers = {"Accept-Encoding": "identity", **wanted}
    limits = (timeout_s(), timeout_s())
    for _ in range(REDIRECTS):
        response = session.get(
            address, headers=headers, stream=True, timeout=limits, allow_redirects=False
        )
        target = response.headers.get("Location")
        if target is None or not response.is_redirect:
            return response
        response.close()  # unread: the body of a redirect may be anything
        new = addresses.followed(address, target)
        if session.should_strip_auth(address, new):
            session.auth = None
        address = new
    raise CheckpointError(
        f"{addresses.shown(address)} is redirected in a circle: check the address or FMJAX_MIRROR"
    )


def accept(response: requests.Response, address: str) -> None:
    """Raises for an answer that is not the file: Broken where another try may help, else CheckpointError."""
    status, host, where = response.status_code, addresses.place(address), addresses.shown(address)
    if status in (200, 206):
        _check_kind(response, where)
        return
    if status == 416:
        # no such range: the part is not of this content, which is found out when it begins
        return
    meaning = f" ({MEANINGS[status]})" if status in MEANINGS else ""
    said = f"{host} answered {status}{meaning} for {where}"
    if status in AGAIN:
        raise Broken(said, retry_after(response.headers))
    gate = next((fix for word, fix in GATES.items() if word in address), None)
    if gate and status in (401, 403):
        said = f"{said}: {gate}"
    raise CheckpointError(said)


def _check_kind(response: requests.Response, where: str) -> None:
    """Raises CheckpointError for a page: of a login, of a proxy, or of a mirror that answers everything with 200."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in PAGES:
        raise CheckpointError(
            f"{where} answered with {PAGES[kind]}, not a file: open it in a browser, a proxy may ask for a login"
        )


def _begin(response: requests.Response, address: str, part: Part, bounds: Bounds) -> None:
    """Makes the part ready for the bytes of an answer, or refuses it by what its head says of them."""
    where, headers = addresses.shown(address), response.headers
    # packed bytes have another length and digest, and may be a bomb
    encoding = headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise _Refused(f"sends {where} packed ({encoding[:20]!r}), which was not asked for")
    if not part.begin(response.status_code, headers):
        raise Broken(
            f"{addresses.place(address)} answered {response.status_code} without the rest of the file"
        )
    if part.total is None and "chunked" not in headers.get("Transfer-Encoding", "").lower():
        raise _Refused(
            f"does not say how long {where} is, so that a cut file could not be told from a whole one"
        )
    if bounds.exactly is not None and part.total not in (None, bounds.exactly):
        raise _Refused(f"sends {part.total:,} bytes for {where}, which has {bounds.exactly:,}")
    if part.total is not None and part.total > bounds.most:
        raise _Refused(f"sends {part.total:,} bytes for {where}, which has {bounds.most:,} at most")
    need_space(part.target.parent, (part.total or 0) - part.size)


def _store(response: requests.Response, part: Part, bounds: Bounds) -> None:
    """Adds the body to the part as it is sent, never inflated, and never more than was stated or can be."""
    # the smallest of what the row, another source and this answer allow
    most = min(size for size in (bounds.most, bounds.exactly, part.total) if size is not None)
    with part, _bar(part) as shown, watched(response, part):
        for chunk in chunks(response):
            if part.size + len(chunk) > most:
                raise _Refused(
                    f"sends more than the {most:,} bytes that {addresses.shown(response.url)} can have"
                )
            part.add(chunk)
            shown(len(chunk))


def chunks(response: requests.Response) -> Iterator[bytes]:
    """The body as it is sent, never inflated."""
    try:
        while chunk := response.raw.read(CHUNK, decode_content=False):
            yield chunk
    except ValueError as error:  # from http.client, of a length that is negative
        raise ProtocolError(str(error)) from error


@contextmanager
def watched(response: requests.Response, part: Growing) -> Iterator[None]:
    """Ends the connection, and raises UnreachableError, when it brings less than CHUNK bytes in a while."""
    # a socket's own limit begins anew with every byte, so a second thread looks at what has come
    patience, done, slow = PROGRESS * timeout_s(), threading.Event(), threading.Event()

    def watch() -> None:
        seen = part.size
        while not done.wait(patience):
            if part.size - seen < CHUNK:
                slow.set()
                with suppress(OSError, ValueError, RuntimeError):  # it has ended by itself
                    response.raw.shutdown()
                return
            seen = part.size

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    except HTTPError:
        if not slow.is_set():
            raise
    finally:
        done.set()
        watcher.join()
    if slow.is_set() and not part.complete:
        raise UnreachableError(
            f"{addresses.place(response.url)} sent less than {CHUNK:,} bytes in {patience:.0f} s and was given up "
            f"after {part.progress}: run the same command later to go on, or set FMJAX_TIMEOUT_S to wait longer"
        )


@contextmanager
def _bar(part: Part) -> Iterator:
    """Takes the number of every chunk's bytes and shows a bar of them on a terminal."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    # a download shows bytes and their speed, where other work shows what it counts
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(part.target.name, total=part.total, completed=part.size)
        yield lambda count: progress.advance(task, count)
