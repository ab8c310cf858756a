"""Which batch of which model fits which card: training steps compiled for an H100 that is not here.

python -m benchmarks.memory [--out FILE.json] [--rows PART ...] [--table]

Rows that are there already are kept, so that it can be stopped and started again. Needs jax-cuda13-plugin and
jax-cuda13-pjrt of jax's own version (benchmarks/h100.py).
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import h100  # before jax # isort: skip

import jax
from jax.sharding import Mesh

from benchmarks.memory.cases import CASES, COMPUTED, KEPT, MODELS, TRAINED, Case
from benchmarks.memory.fits import on_cards
from benchmarks.memory.page import RESULTS, write_page
from fmjax.bench.plans import planned
from fmjax.config import ModelConfig, Recipe, RunConfig
from fmjax.engine.ahead import compiled_ahead
from fmjax.engine.costs import Memory
from fmjax.engine.plan import Plan
from fmjax.sharding import make_mesh


def main() -> None:
    asked = arguments()
    if not asked.table:
        compile_all(asked.out, asked.rows)
    if asked.out == RESULTS:
        write_page()


def compile_all(out: Path, wanted: list[str]) -> None:
    """Row after row, and after each all results: one takes a minute or two."""
    mesh, versions = make_mesh(devices=h100.devices(1)), {"jax": jax.__version__}
    found = {row["row"]: row for row in stored(out)}
    for case in CASES:
        asked = not wanted or any(part in case.name for part in wanted)
        if case.name in found or not asked:
            continue
        found[case.name] = measured(case, mesh)
        print(case.name, found[case.name], flush=True)
        rows = [found[each.name] for each in CASES if each.name in found]
        out.write_text(json.dumps({"versions": versions, "rows": rows}, indent=1) + "\n")


def stored(out: Path) -> list[dict[str, Any]]:
    """What is there already."""
    return json.loads(out.read_text())["rows"] if out.exists() else []


def measured(case: Case, mesh: Mesh) -> dict[str, Any]:
    """A row: what the step takes with each number of images that was tried, and the most that fit each card."""
    start = time.perf_counter()
    tried: dict[int, Memory] = {}

    def takes(batch: int) -> Memory:
        if batch not in tried:
            tried[batch] = compiled_ahead(plan_of(case, batch, mesh), mesh).memory
        return tried[batch]

    fits = on_cards(takes)
    known = {str(batch): asdict(tried[batch]) for batch in sorted(tried)}
    took = round(time.perf_counter() - start, 1)
    return {"row": case.name, **asdict(case), "fits": fits, "tried": known, "took_s": took}


def plan_of(case: Case, batch: int, mesh: Mesh) -> Plan:
    """The plan of the run whose step a row is of."""
    return planned(config_of(case, batch), mesh)


def config_of(case: Case, batch: int) -> RunConfig:
    model, computed = MODELS[case.model], dict(COMPUTED[case.computed])
    side, dtype = (model.size, model.size), computed.pop("dtype")
    return RunConfig(
        model=ModelConfig(name=model.name, init="random", image_size=side, dtype=dtype),
        recipe=Recipe(**TRAINED[case.trained]),
        batch_size=batch,
        **KEPT[case.kept],
        **computed,
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS, help="the results, which are added to")
    parser.add_argument("--rows", nargs="*", default=[], help="parts of names; all without any")
    parser.add_argument("--table", action="store_true", help="writes the page's table, no more")
    return parser.parse_args()


if __name__ == "__main__":
    main()
