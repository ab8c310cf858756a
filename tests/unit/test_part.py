"""Parts of files: gone on from where they are what was written, and otherwise not."""

from __future__ import annotations

import os

import pytest

from fmjax.store import http, locate, part, record
from tests.support.locate import weights
from tests.support.misbehaving_server import Reply
from tests.support.plain_host import CONTENT, OTHER, PATH, refused, url

CHUNK = http.CHUNK


def test_a_part_is_kept_at_times_and_what_follows_its_note_is_not_trusted(own_cache, monkeypatch):
    monkeypatch.setattr(part, "NOTE_BYTES", 2 * CHUNK)
    target = own_cache / "vit.pt"
    headers = {"ETag": '"1"', "Content-Length": str(len(CONTENT))}
    first = part.Part(target)
    assert first.begin(200, headers)
    with first:
        for start in range(0, 2 * CHUNK, CHUNK):
            first.add(CONTENT[start : start + CHUNK])
        note = first.note.read_text()
        first.add(CONTENT[:CHUNK])
    first.note.write_text(note)  # as where the process is killed now
    second = part.Part(target)
    assert (second.size, second.path.stat().st_size, second.total) == (
        2 * CHUNK,
        2 * CHUNK,
        len(CONTENT),
    )
    assert second.wanted() == {"Range": f"bytes={2 * CHUNK}-", "If-Range": '"1"'}
    second.path.write_bytes(OTHER[CHUNK:])
    assert part.Part(target).wanted() == {}
    assert not second.path.exists()
    assert not second.note.exists()


@pytest.mark.parametrize(
    "note",
    ["[", "[" * 100_000, "[]", '{"size": -1}', '{"size": true}', '{"size": 1, "total": "x"}'],
)
def test_a_damaged_note_of_a_part_starts_over(server, own_cache, note):
    server.replies[PATH] = [Reply(cut=CHUNK), *[Reply(503)] * 6]
    refused(url(server))
    next((own_cache / "files").rglob("*.part.json")).write_text(note)
    assert locate.locate(weights(url(server)))[0].read_bytes() == CONTENT
    assert "Range" not in server.gets()[-1].headers


def test_files_are_made_with_the_users_umask(server, own_cache):
    before = os.umask(0o027)
    try:
        path = locate.locate(weights(url(server)))[0]
    finally:
        os.umask(before)
    made = [path, own_cache / record.NAME]
    assert [oct(file.stat().st_mode & 0o777) for file in made] == ["0o640"] * 2
