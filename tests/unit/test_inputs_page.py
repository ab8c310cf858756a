"""docs/speed.md: how fast pictures are read is what is stored."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import inputs


def test_the_table_is_that_of_the_results():
    page = (Path(__file__).parents[2] / "docs" / "speed.md").read_text()
    shown = page.partition(inputs.BEGIN)[2].partition(inputs.END)[0]
    found = inputs.table(json.loads(inputs.OUT.read_text()))
    assert shown.strip() == found, "run `python -m benchmarks.inputs --table`"
