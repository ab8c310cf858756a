"""Compiles fmjax's own step and forward pass for an H100 that is not here, and says what they must take there.

python -m benchmarks.compiled [--out FILE.json] [--rows PART ... | --held] [--keep FOLDER] [--table]

Needs jax-cuda13-plugin and jax-cuda13-pjrt of jax's own version (benchmarks/h100.py); `.ci/run` puts them into .aot.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks import h100  # before jax # isort: skip

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import fmjax
from benchmarks.compiled import roofline
from benchmarks.compiled.cases import HELD, KNOWN, SPLIT
from benchmarks.compiled.page import RESULTS, write_page
from benchmarks.compiled.program import kernels
from benchmarks.gpu import cases, ours
from benchmarks.gpu.cases import Case
from fmjax.bench.plans import planned
from fmjax.config import MeshConfig
from fmjax.engine.ahead import compiled_ahead
from fmjax.engine.costs import Memory, collectives, memory_of
from fmjax.models.build import resized
from fmjax.models.flops import flops
from fmjax.sharding import make_mesh


def main() -> None:
    asked = arguments()
    if not asked.table:
        compile_all(asked)
    if asked.out == RESULTS:
        write_page()


def compile_all(asked: argparse.Namespace) -> None:
    """Row after row, and after each all results: one takes up to a minute."""
    mesh, versions = make_mesh(devices=h100.devices(1)), {"jax": jax.__version__}
    found = {row["row"]: row for row in stored(asked.out)}
    split = known_exchanges(asked.out) if asked.rows else exchanges()
    for case in KNOWN.values():
        if not chosen(case, asked):
            continue
        found[case.name] = measured(case, mesh, asked.keep)
        print(case.name, found[case.name], flush=True)
        rows = [found[name] for name in KNOWN if name in found]
        results = {"versions": versions, "exchanges": split, "rows": rows}
        asked.out.write_text(json.dumps(results, indent=1) + "\n")


def exchanges() -> list[dict[str, Any]]:
    """What the devices of a mesh exchange in a step, its parameters split over eight."""
    mesh = make_mesh(1, 8, 1, devices=h100.devices(8))
    config = replace(ours.config_of(SPLIT), mesh=MeshConfig(data=1, fsdp=8))
    plan = planned(config, mesh)
    text = compiled_ahead(plan, mesh).program.as_text()
    return [asdict(each) for each in collectives(text, mesh.shape)]


def chosen(case: Case, asked: argparse.Namespace) -> bool:
    """Whether a row is asked for."""
    if asked.held:
        return case in HELD
    return not asked.rows or any(part in case.name for part in asked.rows)


def known_exchanges(out: Path) -> list[dict[str, Any]]:
    """Those that are there already."""
    return json.loads(out.read_text())["exchanges"] if out.exists() else []


def stored(out: Path) -> list[dict[str, Any]]:
    """What is there already."""
    return json.loads(out.read_text())["rows"] if out.exists() else []


def measured(case: Case, mesh: Mesh, keep: Path | None) -> dict[str, Any]:
    """A row."""
    start = time.perf_counter()
    memory, text = PROGRAMS[case.kind](case, mesh)
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"{case.slug}.hlo.gz").write_bytes(gzip.compress(text.encode()))
    model = cases.model_of(case, tiny=False)
    spec = resized(fmjax.get_spec(model.ours), model.size)
    found = roofline.figures(kernels(text), depth=spec.depth, tokens=flops(spec).tokens)
    gib = {"temporary_gib": round(memory.temporaries / h100.GIB, 2)}
    gib |= {"total_gib": round(memory.total / h100.GIB, 2)}
    return case.told | found | gib | {"took_s": round(time.perf_counter() - start, 1)}


def train(case: Case, mesh: Mesh) -> tuple[Memory, str]:
    """The step of the engine."""
    ahead = compiled_ahead(planned(ours.config_of(case), mesh), mesh)
    return ahead.memory, ahead.program.as_text()


def forward(case: Case, mesh: Mesh) -> tuple[Memory, str]:
    """Bytes of pictures to embeddings."""
    function, shapes = ours.embedder(case, mesh)
    size, place = cases.model_of(case, tiny=False).size, NamedSharding(mesh, PartitionSpec())
    images = jax.ShapeDtypeStruct((case.batch, size, size, 3), jnp.uint8, sharding=place)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes)
    program = function.lower(shapes, images).compile()
    return memory_of(program), program.as_text()


PROGRAMS = {"train": train, "forward": forward}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compiled", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS, help="the results, which are added to")
    parser.add_argument("--rows", nargs="*", default=[], help="parts of names; all without any")
    parser.add_argument(
        "--held", action="store_true", help="what a test holds: a run without flags"
    )
    parser.add_argument("--keep", type=Path, help="a folder for the programs")
    parser.add_argument("--table", action="store_true", help="writes the page's table, no more")
    return parser.parse_args()


if __name__ == "__main__":
    main()
