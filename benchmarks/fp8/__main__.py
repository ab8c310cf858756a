"""Compiles steps whose linear layers have their products in FP8 for an H100 that is not here, beside bfloat16's.

python -m benchmarks.fp8 [--table]

Needs what benchmarks.compiled needs. Writes the table of docs/speed.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partialmethod
from unittest import mock

from benchmarks import h100  # before jax # isort: skip

import jax

from benchmarks.compiled import roofline
from benchmarks.compiled.program import Kernel, kernels
from benchmarks.fp8.page import RESULTS, Row, write_page
from benchmarks.fp8.product import Factors, output
from benchmarks.gpu import cases, ours
from benchmarks.gpu.cases import Case
from fmjax.bench.plans import planned
from fmjax.engine.ahead import compiled_ahead
from fmjax.models.linear import Linear
from fmjax.sharding import make_mesh

# the first blocks alone: each is what those before it are
CASES = (
    replace(cases.ours("train", "ViT-L/14", 128), blocks=6),
    replace(cases.ours("train", "DINOv2-g/14", 64), blocks=6),
    replace(cases.ours("train", "EVA02-E/14", 32), blocks=4),
)
FACTORS: tuple[Factors, ...] = ("own", "known")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fp8", description=__doc__)
    parser.add_argument("--table", action="store_true", help="writes the page's table, no more")
    if not parser.parse_args().table:
        rows = [asdict(row) for case in CASES for row in compared(case)]
        results = {"versions": {"jax": jax.__version__}, "rows": rows}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    write_page()


def compared(case: Case) -> Iterator[Row]:
    """A step by its own greatest numbers, and by known ones."""
    plain = compiled(case)
    whole = sum(map(milliseconds, plain))
    for factors in FACTORS:
        with mock.patch.object(Linear, "_output", partialmethod(output, factors=factors)):
            found = compiled(case)
        taken = sum(milliseconds(kernel) for kernel in found if "f8" in kernel.kind)
        added = sum(map(milliseconds, found)) - whole
        shown = Row(case.model, case.batch, case.blocks, factors, whole, taken, added)
        print(shown, f"breaks even at {shown.even:.2f}", flush=True)
        yield shown


def compiled(case: Case) -> list[Kernel]:
    mesh = make_mesh(devices=h100.devices(1))
    return kernels(compiled_ahead(planned(ours.config_of(case), mesh), mesh).program.as_text())


def milliseconds(kernel: Kernel) -> float:
    """At the rates of bfloat16."""
    kind = roofline.kinds(kernel, frozenset(), scanned=False)
    return 1e3 * kernel.times * roofline.seconds(kernel, kind)


if __name__ == "__main__":
    main()
