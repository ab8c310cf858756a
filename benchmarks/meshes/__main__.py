"""What fits where: memory and collectives of a training step, as XLA compiles it for H100s that are not here.

python -m benchmarks.meshes [PART OF A NAME ...] [--table]. Full fine-tuning by AdamW, float32 parameters and moments,
bfloat16 compute, 1,000 classes, 224 pixels; blocks computed again for their backward pass (--remat full), and by
default. Figures are the compiler's, not measured. Results: benchmarks/results/meshes.json, which a further run adds to.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from importlib import metadata
from typing import Any

from benchmarks import h100  # before jax # isort: skip

from jax.sharding import Mesh

from benchmarks.compiled.program import EXCHANGES, computations, kernels
from benchmarks.meshes import page, scaling
from benchmarks.meshes.cases import CASES, DEFAULTS, SCALED, SCALES, SIZE, Case
from fmjax.bench.plans import planned
from fmjax.config import MeshConfig, ModelConfig, Recipe, RunConfig
from fmjax.engine.ahead import compiled_ahead
from fmjax.engine.costs import collective, collectives
from fmjax.engine.hlo import Instruction
from fmjax.engine.plan import Plan
from fmjax.models.flops import flops
from fmjax.sharding import make_mesh


def main() -> None:
    asked = arguments()
    if not asked.table:
        compile_all(asked.rows)
    page.write_page()


def compile_all(wanted: list[str]) -> None:
    """Those that are asked for and not there yet; after each all results, as a compilation takes a minute."""
    found = {row["name"]: row for row in page.results()}
    for case in CASES:
        chosen = not wanted or any(part in case.name for part in wanted)
        if not chosen or case.name in found:
            continue
        found[case.name] = {"name": case.name, **measured(case)}
        print(case.name, found[case.name]["GiB"], found[case.name]["compiling_s"], flush=True)
        rows = [found[each.name] for each in CASES if each.name in found]
        page.RESULTS.write_text(json.dumps({"versions": versions(), "rows": rows}, indent=1) + "\n")


def measured(case: Case) -> dict[str, Any]:
    """A case's figures."""
    plan, mesh = plan_of(case)
    ahead = compiled_ahead(plan, mesh)
    memory, text = ahead.memory, ahead.program.as_text()
    return {
        **asdict(case),
        "devices": case.devices,
        "GiB": {part: round(value / h100.GIB, 3) for part, value in asdict(memory).items()}
        | {"total": round(memory.total / h100.GIB, 3)},
        "collectives": [asdict(row) for row in collectives(text, mesh.shape)],
        **_scaling(case, plan, text, mesh),
        "depth": plan.net["backbone"].spec.depth,
        "lowering_s": round(ahead.lowering_s, 1),
        "compiling_s": round(ahead.compiling_s, 1),
    }


def _scaling(case: Case, plan: Plan, text: str, mesh: Mesh) -> dict[str, Any]:
    """Of meshes whose scaling is predicted: what a device computes, and beside what it exchanges."""
    machines = case.model in SCALED and case.tensor == 1 and (case.data, case.fsdp) in SCALES
    if not machines and case not in DEFAULTS:
        return {}
    spec, found = plan.net["backbone"].spec, kernels(text)
    tokens = flops(spec).tokens
    beside = scaling.behind(computations(text), found, tokens)
    scheduled = []
    for kernel in found:
        operation = kernel.operation
        if kernel.kind in EXCHANGES:
            told = Instruction(operation.result, operation.opcode, operation.rest)
            # one that is not started ahead has nothing beside it
            more = {"count": kernel.times, "behind_ms": round(beside.get(operation.name, 0.0), 4)}
            rows = collective(kernel.kind, told, kernel.trips, mesh.shape)
            scheduled += [asdict(each) | more for each in rows]
    computes = scaling.computing(found, spec.depth, tokens)
    return {"computing_ms": computes, "scheduled": scheduled}


def plan_of(case: Case) -> tuple[Plan, Mesh]:
    """The plan of a case, and its mesh."""
    mesh = make_mesh(case.data, case.fsdp, case.tensor, devices=h100.devices(case.devices))
    config = RunConfig(
        model=ModelConfig(name=case.model, image_size=(SIZE, SIZE), dtype="bfloat16"),
        recipe=Recipe(),
        mesh=MeshConfig(data=case.data, fsdp=case.fsdp, tensor=case.tensor),
        batch_size=case.batch * case.data * case.fsdp,
        remat=case.remat,  # pyright: ignore[reportArgumentType]
    )
    return planned(config, mesh), mesh


def versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("jax", "flax", "jax-cuda13-plugin")}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.meshes", description=__doc__)
    parser.add_argument("rows", nargs="*", help="parts of names; all without any")
    parser.add_argument("--table", action="store_true", help="writes the page's tables, no more")
    return parser.parse_args()


if __name__ == "__main__":
    main()
