"""The notebooks run from the first cell to the last, show what they promise, and are the scripts beside them."""

from __future__ import annotations

import re
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "colab").glob("*.ipynb"))
# what cells show, and files that they leave
SHOWN = {
    "quickstart": [r"^\(\(64, 96\), \(64, 7, 7, 96\)\)$"],
    "embed_and_search": [r"^\(600, 96\)$", r"'(7[5-9]|[89]\d)% of the neighbours are the same"],
    "patches_and_attention": [r"^\(4, 24, 24, 96\)$", r"^\(4, 3, 24, 24\)$", r"are foreground"],
    "finetune_your_folder": [r"'[5-9]\d\.\d% of the held-out pictures'", r"'[4-8] of 8 are right'"],
    "convert_and_check": [
        r"78/78 tensors come back bit by bit",
        r"the largest difference of any patch: 0\.0'",
        r"missing from the file \(1\)",
        r"^\(True, True\)$",
    ],
    "sharded_training": [
        r"\(\(6, 96, 384\), .*\(6, 24, 384\)\)",
        r"6 steps; the largest difference of a loss is (0\.0e\+00|\de-0[6-9]|\d\.\de-0[6-9])",
    ],
    "segment_linear": [r"'mean IoU [5-9]\d\.\d%, 9\d\.\d% of the pixels'"],
}
LEFT = {
    "quickstart": "runs/notebook/model.timm.safetensors",
    "finetune_your_folder": "runs/mine/report.html",
    "convert_and_check": "back.safetensors",
    "segment_linear": "runs/scenes/predictions.png",
}


def texts(notebook: nbformat.NotebookNode) -> list[str]:
    """What the cells have shown."""
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    shown = [out["data"].get("text/plain", "") for out in outputs if "data" in out]
    return shown + [out["text"] for out in outputs if out["output_type"] == "stream"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs(path, tmp_path, monkeypatch):
    # on the devices that a reader has, which are not the eight of the tests
    monkeypatch.delenv("XLA_FLAGS")
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(tmp_path)}}).execute()
    found = texts(notebook)
    for pattern in SHOWN[path.stem]:
        assert any(re.search(pattern, text) for text in found), (pattern, found)
    if path.stem in LEFT:
        assert (tmp_path / LEFT[path.stem]).exists()

    # a run's steps are one line, which is written over
    steps = [text for text in found if re.match(r"step .* img/s", text)]
    runs = sum("runs/" in cell.source and "finetune(" in cell.source for cell in notebook.cells)
    assert len(steps) <= max(runs, 1)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_the_script_beside_it(path):
    cells = [
        [(cell.cell_type, cell.source) for cell in jupytext.read(each).cells]
        for each in (path, path.with_suffix(".py"))
    ]
    assert cells[0] == cells[1], f"run `jupytext --sync {path}`"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_says_at_its_top_what_it_takes_and_gives(path):
    first, install = nbformat.read(path, as_version=4).cells[:2]
    assert f"fmjax/blob/main/colab/{path.name})" in first.source
    assert "| device | minutes | what you get |" in first.source
    assert "pip" in install.source


def test_no_notebook_keeps_what_a_machine_showed():
    for path in NOTEBOOKS:
        assert not any(cell.get("outputs") for cell in nbformat.read(path, as_version=4).cells), (
            path
        )
