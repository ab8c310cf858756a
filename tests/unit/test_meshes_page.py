"""docs/scaling.md: its tables are the stored ones, and what it says of every layer holds of them."""

from __future__ import annotations

import pytest

from benchmarks.meshes import page, scaling
from benchmarks.meshes.cases import CASES, SCALED, SCALES, in_loop

ROWS = page.again()
SPLIT = [row for row in ROWS if row["fsdp"] > 1]
USUAL = [row for row in page.results() if row not in ROWS]


def in_layers(row: dict, kind: str) -> list[dict]:
    """What a layer exchanges, but for vectors."""
    return [
        each
        for each in row["collectives"]
        if each["kind"] == kind and in_loop(each["trips"], row["depth"]) and each["bytes"] > 2e5
    ]


def looped(row: dict) -> int:
    """Blocks in the loop: the last one is not where it computes class tokens alone."""
    return max(each["trips"] for each in row["collectives"])


def travelled(row: dict, kind: str) -> int:
    return sum(each["bytes"] * each["count"] for each in in_layers(row, kind))


@pytest.mark.parametrize("name", page.TABLES)
def test_the_tables_are_those_of_the_results(name):
    start, end = page.marks(name)
    shown = page.PAGE.read_text().partition(start)[2].partition(end)[0]
    told = "run `python -m benchmarks.meshes --table`"
    assert shown.strip() == "\n".join(page.TABLES[name]()), told


def test_every_case_was_compiled():
    assert [row["name"] for row in page.results()] == [case.name for case in CASES]


@pytest.mark.parametrize("row", SPLIT, ids=lambda row: row["name"])
def test_weights_travel_in_half_precision_once_a_pass_and_tokens_do_not(row):
    kinds = {each["kind"] for each in row["collectives"]}
    assert kinds <= {"all-gather", "reduce-scatter", "all-reduce", "collective-permute"}
    gathered, scattered = travelled(row, "all-gather"), travelled(row, "reduce-scatter")
    # a third gather where both axes are beside fsdp, as the page says
    most = 3 if row["data"] > 1 and row["tensor"] > 1 else 2
    assert 2 * scattered <= gathered <= most * scattered
    assert {each["dtypes"] for each in in_layers(row, "all-gather")} == {"bf16"}
    assert {tuple(each["axes"]) for each in in_layers(row, "all-gather")} == {("fsdp",)}

    # between data and fsdp only gradients are summed: of each layer as many bytes as were scattered to a device
    summed = [each for each in in_layers(row, "all-reduce") if each["axes"] != ["tensor"]]
    over = sum(each["bytes"] * each["count"] for each in summed)
    assert over == pytest.approx(scattered / row["fsdp"] if row["data"] > 1 else 0)
    # over tensor the tokens of each half of a block: forward, again, and backward
    tokens = sum(
        each["count"] for each in in_layers(row, "all-reduce") if each["axes"] == ["tensor"]
    )
    assert tokens == (6 * looped(row) if row["tensor"] > 1 else 0)


@pytest.mark.parametrize("row", USUAL, ids=lambda row: row["name"])
def test_by_default_devices_compute_what_one_does_and_hide_what_they_exchange(row):
    alone = next(one for one in USUAL if one["model"] == row["model"] and one["devices"] == 1)
    found, expected = scaling.predicted(row), scaling.predicted(alone)
    assert found.computing == pytest.approx(expected.computing, rel=0.05)
    assert found.as_scheduled > 0.93
    # no block's exchange waits for a round of a loop
    assert {each["trips"] for each in row["collectives"]} <= {1}


@pytest.mark.parametrize("model", SCALED)
def test_more_machines_are_less_efficient_and_what_hides_is_more(model):
    rows = [row for row in ROWS if row["model"] == model and "scheduled" in row]
    assert [(row["data"], row["fsdp"]) for row in rows] == list(SCALES)
    found = [scaling.predicted(row) for row in rows]
    for each in found:
        assert each.one_by_one < each.as_scheduled < each.hidden < 1
        # devices compute the same wherever they are
        assert each.computing == pytest.approx(found[0].computing, rel=0.01)
    efficiencies = [each.as_scheduled for each in found]
    assert efficiencies == sorted(efficiencies, reverse=True)
