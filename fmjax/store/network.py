"""What every request to a host rests on: whether it can be reached, how long it may take, when it is asked again."""

from __future__ import annotations

import email.utils
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import TypeVar
from urllib.parse import urlsplit

from requests.utils import get_environ_proxies, select_proxy

from fmjax.errors import CheckpointError
from fmjax.store import addresses

ANSWER_S = 10.0  # for an answer; FMJAX_TIMEOUT_S replaces it
# the share of it for a connection: two hosts that cannot be reached fail within the whole
CONNECTING = 0.45
ANSWERING = 3.0  # times that for the whole head of an answer, redirects included
RETRIES = 5
BACKOFF_S = 0.5  # doubled by every retry
LONGEST_WAIT_S = 60.0
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
MEANINGS = {
    401: "not logged in",
    403: "forbidden",
    404: "not there",
    410: "removed",
    429: "too many requests",
}
T = TypeVar("T")


class UnreachableError(CheckpointError):
    """A host gives no answer, so that its other files need not be asked for."""


def contact(address: str) -> None:
    """Returns when the host of an address, or the proxy before it, takes connections; else raises UnreachableError."""
    proxy = select_proxy(address, get_environ_proxies(address))
    host, port = _endpoint(proxy or address)
    # asked by a bare connection first: the clients' own limits do not bound the look-up of a name
    limit = timeout_s() * CONNECTING
    try:
        reason = within(limit, lambda: _knock(host, port, limit))
    except TimeoutError:
        reason = f"no connection within {limit:.1f} s"
    if reason:
        who = (
            f"the proxy {host}:{port} before {addresses.place(address)}"
            if proxy
            else f"{host}:{port}"
        )
        raise UnreachableError(
            f"{who} cannot be reached ({reason}): check the network and HTTPS_PROXY, or HF_ENDPOINT and FMJAX_MIRROR "
            f"for a mirror"
        )


def _endpoint(address: str) -> tuple[str, int]:
    """Host and port of an address, which a proxy's setting may give without its scheme."""
    parts = urlsplit(address if "://" in address else f"http://{address}")
    usual = 443 if parts.scheme == "https" else 80
    return parts.hostname or "", parts.port or usual


def within(limit_s: float, call: Callable[[], T]) -> T:
    """What a call returns. Raises TimeoutError when that takes too long: a socket's own limit begins anew with every
    byte, so that a host which sends one now and then is waited for without end."""
    # a thread that is never joined: a call that hangs is left behind
    answers: queue.SimpleQueue[tuple[list[T], Exception | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put(([call()], None))
        except Exception as error:
            answers.put(([], error))

    threading.Thread(target=run, daemon=True).start()
    try:
        values, error = answers.get(timeout=limit_s)
    except queue.Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return values[0]


def timeout_s() -> float:
    """How long to wait for an answer: FMJAX_TIMEOUT_S, else ten seconds."""
    given = os.environ.get("FMJAX_TIMEOUT_S") or str(ANSWER_S)
    try:
        seconds = float(given)
    except ValueError:
        seconds = float("nan")
    if not 0 <= seconds <= 86400:
        raise CheckpointError(
            f"FMJAX_TIMEOUT_S={given!r} is not a number of seconds, of a day at most"
        )
    return max(seconds, 0.1)


def answering_s() -> float:
    """How long the whole head of an answer may take, redirects included."""
    return ANSWERING * timeout_s()


def rest(failures: int, reason: str, wait_s: float | None = None) -> None:
    """Sleeps before the next try. Raises CheckpointError after too many, or where the server wants too long a rest."""
    if wait_s is not None and wait_s > LONGEST_WAIT_S:
        raise CheckpointError(
            f"{reason} and asks to wait {wait_s:.0f} s: run the same command after that"
        )
    if failures > RETRIES:
        raise CheckpointError(f"{reason}, {failures} times: run the same command again later")
    backoff_s = BACKOFF_S * 2 ** (failures - 1)
    time.sleep(backoff_s if wait_s is None else wait_s)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that a Retry-After header asks for, which may be a date."""
    value = (headers.get("Retry-After") or headers.get("retry-after") or "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, IndexError, OverflowError):  # whatever its parts are taken for
        return None


def first_line(error: Exception) -> str:
    """What an error says, as far as it fits into a sentence and may be shown."""
    return addresses.scrubbed(str(error)) or type(error).__name__


def _knock(host: str, port: int, limit: float) -> str:
    """ "" when an address of the host takes a connection, else the last one's reason."""
    reason = "the name has no address"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return f"its name is not known: {error}"
    # IPv4 first: machines without a route for IPv6 have addresses of it all the same
    for *_, address in sorted(found, key=lambda entry: entry[0] != socket.AF_INET):
        try:
            socket.create_connection((str(address[0]), port), timeout=limit).close()
        except OSError as error:
            reason = error.strerror or str(error)
        else:
            return ""
    return reason
