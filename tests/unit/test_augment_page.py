"""docs/speed.md: what changes of training images cost is what is stored."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from benchmarks import augment
from fmjax.config import AugmentConfig


def test_the_table_is_that_of_the_results():
    page = (Path(__file__).parents[2] / "docs" / "speed.md").read_text()
    shown = page.partition(augment.START)[2].partition(augment.END)[0]
    assert shown.strip() == augment.table(), "run `python benchmarks/augment.py --table`"


def test_every_change_is_measured():
    named = {name for _, options in augment.CASES.values() for name in options}
    strengths = {"rand_magnitude", "rand_std"}
    assert named == {field.name for field in fields(AugmentConfig)} - strengths
