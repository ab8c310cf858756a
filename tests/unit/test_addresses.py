"""Addresses: what is shown of them, which are asked, and which redirects are followed."""

from __future__ import annotations

import pytest

from fmjax.errors import CheckpointError
from fmjax.store import addresses


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://host.example/a/b.pt", "https://host.example/a/b.pt"),
        ("https://user:secret@host.example:8443/a.pt", "https://host.example:8443/a.pt"),
        ("https://secret@host.example/a.pt", "https://host.example/a.pt"),
        ("https://user:se/cret@host.example/a.pt", "https://host.example/a.pt"),
        ("https://user:se?cret@host.example/a.pt", "https://host.example/a.pt"),
        ("https://user:sec@ret@host.example/a.pt", "https://host.example/a.pt"),
        ("https://host.example/a.pt?X-Signature=secret", "https://host.example/a.pt?..."),
        ("https://host.example/npm/@scope/a.pt", "https://host.example/npm/@scope/a.pt"),
        ("user:secret@host.example/base", "host.example/base"),
        ("http://user:secret@[::1]:80/a.pt", "http://[::1]:80/a.pt"),
        ("https://user:secret@[::1/a.pt", "https://[::1/a.pt"),
        ("https://host.example/\x1b[2J\n", "https://host.example/\\x1b[2J\\n"),
        ("https://host.example/" + "a" * 500, "https://host.example/" + "a" * 179 + "..."),
    ],
)
def test_an_address_is_shown_without_its_secrets(address, shown):
    assert addresses.shown(address) == shown
    assert "secret" not in addresses.scrubbed(f"ConnectError: url='{address}' failed\nmore")


@pytest.mark.parametrize(
    "scheme", ["file:///srv/weights", "ftp://host/base", "host/base", "https://", "http://h:x/"]
)
def test_only_web_addresses_can_be_a_mirror(monkeypatch, scheme):
    monkeypatch.setenv("FMJAX_MIRROR", scheme)
    with pytest.raises(
        CheckpointError, match=r"FMJAX_MIRROR '.*' cannot be asked: only http:// and https:// can"
    ):
        addresses.mirrored("https://host.example/a.pt")


def test_a_mirror_takes_the_place_of_scheme_and_host(monkeypatch):
    monkeypatch.setenv("FMJAX_MIRROR", "https://user:secret@mirror.example/base/")
    asked = addresses.mirrored("https://host.example/a/b.pt?c=d")
    assert asked == "https://user:secret@mirror.example/base/a/b.pt?c=d"
    monkeypatch.delenv("FMJAX_MIRROR")
    with pytest.raises(CheckpointError, match=r"the address 'ftp://host/a\.pt' cannot be asked"):
        addresses.mirrored("ftp://host/a.pt")


@pytest.mark.parametrize(
    ("first", "target", "end"),
    [
        ("https://a.example/x/y.pt", "../z.pt", "https://a.example/z.pt"),
        ("http://a.example/x.pt", "https://cdn.example/x.pt?s=1", "https://cdn.example/x.pt?s=1"),
        ("https://a.example/x.pt", "//cdn.example/x.pt", "https://cdn.example/x.pt"),
        ("http://127.0.0.1:80/x.pt", "http://127.0.0.1:81/y.pt", "http://127.0.0.1:81/y.pt"),
        ("http://10.0.0.5/x.pt", "http://10.0.0.6/y.pt", "http://10.0.0.6/y.pt"),
        ("https://a.example/x.pt", "https://93.184.216.34/y.pt", "https://93.184.216.34/y.pt"),
    ],
)
def test_redirects_to_other_web_servers_are_followed(first, target, end):
    assert addresses.followed(first, target) == end


@pytest.mark.parametrize(
    "target",
    [
        *(
            "http://127.0.0.1/x",
            "http://127.1/x",
            "http://2130706433/x",
            "http://0x7f000001/x",
            "http://[::1]/x",
        ),
        *(
            "http://10.1.2.3/x",
            "http://169.254.169.254/latest",
            "http://[::ffff:192.168.0.1]/x",
            "http://[fe80::1]/x",
        ),
        *(
            "http://localhost/x",
            "http://LOCALHOST:8080/x",
            "http://x.localhost/x",
            "http://0.0.0.0/x",
        ),
    ],
)
def test_a_redirect_from_outside_into_the_own_network_is_refused(target):
    with pytest.raises(
        CheckpointError, match=r"a\.example redirects to '.*', inside your own network"
    ):
        addresses.followed("http://a.example/x.pt", target)


@pytest.mark.parametrize(
    "target",
    ["ftp://b.example/x", "file:///etc/passwd", "javascript:1", "http://[", "http://:80/x"],
)
def test_a_redirect_to_another_scheme_is_refused(target):
    with pytest.raises(
        CheckpointError, match=r"a\.example redirects to '.*', which is no web address"
    ):
        addresses.followed("https://a.example/x.pt", target)


def test_a_redirect_that_gives_up_encryption_is_refused():
    with pytest.raises(
        CheckpointError, match=r"redirects to 'http://b\.example/x\.pt', without encryption"
    ):
        addresses.followed("https://a.example/x.pt", "http://user:secret@b.example/x.pt")
