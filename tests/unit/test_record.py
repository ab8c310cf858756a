"""What is known of the files on this machine: the record that may be copied, and what only saves time."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from fmjax.errors import CheckpointError
from fmjax.programs import convert, download
from fmjax.store import digests, locate, record
from tests.support.locate import weights
from tests.support.plain_host import CONTENT, OTHER, PATH, SHA256, refused, url


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"files": ', "not JSON of sections"),
        ("[" * 100_000, "not JSON of sections"),
        ("[]", "not JSON of sections"),
        ("null", "not JSON of sections"),
        ('{"files": []}', "not JSON of sections"),
        ('{"files": {"x": 1}}', "the entry 'x' of 'files'"),
        ('{"files": {"x": {}}}', "the entry 'x' of 'files'"),
        ('{"files": {"\\u001b[2J": null}}', r"the entry '\x1b[2J' of 'files'"),
        (
            f'{{"files": {{"x": {{"sha256": "{SHA256}", "size": "1"}}}}}}',
            "the entry 'x' of 'files'",
        ),
        ('{"files": {"x": {"sha256": ["a"], "size": 1}}}', "the entry 'x' of 'files'"),
        (
            f'{{"files": {{"x": {{"sha256": "{SHA256}", "size": 1, "revision": ".."}}}}}}',
            "the entry 'x' of 'files'",
        ),
        (
            f'{{"files": {{"x": {{"sha256": "{SHA256}", "size": 1, "first_used": 7}}}}}}',
            "the entry 'x' of 'files'",
        ),
        ('{"licences_shown": {"x": ["MIT"]}}', "the entry 'x' of 'licences_shown'"),
        ("\udcff", "not JSON of sections"),
    ],
)
def test_a_damaged_record_is_named(server, own_cache, text, what):
    (own_cache / record.NAME).write_text(text, errors="surrogateescape")
    said = refused(url(server))
    assert f"is not a record that fmjax wrote ({what}): correct it, or delete it" in said
    assert "\n" not in said
    assert said.isprintable()


def test_a_record_that_is_a_folder_or_endless_is_named(server, own_cache):
    (own_cache / record.NAME).mkdir()
    assert "is not a record that fmjax wrote" in refused(url(server))
    (own_cache / record.NAME).rmdir()
    with (own_cache / record.NAME).open("wb") as file:
        file.truncate(1 << 40)
    assert "is not a record that fmjax wrote" in refused(url(server))


@pytest.fixture
def hashed(monkeypatch) -> list[str]:
    """The files that are hashed; all are large enough to be remembered."""
    monkeypatch.setattr(digests, "SMALL", 0)
    monkeypatch.setattr(digests, "TICK_NS", 0)
    seen: list[str] = []
    real = hashlib.file_digest

    def noted(file, kind):
        seen.append(Path(file.name).name)
        return real(file, kind)

    monkeypatch.setattr(hashlib, "file_digest", noted)
    return seen


def test_a_file_that_did_not_change_is_hashed_once(server, own_cache, hashed):
    row = weights(url(server))
    found = locate.obtain(row)
    assert hashed == ["vit.pt"]
    assert locate.obtain(row) == locate.obtain(row, offline=True) == found
    assert hashed == ["vit.pt"]
    locate.obtain(row, anew=True)
    assert hashed == ["vit.pt"] * 2
    (own_cache / record.SEEN).write_text("[" * 100_000)
    assert locate.obtain(row) == found
    assert hashed == ["vit.pt"] * 3


@pytest.mark.parametrize("kind", ["content", "size", "inode", "time"])
def test_a_file_that_changed_in_size_time_or_inode_is_hashed_again(server, own_cache, hashed, kind):
    row = weights(url(server))
    path = locate.locate(row)[0]
    before = path.stat()
    if kind == "content":  # with the size and the times that it had
        path.write_bytes(OTHER)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif kind == "size":
        path.write_bytes(CONTENT + b"x")
    elif kind == "inode":
        copy = path.with_name("copy")
        shutil.copy2(path, copy)
        copy.replace(path)
    else:
        path.touch()
    if kind in ("content", "size"):
        assert f"is not the {SHA256} recorded on" in refused(*row.sources, offline=True)
    else:
        assert locate.obtain(row, offline=True).sha256 == SHA256
    assert hashed == ["vit.pt"] * 2


def test_a_file_written_within_the_last_tick_is_not_trusted(server, hashed, monkeypatch):
    monkeypatch.setattr(digests, "TICK_NS", 10**12)
    row = weights(url(server))
    locate.obtain(row)
    locate.obtain(row)
    assert hashed == ["vit.pt"] * 2


def test_a_copied_record_works_on_a_machine_that_remembers_nothing(
    server, own_cache, hashed, monkeypatch, tmp_path
):
    row = weights(url(server))
    locate.obtain(row)
    shutil.copy(own_cache / record.NAME, tmp_path / record.NAME)
    assert "stamp" not in (tmp_path / record.NAME).read_text()
    monkeypatch.setenv("FMJAX_CACHE", str(tmp_path))
    assert locate.obtain(row).sha256 == SHA256
    server.files[PATH] = OTHER
    next((tmp_path / "files").rglob("vit.pt")).unlink()
    assert "has changed" in refused(*row.sources)


def test_what_is_remembered_is_forgotten_with_the_file_and_where_it_cannot_be_written_nothing_is(
    server, own_cache, hashed, monkeypatch
):
    server.files["/b.pt"] = CONTENT
    first = locate.locate(weights(url(server)))[0]
    first.unlink()
    second = locate.locate(weights(url(server, "/b.pt")))[0]
    assert list(json.loads((own_cache / record.SEEN).read_text())) == [str(second)]
    monkeypatch.setattr(record, "SEEN", "locks/no/such/folder")
    assert locate.locate(weights(url(server, "/b.pt")), offline=True)[0] == second


def test_download_and_verify_hash_in_any_case(monkeypatch):
    asked = []

    def obtain(row, **options):
        asked.append((row.name, options["anew"]))
        raise CheckpointError("as far as this test goes")

    monkeypatch.setattr(locate, "obtain", obtain)
    for program in (lambda name: download.main([name]), convert.verify):
        with pytest.raises(CheckpointError, match="as far as"):
            program("ViT-B-16.openai")
    assert asked == [("ViT-B-16.openai", True)] * 2


def test_a_changed_bit_that_left_no_trace_is_found_by_download_and_verify(
    server, hashed, own_cache, monkeypatch
):
    row = weights(url(server))
    path = locate.locate(row)[0]
    path.write_bytes(OTHER)
    seen = json.loads((own_cache / record.SEEN).read_text())
    seen[str(path)]["stamp"] = digests._stamp(path)  # as if a disk had failed
    (own_cache / record.SEEN).write_text(json.dumps(seen))
    assert locate.obtain(row, offline=True).sha256 == SHA256
    with pytest.raises(CheckpointError, match="recorded on"):
        locate.obtain(row, offline=True, anew=True)
    with pytest.raises(CheckpointError, match="recorded on"):
        locate.obtain(row, offline=True)
