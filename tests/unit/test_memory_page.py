"""docs/memory.md: its table is the stored one, and `--batch auto` would find what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import jax
import pytest
from jax.sharding import Mesh

from benchmarks.memory import fits, page
from benchmarks.memory.cases import BATCHES, CARDS, CASES
from fmjax.bench.plans import planned
from fmjax.config import ModelConfig, RunConfig
from fmjax.engine.ahead import Ahead, compiled_ahead
from fmjax.engine.costs import Memory
from fmjax.engine.fitting import GIB, fit, limit_of
from fmjax.engine.plan import Plan
from fmjax.sharding import make_mesh

ROOT = Path(__file__).parents[2]
ROWS = json.loads(page.RESULTS.read_text())["rows"]
FEW, MANY = 32, 64
LARGEST = "EVA02-E/14, --remat full --unroll false"


def test_the_table_is_that_of_the_results():
    shown = page.PAGE.read_text().partition(page.START)[2].partition(page.END)[0]
    assert shown.strip() == page.table(), "run `python -m benchmarks.memory --table`"


def test_rows_are_cases_in_their_order():
    """A case that is not compiled yet is added by the next run of the command."""
    names = [row["row"] for row in ROWS]
    assert names == [case.name for case in CASES if case.name in names]


@pytest.mark.parametrize(
    ("name", "card", "batch"),
    [
        (f"{LARGEST}, AdamW", "80 GB", 32),
        (f"{LARGEST}, AdamW, --recipe.moments bfloat16", "80 GB", 128),
        (f"{LARGEST}, --recipe.optimiser adafactor", "80 GB", 256),
        (f"{LARGEST}, --recipe.optimiser adafactor", "40 GB", 16),
        (f"{LARGEST}, AdamW, --recipe.lora-rank 16", "24 GB", 32),
        (f"{LARGEST}, AdamW, --recipe.lora-rank 16", "16 GB", None),
        ("DINOv2-g/14, --remat dots --unroll false, AdamW", "80 GB", 128),
    ],
)
def test_the_words_of_the_page_are_those_of_the_table(name, card, batch):
    row = next(row for row in ROWS if row["row"] == name)
    assert row["fits"][card] == batch


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["row"])
def test_what_fits_is_what_the_search_finds_in_what_was_compiled(row):
    takes = page.takes(row)
    assert fits.on_cards(takes.__getitem__) == row["fits"]
    # the search goes by halves, for which more images have to take more
    totals = [takes[batch].total for batch in sorted(takes)]
    assert totals == sorted(totals)
    for card, batch in row["fits"].items():
        fitting = [each for each in takes if takes[each].total <= fits.limit(card)]
        assert batch == (max(fitting) if fitting else None)
        # the next larger one was tried, and does not fit
        assert batch == BATCHES[0] or 2 * (batch or 0.5) in takes


def test_a_card_allots_no_more_than_it_has():
    for card, gib in CARDS.items():
        assert gib < float(card.split()[0]) * 1e9 / GIB * 1.08
        # what libraries work in is left, and more
        assert fits.limit(card) < fits.allotted(card) * GIB - 0.6 * GIB


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def plan_of(mesh) -> Callable[[int], Plan]:
    """Images -> the plan of a step of so many."""

    def made(batch: int) -> Plan:
        model = ModelConfig(init="random", dtype="float32")
        return planned(RunConfig(model=model, batch_size=batch), mesh)

    return made


@pytest.fixture
def takes(mesh, plan_of, monkeypatch) -> Callable[[int], Memory]:
    """Images -> what their step takes; each program is compiled once, for the search too."""

    @cache
    def ahead(batch: int, parts: int) -> Ahead:
        return compiled_ahead(replace(plan_of(batch), accumulate=parts), mesh)

    def known(plan: Plan, mesh: Mesh) -> Ahead:
        return ahead(plan.batch_size, plan.accumulate)

    monkeypatch.setattr("fmjax.engine.fitting.compiled_ahead", known)
    return lambda batch: ahead(batch, 1).memory


def test_batch_auto_takes_in_one_part_what_fits_and_the_next_in_two(mesh, plan_of, takes):
    # a device that has room for no more than the smaller batch
    middle = (3 * takes(MANY).total + takes(FEW).total) / 4
    most = limit_of(mesh, middle / 0.95 / GIB)
    assert fits.first_fitting((MANY, FEW), takes, most) == FEW
    assert fit(plan_of(FEW), mesh, most).parts == 1
    found = fit(plan_of(MANY), mesh, most)
    assert found.parts == 2
    # two parts add up their gradients, and are still smaller than one
    assert takes(FEW).total < found.tried[2].total <= most < found.tried[1].total
