"""One address -> one file: resumed, retried, checked for its size and moved into place when it is whole."""

from __future__ import annotations

import email.utils
import errno
import os
import queue
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import requests
from requests.utils import get_environ_proxies, select_proxy
from urllib3.exceptions import HTTPError

from fmjax.console import console
from fmjax.errors import CheckpointError
from fmjax.part import Part

ANSWER_S = 10.0  # for an answer; FMJAX_TIMEOUT_S replaces it
CONNECTING = 0.45  # the share of it for a connection: two hosts that cannot be reached fail within the whole
RETRIES = 5  # in a row, with less than ENOUGH bytes won
ENOUGH = 1 << 20
BACKOFF_S = 0.5  # doubled by every retry
LONGEST_WAIT_S = 60.0
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
CHUNK = 1 << 16  # what a broken connection may lose
SILENT = (requests.exceptions.Timeout, requests.exceptions.ProxyError)
GATES = {  # a part of the address -> what gives access
    "dinov3": "request your link at https://ai.meta.com/resources/models-and-libraries/dinov3-downloads/ and pass the "
    "file as checkpoint",
}
MEANINGS = {401: "not logged in", 403: "forbidden", 404: "not there", 410: "removed", 429: "too many requests"}


class UnreachableError(CheckpointError):
    """A host gives no answer, so that its other files need not be asked for."""


class _Broken(Exception):
    """One try that failed and may be repeated, after so many seconds where the server says so."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


@dataclass(frozen=True)
class Copy:
    """A file on this machine, and what its host says of it: the commit, and the sha256 of the content."""

    path: Path
    revision: str | None = None
    sha256: str | None = None


def download(address: str, path: Path) -> None:
    """Fetches an address; `path` is there when the whole file is. A later call goes on from what PATH.part has.

    Raises CheckpointError with the reason; UnreachableError, within ten seconds, where the host gives no answer.
    """
    contact(address)
    part, failures, kept = Part(path), 0, 0
    with requests.Session() as session:
        while True:
            try:
                _try(session, address, part)
                break
            except _Broken as broken:
                if part.size - kept >= ENOUGH:
                    failures, kept = 0, part.size
                failures += 1
                rest(failures, str(broken), broken.wait_s)
            except OSError as error:
                part.clear()
                raise CheckpointError(unwritable(path.parent, error)) from error
    part.finish()


def contact(address: str) -> None:
    """Returns when the host of an address, or the proxy before it, takes connections; else raises UnreachableError."""
    proxy = select_proxy(address, get_environ_proxies(address))
    parts = urlsplit(proxy if proxy is None or "://" in proxy else f"http://{proxy}") if proxy else urlsplit(address)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    answers: queue.SimpleQueue[str] = queue.SimpleQueue()
    limit = timeout_s() * CONNECTING
    threading.Thread(target=_knock, args=(host, port, limit, answers), daemon=True).start()
    try:
        reason = answers.get(timeout=limit)
    except queue.Empty:
        reason = f"no connection within {limit:.1f} s"
    if reason:
        who = f"the proxy {host}:{port} before {urlsplit(address).hostname}" if proxy else f"{host}:{port}"
        raise UnreachableError(
            f"{who} cannot be reached ({reason}): check the network, HTTPS_PROXY where a proxy is needed, HF_ENDPOINT "
            f"or FMJAX_MIRROR where there is a mirror"
        )


def timeout_s() -> float:
    """How long to wait for an answer: FMJAX_TIMEOUT_S, else ten seconds."""
    given = os.environ.get("FMJAX_TIMEOUT_S") or str(ANSWER_S)
    try:
        return max(float(given), 0.1)
    except ValueError:
        raise CheckpointError(f"FMJAX_TIMEOUT_S={given!r} is not a number of seconds") from None


def mirrored(address: str) -> str:
    """The address to ask: with FMJAX_MIRROR in the place of scheme and host, where that is set."""
    base = os.environ.get("FMJAX_MIRROR")
    if not base:
        return address
    if "://" not in base:
        raise CheckpointError(f"FMJAX_MIRROR={base!r} is not a base address such as https://mirror.example/weights")
    return base.rstrip("/") + urlunsplit(("", "", *urlsplit(address)[2:]))


def rest(failures: int, reason: str, wait_s: float | None = None) -> None:
    """Sleeps before the next try. Raises CheckpointError after too many, or where the server wants too long a rest."""
    if wait_s is not None and wait_s > LONGEST_WAIT_S:
        raise CheckpointError(f"{reason} and asks to wait {wait_s:.0f} s: run the same command after that")
    if failures > RETRIES:
        raise CheckpointError(f"{reason}, {failures} times: run the same command again later")
    time.sleep(wait_s if wait_s is not None else BACKOFF_S * 2 ** (failures - 1))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that a Retry-After header asks for, which may be a date."""
    value = headers.get("Retry-After") or headers.get("retry-after") or ""
    if value.strip().isdigit():
        return float(value)
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except ValueError:
        return None


def need_space(folder: Path, size: int) -> None:
    """Raises CheckpointError where a disk has not so many bytes left."""
    there = next(f for f in (folder, *folder.parents) if f.exists())
    free = shutil.disk_usage(there).free
    if free < size:
        raise CheckpointError(
            f"{size:,} bytes are needed and the disk of {folder} has {free:,} left: free some, or set FMJAX_CACHE and "
            f"HF_HOME to folders on another disk"
        )


def unwritable(folder: Path, error: OSError) -> str:
    """Why a file could not be written there."""
    reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
    return (
        f"{folder} cannot be written ({reason}): free some space, or set FMJAX_CACHE and HF_HOME to folders that can be"
    )


def first_line(error: Exception) -> str:
    """What an error says, as far as it fits into a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _knock(host: str, port: int, limit: float, answers: queue.SimpleQueue[str]) -> None:
    """Puts "" for the first address that takes a connection, or the last one's reason."""
    reason = "the name has no address"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        answers.put(f"its name is not known: {error}")
        return
    for *_, address in sorted(found, key=lambda entry: entry[0] != socket.AF_INET):
        try:
            socket.create_connection((str(address[0]), port), timeout=limit).close()
        except OSError as error:
            reason = error.strerror or str(error)
        else:
            answers.put("")
            return
    answers.put(reason)


def _try(session: requests.Session, address: str, part: Part) -> None:
    host = urlsplit(address).hostname
    try:
        with session.get(
            address,
            headers={"Accept-Encoding": "identity", **part.wanted()},
            stream=True,
            timeout=(timeout_s(), timeout_s()),
        ) as response:
            _accept(response, address)
            if not part.begin(response.status_code, response.headers):
                raise _Broken(f"{host} answered {response.status_code} without the rest of the file")
            if part.total is None and "chunked" not in response.headers.get("Transfer-Encoding", "").lower():
                part.clear()
                raise CheckpointError(
                    f"{host} does not say how long {address} is, so that a cut file could not be told from a whole "
                    f"one: fetch it by other means and pass it as checkpoint, or set FMJAX_MIRROR"
                )
            need_space(part.target.parent, (part.total or 0) - part.size)
            with part.open() as file, _bar(part) as shown:
                for chunk in response.iter_content(CHUNK):
                    file.write(chunk)
                    shown(len(chunk))
    except requests.exceptions.SSLError as error:
        raise CheckpointError(
            f"the certificate of {host} is not trusted ({first_line(error)}): set REQUESTS_CA_BUNDLE to your proxy's"
        ) from error
    except requests.exceptions.TooManyRedirects as error:
        raise CheckpointError(f"{address} is redirected in a circle: check the address or FMJAX_MIRROR") from error
    except (requests.RequestException, HTTPError) as error:
        if not part.total and isinstance(error, SILENT):
            raise UnreachableError(
                f"{host} did not answer ({type(error).__name__}): check the network and HTTPS_PROXY, or set "
                f"FMJAX_TIMEOUT_S to wait longer than {timeout_s():.0f} s"
            ) from error
        raise _Broken(f"the connection to {host} broke after {part.progress}") from error
    if not part.whole:
        raise _Broken(f"{host} ended the file after {part.progress}")


def _accept(response: requests.Response, address: str) -> None:
    """Raises for an answer that is not the file: _Broken where another try may help, else CheckpointError."""
    status, host = response.status_code, urlsplit(address).hostname
    if status in (200, 206, 416):
        if status != 416 and response.headers.get("Content-Type", "").startswith("text/html"):
            raise CheckpointError(
                f"{address} answered with a web page, not a file: open it in a browser, a proxy may ask for a login"
            )
        return
    said = f"{host} answered {status} ({MEANINGS.get(status, response.reason or 'no reason given')})"
    if status in AGAIN:
        raise _Broken(f"{said} for {address}", retry_after(response.headers))
    gate = next((fix for word, fix in GATES.items() if word in address), None)
    if gate and status in (401, 403):
        raise CheckpointError(f"{said} for {address}: {gate}")
    raise CheckpointError(f"{said} for {address}: fetch the file by other means and pass it as checkpoint")


@contextmanager
def _bar(part: Part) -> Iterator:
    """Takes the number of every chunk's bytes and shows a bar of them on a terminal."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(part.target.name, total=part.total, completed=part.size)
        yield lambda count: progress.advance(task, count)
