"""docs/speed.md: what was measured on GPUs is what is stored, each call by itself."""

from __future__ import annotations

import json

import pytest

from benchmarks.gpu import page

OURS = {"row": "fmjax train", "side": "ours", "kind": "train", "model": "ViT-L/14", "batch": 128}
THEIRS = OURS | {"row": "torch train", "side": "peers"}
TIMING = {"median": 0.1763, "least": 0.1762, "most": 0.1764}
FIGURES = {"ms": 176.3, "images_per_s": 725.9, "mfu": 0.3564, "timing": TIMING}


def call(device: str, *rows: dict) -> dict:
    found = {"name": device, "driver_version": "580", "power.limit": "700 W"}
    head = {"date": "2026-11-26T05:14:12+00:00", "commit": "abc", "python": "3.12.3"}
    return {**head, "device": found, "versions": {"jax": "0.11.2", "torch": ""}, "rows": rows}


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Puts calls into the folder of the results, in the order of their dates."""

    def store(*found: dict) -> str:
        for number, each in enumerate(found):
            (tmp_path / f"{number}.json").write_text(json.dumps(each))
        return page.tables()

    monkeypatch.setattr(page, "RESULTS", tmp_path)
    return store


def test_the_page_shows_what_is_stored():
    shown = page.PAGE.read_text().partition(page.START)[2].partition(page.END)[0]
    assert shown.strip() == page.tables(), "run `python -m benchmarks.gpu.page`"


def test_devices_never_share_a_table(stored):
    row = OURS | {"options": {"remat": "dots"}} | FIGURES
    shown = stored(call("NVIDIA H100", row), call("NVIDIA H200", row))
    first, second = shown.split("### NVIDIA H200")
    assert "### NVIDIA H100" in first
    for part in (first, second):
        assert part.count("| fmjax, remat dots |") == 1
        assert "| 176.3 (176.2 to 176.4) | 726 | 0.356 |" in part


def test_what_was_not_measured_is_an_empty_cell_and_what_failed_says_why(stored):
    late = OURS | {
        "row": "fmjax train unroll=True",
        "options": {"unroll": True},
        "left_out": "41 s are left",
    }
    failed = OURS | {"options": {}, "failed": "it does not fit"}
    shown = stored(call("NVIDIA H200", late, failed))
    assert "| fmjax, unroll |  |  |  |  |  |  |  |" in shown
    assert "fmjax train: it does not fit" in shown


def test_a_row_of_torch_names_its_library(stored):
    compiled = {"compile": "step", "sdpa": "cudnn"}
    rows = [
        THEIRS | FIGURES | {"options": compiled | more} for more in ({}, {"library": "open_clip"})
    ]
    shown = stored(call("NVIDIA H200", *rows))
    assert "| timm in torch, torch.compile of the whole step, sdpa cudnn | " in shown
    assert "| open_clip in torch, torch.compile of the whole step, sdpa cudnn | " in shown


def test_kernels_are_summed_by_what_they_are_for(stored):
    kernels = [["nvjet_sm90", 70.0, 1], ["cudnn_sdpa_flash", 20.0, 1], ["loop_add_fusion", 9.0, 1]]
    row = OURS | {"kind": "profile", "options": {}, "device_ms": 100.0, "kernels": kernels}
    # a millisecond of kernels that are not listed
    assert "| 20.0 | 70.0 | 0.0 | 0.0 | 10.0 | 100.0 |" in stored(call("NVIDIA H200", row))
