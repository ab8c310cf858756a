"""`fmjax download`, through the command line."""

from __future__ import annotations

import hashlib
import json

import pytest

from fmjax import names
from fmjax.cli import main
from fmjax.specs import Source
from fmjax.store import locate, network
from tests.support.locate import legacy, weights
from tests.support.misbehaving_server import serving

CONTENT = legacy(b"weights" * 1000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch):
    """Two rows, of which the second has no file."""
    monkeypatch.setattr(network, "BACKOFF_S", 0.01)
    for name in locate.OFFLINE:
        monkeypatch.delenv(name, raising=False)
    with serving() as running:
        running.files["/one.pt"] = CONTENT
        one = Source("url", f"{running.base}/one.pt", "one.pt", "open_clip")
        two = Source("url", f"{running.base}/two.pt", "two.pt", "timm")
        own = [weights(one, name="ViT-B-16.one"), weights(two, name="ViT-B-16.two", licence="MIT")]
        spec = names.get_spec("ViT-B-16")
        monkeypatch.setattr(
            names, "_rows", lambda: ({"ViT-B-16": spec}, {row.name: row for row in own})
        )
        monkeypatch.setattr(names, "_aliases", dict)
        yield running


def test_download_prints_what_it_checked(server, capsys):
    assert main(["download", "ViT-B-16.one"]) == 0
    said = capsys.readouterr()
    path, _ = locate.locate(names.get_weights("ViT-B-16.one"), offline=True)
    for words in (
        str(path),
        f"{len(CONTENT):,} bytes",
        SHA256,
        "CC-BY-NC-4.0",
        f"url {server.base}/one.pt (open_clip)",
    ):
        assert words in said.out
    assert said.err.count("CC-BY-NC-4.0 (non-commercial)") == 1
    assert main(["download", "ViT-B-16.one", "--offline"]) == 0
    assert capsys.readouterr().err == ""
    assert len(server.seen) == 1


def test_patterns_go_on_after_a_failure_and_end_with_a_list(server, capsys):
    assert main(["download", "vit-b-16.*"]) == 4
    said = capsys.readouterr()
    assert SHA256 in said.out
    assert "answered 404" in said.err
    assert "fmjax: 1 of 2 weights could not be had: ViT-B-16.two" in said.err
    assert main(["download", "ViT-B-16.two"]) == 4
    assert capsys.readouterr().err.startswith(
        'fmjax: ViT-B-16.two could not be fetched: pass the file as checkpoint="/path/to/two.pt" (--checkpoint)'
    )


def test_a_dry_run_lists_and_asks_nobody(server, capsys):
    assert main(["download", "ViT-B-16.o*", "ViT-B-16.two", "--dry-run"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith(f"url {server.base}/one.pt one.pt (open_clip), CC-BY-NC-4.0")
    assert second.startswith("ViT-B-16.two")
    assert server.seen == []
    main(["download", "ViT-B-16.one"])
    capsys.readouterr()
    main(["download", "ViT-B-16.one", "--dry-run"])
    assert "here: " in capsys.readouterr().out


def test_records_say_what_the_lines_say(server, capsys):
    assert main(["download", "ViT-B-16.*", "--dry-run", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["here"], first["filename"], second["licence"]) == (None, "one.pt", "MIT")
    assert main(["download", "ViT-B-16.*", "--json"]) == 4
    [found] = json.loads(capsys.readouterr().out)
    assert (found["sha256"], found["size"]) == (SHA256, len(CONTENT))
    assert main(["download", "ViT-B-16.one", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["here"] == found["path"]


def test_changed_content_is_accepted_on_demand(server, capsys):
    main(["download", "ViT-B-16.one"])
    new = server.files["/one.pt"] = legacy(b"new")
    assert main(["download", "ViT-B-16.one", "--accept-new"]) == 0
    assert hashlib.sha256(new).hexdigest() in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ViT-B-16.*", "--source", "hf"], "ViT-B-16.one has no source hf; it has url open_clip"),
        (["ViT-B-16.one", "--dialect", "timm"], "change --source or --dialect"),
        (["EVA*"], "no published weights match 'EVA*'"),
        (["ViT-B-16"], "name one of: one, two"),
        ([], "needs a name or a pattern"),
    ],
)
def test_names_and_filters_that_fit_nothing(server, capsys, arguments, words):
    assert main(["download", *arguments]) == 2
    assert words in capsys.readouterr().err
