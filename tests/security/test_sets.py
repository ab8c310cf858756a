"""Sets whose files were damaged at random: each is read, or refused in one sentence; nothing else ever happens."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from fmjax.config.data import DataConfig
from fmjax.data.images import Broken
from fmjax.data.sources import open_source
from fmjax.errors import DataError
from tests.support import sets

# of each kind the set, and the files that are damaged
KINDS = {
    "csv": (sets.table, "set.csv"),
    "arrayrecord": (lambda root: sets.packed(root, sets.folder(root.with_name("plain"))), "*.*"),
    "parquet": (sets.parquets, "*.parquet"),
    "wds": (sets.tars, "*.tar"),
    "hf": (sets.saved_to_disk, "*/*.*"),
}
TRIALS = 40


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes changed, a piece cut out, or the end cut off."""
    if not content:
        return b"x"
    start, stop = sorted(rng.integers(0, len(content), 2).tolist())
    kind = rng.integers(3)
    if kind == 0:
        return content[:start]
    if kind == 1:
        return content[:start] + content[min(stop, start + 64) :]
    changed = np.frombuffer(content, np.uint8).copy()
    # near each other, as in a sector, or anywhere
    near = rng.integers(start, min(start + 256, len(content)), 4)
    changed[near if rng.random() < 0.5 else rng.integers(0, len(content), 4)] = rng.integers(
        0, 256, 4
    )
    return changed.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_set_is_read_or_refused_in_a_sentence(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("FMJAX_CACHE", str(tmp_path / "cache"))
    make, pattern = KINDS[kind]
    whole = tmp_path / "set"
    place = make(whole)
    files = sorted(whole.glob(pattern))
    rng, refused = np.random.default_rng(0), 0
    for number in range(TRIALS):
        victim = files[number % len(files)]
        content = victim.read_bytes()
        victim.write_bytes(damaged(content, rng))
        refused += _refused(f"{kind}:{place}")
        victim.write_bytes(content)
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    assert refused > 0
    assert not _refused(f"{kind}:{place}")


def _refused(source: str) -> bool:
    said = _refusal(source)
    assert said.isprintable()
    assert len(said) < 700
    return bool(said)


def _refusal(source: str) -> str:
    """What is said of a set that is refused; "" for one whose every example can be asked for."""
    try:
        splits = open_source(DataConfig(source=source))
        for part in filter(None, (splits.train, splits.val)):
            for index in range(len(part)):
                assert isinstance(part.read(index)["image"], bytes | Path | Broken)
    except DataError as error:
        return str(error)
    return ""
