"""A plain host that has one file, and an environment in which it is asked."""

from __future__ import annotations

import pytest

from fmjax.store import locate, network
from tests.support.misbehaving_server import serving
from tests.support.plain_host import CONTENT, PATH


@pytest.fixture
def online(monkeypatch):
    """No proxy, no mirror, not offline; short rests."""
    for name in (
        *locate.OFFLINE,
        "FMJAX_MIRROR",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(network, "BACKOFF_S", 0.01)


@pytest.fixture
def server(online):
    with serving() as running:
        running.files[PATH] = CONTENT
        yield running
