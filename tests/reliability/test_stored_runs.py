"""Runs of older versions, which stay readable for good: a file for each format, stored/FORMAT.tar.xz.

Each was made by `fmjax finetune stored/tiny.py` at its time, and left at step 4 of 8 with the rows of all eight, so
that what a resume comes to is known.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

import fmjax
from fmjax import names
from fmjax.cli import main
from fmjax.engine.checkpoint import FORMAT
from fmjax.engine.steps import committed
from fmjax.trees import flat
from tests.support.runs import rows

STORED = Path(__file__).parent / "stored"
FORMATS = sorted(int(path.name.partition(".")[0]) for path in STORED.glob("*.tar.xz"))


@pytest.fixture(params=FORMATS)
def run(request, tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(names, "_registered", [])
    out = tmp_path / "run"
    with tarfile.open(STORED / f"{request.param}.tar.xz") as archive:
        archive.extractall(out, filter="data")
    yield out
    names._rows.cache_clear()
    names._aliases.cache_clear()


def test_every_format_has_a_stored_run():
    assert list(range(FORMAT + 1)) == FORMATS


def test_a_stored_run_goes_on_to_the_same_losses(run, capsys):
    before = {row["step"]: row["loss"] for row in rows(run) if "loss" in row}
    assert committed(run) == [4]
    assert sorted(before) == list(range(1, 9))
    assert main(["finetune", str(STORED / "tiny.py"), "--out", str(run)]) == 0
    assert "resumed from step 4" in capsys.readouterr().out
    after = {row["step"]: row["loss"] for row in rows(run) if "loss" in row}
    # made on another machine, whose vector units may sum in another order
    np.testing.assert_allclose([after[n] for n in after], [before[n] for n in before], rtol=1e-4)
    restored = flat(fmjax.restore(run, 4))
    assert restored["blocks.attn.q.kernel"].shape == (2, 16, 16)
    assert main(["eval", str(run), "--preset", str(STORED / "tiny.py")]) == 0
    assert main(["ckpt", "verify", str(run), "--step", "4"]) == 0
