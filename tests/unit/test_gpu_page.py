"""docs/speed.md and docs/speed_calls.md: what was measured on GPUs is what is stored, each call by itself."""

from __future__ import annotations

import json

import pytest

from benchmarks.gpu import page, stored, summary

OURS = {"row": "fmjax train", "side": "ours", "kind": "train", "model": "ViT-L/14", "batch": 128}
THEIRS = OURS | {"row": "torch train", "side": "peers"}
TIMING = {"median": 0.1763, "least": 0.1762, "most": 0.1764}
FIGURES = {"ms": 176.3, "images_per_s": 725.9, "mfu": 0.3564, "timing": TIMING}


def call(device: str, *rows: dict) -> dict:
    found = {"name": device, "driver_version": "580", "power.limit": "700 W"}
    head = {"date": "2026-11-26T05:14:12+00:00", "commit": "abc", "python": "3.12.3"}
    return {**head, "device": found, "versions": {"jax": "0.11.2", "torch": ""}, "rows": rows}


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Puts calls into the folder of the results, in the order of their dates."""

    def put(*found: dict) -> None:
        for number, each in enumerate(found):
            (tmp_path / f"{number}.json").write_text(json.dumps(each))

    monkeypatch.setattr(stored, "RESULTS", tmp_path)
    return put


@pytest.fixture
def shown_of(store):
    """Every call's tables."""

    def shown(*found: dict) -> str:
        store(*found)
        return page.tables()

    return shown


@pytest.mark.parametrize("made", [page, summary], ids=["calls", "newest"])
def test_a_page_shows_what_is_stored(made):
    shown = made.PAGE.read_text().partition(made.START)[2].partition(made.END)[0]
    assert shown.strip() == made.tables().strip(), "run `python -m benchmarks.gpu.page`"


def test_devices_never_share_a_table(shown_of):
    row = OURS | {"options": {"remat": "dots"}} | FIGURES
    shown = shown_of(call("NVIDIA H100", row), call("NVIDIA H200", row))
    # the newest call comes first
    first, second = shown.split("## NVIDIA H100")
    assert "## NVIDIA H200" in first
    for part in (first, second):
        assert part.count("| fmjax, remat dots |") == 1
        assert "| 176.3 (176.2 to 176.4) | 726 | 0.356 |" in part


def test_what_was_not_measured_is_an_empty_cell_and_what_failed_says_why(shown_of):
    late = OURS | {
        "row": "fmjax train unroll=True",
        "options": {"unroll": True},
        "left_out": "41 s are left",
    }
    failed = OURS | {"options": {}, "failed": "it does not fit"}
    shown = shown_of(call("NVIDIA H200", late, failed))
    assert "| fmjax, unroll |  |  |  |  |  |  |  |" in shown
    assert "fmjax train: it does not fit" in shown


def test_a_row_of_torch_names_its_library(shown_of):
    compiled = {"compile": "step", "sdpa": "cudnn"}
    rows = [
        THEIRS | FIGURES | {"options": compiled | more} for more in ({}, {"library": "open_clip"})
    ]
    shown = shown_of(call("NVIDIA H200", *rows))
    assert "| timm in torch, torch.compile of the whole step, sdpa cudnn | " in shown
    assert "| open_clip in torch, torch.compile of the whole step, sdpa cudnn | " in shown


def test_kernels_are_summed_by_what_they_are_for(shown_of):
    kernels = [["nvjet_sm90", 70.0, 1], ["cudnn_sdpa_flash", 20.0, 1], ["loop_add_fusion", 9.0, 1]]
    row = OURS | {"kind": "profile", "options": {}, "device_ms": 100.0, "kernels": kernels}
    # a millisecond of kernels that are not listed
    assert "| 20.0 | 70.0 | 0.0 | 0.0 | 10.0 | 100.0 |" in shown_of(call("NVIDIA H200", row))


def faster(row: dict, times: float) -> dict:
    return row | {"images_per_s": times * row["images_per_s"]}


@pytest.fixture
def newest(store):
    """The cells of ViT-L/14's training, without those that are empty."""

    def cells(*found: dict) -> list[str]:
        store(*found)
        # training stands above the forward pass
        lines = summary.tables().splitlines()
        line = next(line for line in lines if line.startswith("| ViT-L/14, 128 images |"))
        return [cell.strip() for cell in line.strip("|").split("|")[1:] if cell.strip()]

    return cells


def test_the_newest_figures_are_told_beside_the_fastest_way_of_torch(newest):
    ours = OURS | {"options": {}} | FIGURES
    eager, compiled = (
        THEIRS | FIGURES | {"options": {"compile": way}} for way in ("no", "default")
    )
    former = call("NVIDIA H200", faster(ours, 2), compiled)
    last = call("NVIDIA H200", ours, eager, faster(compiled, 1.25))
    told = ["726", "0.356", "907", "timm in torch, torch.compile", "0.80", "2026-11-26 05:14"]
    assert newest(former, last) == told
    # what was measured stands below, of the call that is told alone
    below = [line for line in summary.tables().splitlines() if line.startswith("- ")]
    assert len(below) == 1
    assert "commit abc, Python 3.12.3, driver 580, 700 W at most (`benchmarks/" in below[0]
    assert below[0].endswith("1.json`); jax 0.11.2.")


def test_two_calls_are_never_a_ratio(newest):
    ours, theirs = (row | {"options": {}} | FIGURES for row in (OURS, THEIRS))
    apart = newest(call("NVIDIA H200", theirs), call("NVIDIA H200", ours))
    assert apart == ["726", "0.356", "2026-11-26 05:14"]
    # what the newest call has not measured is told as a former one has
    assert newest(call("NVIDIA H200", ours, theirs), call("NVIDIA H200", theirs))[-2] == "1.00"


def test_what_no_call_has_measured_is_empty(newest):
    assert newest(call("NVIDIA H200", OURS | {"options": {}, "left_out": "41 s are left"})) == []


@pytest.mark.parametrize(
    ("verdicts", "told"),
    [
        ([], "logits and gradients were not compared in this call"),
        ([True, True], "logits and gradients agree"),
        ([True, False], "logits or gradients differ"),
    ],
)
def test_below_the_newest_stands_whether_both_compute_the_same(verdicts, told, store):
    ours = OURS | {"options": {}} | FIGURES
    compared = [{"row": "", "kind": "agreement", "side": "ours", "agrees": x} for x in verdicts]
    store(call("NVIDIA H200", ours, *compared))
    assert f"05:14 UTC: {told}; commit" in summary.tables()


def test_each_kind_of_device_has_a_table_of_the_newest(store):
    row = OURS | {"options": {}} | FIGURES
    store(call("NVIDIA H100", row), call("NVIDIA H200", row))
    other, mine = summary.tables().split("### NVIDIA H100")
    assert "### NVIDIA H200" in other
    assert other.count("| 726 |") == mine.count("| 726 |") == 1
