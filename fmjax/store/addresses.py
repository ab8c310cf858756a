"""Addresses of files: which are asked, which redirects are followed, and how one is shown, without its secrets."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from urllib.parse import urljoin, urlsplit, urlunsplit

from fmjax.errors import CheckpointError

HOST = re.compile(r"(\[[^\]@]*\]|[^:@\[\]]*)(:\d{0,5})?")
ADDRESS = re.compile(r"\S*(?:://|@)\S*")
LONGEST = 200  # characters of an address in a sentence
UNFOLLOWED = (
    "it was not followed; do not trust this host, or set FMJAX_MIRROR or HF_ENDPOINT to another"
)


def shown(address: str) -> str:
    """An address as it may be printed: without a user's name and password, and without its query, which may be a
    signature; escaped where it would not print, and cut where it is long."""
    scheme, separator, rest = address.rpartition("://")
    bare, query, _ = rest.partition("?")
    # what looks like a host may be the first half of a password
    if not HOST.fullmatch(bare.partition("/")[0].rpartition("@")[2]):
        # a password with a slash or a question mark in it
        bare, query, _ = rest.rpartition("@")[2].partition("?")
    host, slash, path = bare.partition("/")
    text = scheme + separator + host.rpartition("@")[2] + slash + path + (query and "?...")
    return _printable(text)


def scrubbed(text: str) -> str:
    """The first line of what a library or a server says, with its addresses as they may be shown."""
    line = (text.strip().splitlines() or [""])[0]
    return _printable(ADDRESS.sub(lambda found: shown(found[0]), line))


def anonymous(address: str) -> str:
    """An address without a user's name and password: what a file is recorded under."""
    check(address, "the address")
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def place(address: str) -> str:
    """The host of an address, for a sentence."""
    try:
        return _printable(urlsplit(address).hostname or shown(address))
    except ValueError:
        return shown(address)


def host(address: str) -> str:
    """The host of an address and its port, by which it is known whatever is asked of it."""
    return address.partition("://")[2].partition("/")[0].rpartition("@")[2].lower()


def check(address: str, origin: str) -> None:
    """Raises CheckpointError for what is not the address of a web server. origin: the setting or row it comes from."""
    if not _is_web(address):
        raise CheckpointError(
            f"{origin} '{shown(address)}' cannot be asked: only http:// and https:// can, as in "
            f"https://mirror.example/weights"
        )


def mirrored(address: str) -> str:
    """The address to ask: with FMJAX_MIRROR in the place of scheme and host, where that is set."""
    base = os.environ.get("FMJAX_MIRROR")
    if not base:
        check(address, "the address")
        return address
    check(base, "FMJAX_MIRROR")
    return base.rstrip("/") + urlunsplit(("", "", *urlsplit(address)[2:]))


def followed(address: str, target: str) -> str:
    """The address that another one redirects to.

    Raises CheckpointError for those that the host of a file has no reason to name: of another kind than a web server's,
    without encryption where the first one had it, or inside this machine or its network where the first was outside.
    """
    try:
        new = urljoin(address, target)
    except ValueError:
        new = ""
    if not _is_web(new):
        raise CheckpointError(
            f"{place(address)} redirects to '{shown(target)}', which is no web address: {UNFOLLOWED}"
        )
    # a mirror that was broken into could lead to other kinds of address, to plain text, or behind the user's firewall
    old, parts = urlsplit(address), urlsplit(new)
    if (old.scheme, parts.scheme) == ("https", "http"):
        raise CheckpointError(
            f"{place(address)} redirects to '{shown(new)}', without encryption: {UNFOLLOWED}"
        )
    if _is_inside(parts.hostname or "") and not _is_inside(old.hostname or ""):
        raise CheckpointError(
            f"{place(address)} redirects to '{shown(new)}', inside your own network: {UNFOLLOWED}"
        )
    return new


def _is_web(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that is not closed
        return False


def _is_inside(host: str) -> bool:
    """Whether a host is written as an address of this machine or its network. Names are not looked up."""
    try:
        number = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            number = ipaddress.ip_address(socket.inet_aton(host))  # 127.1, 2130706433, 0x7f000001
        except OSError:
            return host == "localhost" or host.endswith(".localhost")
    mapped = number.ipv4_mapped if isinstance(number, ipaddress.IPv6Address) else None
    return not (mapped or number).is_global


def _printable(text: str) -> str:
    escaped = ascii(text)[1:-1].replace("\\'", "'")
    return escaped if len(escaped) <= LONGEST else f"{escaped[:LONGEST]}..."
