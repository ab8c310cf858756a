"""One address -> its bytes in memory, for what is small: a picture. Bounded in bytes, time and tries."""

from __future__ import annotations

import requests
from urllib3.exceptions import HTTPError

from fmjax.errors import CheckpointError
from fmjax.store import addresses
from fmjax.store.http import Broken, Session, accept, answer, chunks, user
from fmjax.store.network import answering_s, contact, rest, timeout_s, within

WHOLE = 6.0  # times the limit for an answer: for a whole body
TRIES = 3  # at a picture: a set has others


def content(address: str, *, most: int) -> bytes:
    """What is at an address, in memory: a picture. Raises CheckpointError with the reason; UnreachableError where the
    host gives no answer.

    most: bytes that it may have. It is asked for TRIES times, each of which ends within a bounded time, and nothing
    goes to disk.
    """
    addresses.check(address, "the address")
    contact(address)
    for failures in range(1, TRIES + 1):
        try:
            with Session() as session:
                session.auth = user(address)
                return _read(session, address, most)
        except Broken as broken:
            # the last failure is the one that is told
            if failures == TRIES:
                raise CheckpointError(str(broken)) from broken
            rest(failures, str(broken), broken.wait_s)
    raise CheckpointError(f"{addresses.place(address)} was not asked")


def _read(session: requests.Session, address: str, most: int) -> bytes:
    """The body of one answer. Raises Broken where another may be whole."""
    host = addresses.place(address)
    try:
        with within(answering_s(), lambda: answer(session, address, {})) as response:
            accept(response, address)
            # packed bytes may be a bomb: they are never inflated, and no picture
            return within(WHOLE * timeout_s(), lambda: _body(response, most))
    except TimeoutError as error:
        raise CheckpointError(
            f"{host} did not finish its answer in time: set FMJAX_TIMEOUT_S to wait longer"
        ) from error
    except (requests.RequestException, HTTPError) as error:
        raise Broken(f"the connection to {host} broke ({type(error).__name__})") from error


def _body(response: requests.Response, most: int) -> bytes:
    where, body = addresses.shown(response.url), bytearray()
    stated = response.headers.get("Content-Length", "").strip()
    length = int(stated) if stated.isascii() and stated.isdigit() and len(stated) < 19 else None
    if (length or 0) > most:
        raise CheckpointError(f"{where} has {length:,} bytes, more than the {most:,} of a picture")
    for chunk in chunks(response):
        body += chunk
        if len(body) > most:
            raise CheckpointError(f"{where} has more than the {most:,} bytes of a picture")
    if length is not None and len(body) != length:
        raise Broken(f"{addresses.place(response.url)} ended {where} after {len(body):,} bytes")
    return bytes(body)
