"""The rules of the house: short files, one thought a line, comments where the reasoning is. What a room still lacks
stands in LEFT."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

import pytest

import fmjax
from fmjax import sharding
from fmjax.config.recipe import Recipe
from fmjax.engine.adapters import outlined
from fmjax.models.build import abstract, param_shapes
from fmjax.trees import leaf_paths
from tests.support import house

# Room -> rule -> how often it is broken today; `nodes` and `comments` are the room's own figures. It only sinks:
# `python -m tests.support.house --left` prints it anew, and the rooms named print every place.
LEFT: dict[str, dict[str, float]] = {
    "fmjax": {"nodes": 8.1},
    "fmjax/bench": {"nodes": 8.1},
    "fmjax/config": {"nodes": 7.3},
    "fmjax/data": {"nodes": 9.2},
    "fmjax/data/check": {"nodes": 10.3},
    "fmjax/data/sources": {"nodes": 8.8},
    "fmjax/deploy": {"nodes": 7.6},
    "fmjax/engine": {"nodes": 8.6},
    "fmjax/kernels": {"nodes": 10.6},
    "fmjax/models": {"nodes": 9.2},
    "fmjax/programs": {"nodes": 9.2},
    "fmjax/programs/tao": {"nodes": 8.3},
    "fmjax/report": {"nodes": 10.0},
    "fmjax/store": {"nodes": 8.0},
    "fmjax/tasks": {"nodes": 9.9},
    "fmjax/weights": {"nodes": 8.6},
    "weights_conversion": {"nodes": 9.6},
    "weights_conversion/readers": {"nodes": 8.6},
}
SLACK = {"nodes": 0.5, "comments": 0.5}  # figures of whole rooms move a little with every line


@pytest.fixture(scope="module")
def lacking() -> dict[str, dict[str, float]]:
    return house.lacking()


@pytest.mark.parametrize("room", house.rooms())
def test_a_room_breaks_no_rule_more_often_than_is_left(room, lacking):
    allowed, found = LEFT.get(room, {}), lacking.get(room, {})
    worse = {
        rule: value for rule, value in found.items() if _beyond(rule, value, allowed.get(rule))
    }
    assert not worse, (
        f"{room}: {worse}, where {allowed} is left; see python -m tests.support.house {room}"
    )


@pytest.mark.parametrize("room", house.rooms())
def test_what_is_left_is_taken_down_when_a_room_is_better(room, lacking):
    allowed, found = LEFT.get(room, {}), lacking.get(room, {})
    better = {
        rule: value for rule, value in allowed.items() if _beyond(rule, value, found.get(rule))
    }
    assert not better, (
        f"{room} is better than {better}: {found}; take LEFT down (python -m tests.support.house --left)"
    )


def test_nothing_is_left_of_rooms_that_are_not_there():
    assert set(LEFT) <= set(house.rooms())


def test_few_files_lie_loose():
    assert len(house.loose()) <= house.MAX_LOOSE, house.loose()


def test_no_modules_import_each_other():
    assert house.circles() == []


def _beyond(rule: str, value: float, other: float | None) -> bool:
    """Whether a figure breaks its rule further than another does, or than one that keeps it (None)."""
    if other is None:
        return True
    if rule == "comments":
        return value < other - SLACK[rule]
    return value > other + SLACK.get(rule, 0)


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        ("choices", "x = (1 if a else 2) + (3 if b else 4)\n"),
        ("choice in a comprehension", "def f():\n    return [1 if a else 2 for a in b]\n"),
        ("fors", "def f():\n    return [1 for a in b for c in a for d in c]\n"),
        ("for in a table", "X = (1, *(a for a in b))\n"),
        (
            "complexity",
            "def f():\n" + "".join(f"    if a{i} and b:\n        c()\n" for i in range(6)),
        ),
        ("uncommented", "def f():\n" + "    a()\n" * 13),
        ("columns", "def f():\n    return " + "a + " * 24 + "b\n"),
        ("lines", "a = 1\n" * 401),
    ],
)
def test_every_rule_sees_what_it_is_for(tmp_path, monkeypatch, rule, source):
    monkeypatch.setattr(house, "ROOT", tmp_path)
    path = tmp_path / "fmjax" / "x.py"
    path.parent.mkdir()
    path.write_text(source)
    assert house.measure(path).counts() == {rule: 1}


def test_what_the_rules_allow_is_let_through(tmp_path, monkeypatch):
    monkeypatch.setattr(house, "ROOT", tmp_path)
    path = tmp_path / "x.py"
    path.write_text(
        '"""Text."""\n\nINVERSE = {b: a for a, b in TABLE.items()}\n\n\ndef f():\n    # why\n'
        + "    a()\n" * 13
        + f'    raise ValueError(\n        "{"a" * 100}"\n    )\n'
    )
    one = house.measure(path)
    assert one.places == []
    assert (one.comments, one.docstrings, one.complexity) == (1, 1, 1)


@cache
def parameters() -> dict[str, str]:
    """Every parameter path of every backbone, one with a classifier among them -> a model that has it; and of a head,
    which is a part of a net beside the backbone."""
    found = dict.fromkeys(("kernel", "bias"), "a linear head")
    found |= dict.fromkeys(param_shapes(fmjax.get_spec("ViT-B-16"), num_classes=10), "ViT-B-16")
    for name in fmjax.list_models():
        found |= dict.fromkeys(param_shapes(fmjax.get_spec(name)), name)
    adapted = outlined(abstract(fmjax.get_spec("ViT-B-16")), Recipe(lora_rank=4, lora_targets=".*"))
    return found | dict.fromkeys(leaf_paths(adapted), "ViT-B-16 with adapters")


def unplaced(paths: Iterable[str]) -> list[str]:
    """The paths that no row of the layout table matches before its last."""
    rows = sharding.RULES[:-1]
    return [path for path in paths if not any(re.fullmatch(pattern, path) for pattern, _ in rows)]


def test_every_parameter_has_a_row_of_its_own_in_the_layout_table():
    assert sharding.RULES[-1] == (".*", ())
    assert len(parameters()) > 50
    assert {path: parameters()[path] for path in unplaced(parameters())} == {}


def test_a_new_kernel_or_token_is_seen_to_have_no_row():
    new = ["head.kernel", "mask_token", "text.blocks.attn.q.kernel", "logit_scale"]
    assert unplaced([*new, "head.bias"]) == new


def test_no_row_of_the_layout_table_is_without_parameters():
    for pattern, _ in sharding.RULES[:-1]:
        assert any(re.fullmatch(pattern, path) for path in parameters()), pattern
