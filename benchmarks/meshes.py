"""What fits where: memory and collectives of a training step, as XLA compiles it for H100s that are not here.

python benchmarks/meshes.py [PART OF A NAME ...]. Full fine-tuning by AdamW, float32 parameters and moments, bfloat16
compute, 1,000 classes, 224 pixels, blocks computed again for their backward pass (--remat full). Figures are the
compiler's, not measured. Results: benchmarks/results/meshes.json, which a further run adds to; --table prints it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results") / "meshes.json"
SIZE = 224  # pixels
BATCH = 32  # images a device, or more where tensor parallelism shares them


@dataclass(frozen=True)
class Case:
    """A model on a mesh."""

    model: str
    data: int
    fsdp: int
    tensor: int = 1
    batch: int = BATCH  # images for each part of data x fsdp
    remat: str = "full"

    @property
    def devices(self) -> int:
        return self.data * self.fsdp * self.tensor

    @property
    def name(self) -> str:
        axes = f"data {self.data} x fsdp {self.fsdp} x tensor {self.tensor}"
        return f"{self.model}, {axes}, batch {self.batch}, remat {self.remat}"


MODELS = (
    "ViT-B-16.openai",
    "ViT-L-14.openai",
    "ViT-H-14.laion2b_s32b_b79k",
    "ViT-g-14.laion2b_s34b_b88k",
    "dinov2_vitg14.lvd142m",
    "ViT-bigG-14.laion2b_s39b_b160k",
    "EVA02-E-14-plus.laion2b_s9b_b144k",
    "dinov3_vit7b16.lvd1689m",
)
LARGEST = MODELS[-2:]
# one device; a machine of eight; eight machines and 32, the parameters split inside each
NODES = ((1, 1), (1, 8), (8, 8), (32, 8))
WHOLE = ((1, 64), (1, 256))  # split over all devices of several machines
TENSOR = ((1, 4), (8, 4), (32, 4))  # and heads and hidden units over two
CASES = (
    *(Case(model, *sizes) for model in LARGEST for sizes in (*NODES, *WHOLE)),
    *(Case(model, *sizes, tensor=2, batch=2 * BATCH) for model in LARGEST for sizes in TENSOR),
    *(Case(model, *sizes) for model in MODELS[:-2] for sizes in NODES),
)


def measured(case: Case) -> dict[str, Any]:
    """A case's figures."""
    import h100  # before jax

    from fmjax.engine.ahead import compiled_ahead
    from fmjax.engine.costs import collectives

    plan, mesh = planned(case)
    ahead = compiled_ahead(plan, mesh)
    memory, text = ahead.memory, ahead.program.as_text()
    return {
        **asdict(case),
        "devices": case.devices,
        "GiB": {part: round(value / h100.GIB, 3) for part, value in asdict(memory).items()}
        | {"total": round(memory.total / h100.GIB, 3)},
        "collectives": [asdict(row) for row in collectives(text, mesh.shape)],
        "depth": plan.net["backbone"].spec.depth,
        "lowering_s": round(ahead.lowering_s, 1),
        "compiling_s": round(ahead.compiling_s, 1),
    }


def planned(case: Case) -> tuple[Any, Any]:
    """The plan of a case, and its mesh."""
    import h100  # before jax
    import plans

    from fmjax.config import DataConfig, MeshConfig, ModelConfig, Recipe, RunConfig
    from fmjax.sharding import make_mesh

    mesh = make_mesh(case.data, case.fsdp, case.tensor, devices=h100.devices(case.devices))
    config = RunConfig(
        model=ModelConfig(name=case.model, image_size=(SIZE, SIZE), dtype="bfloat16"),
        data=DataConfig(),
        recipe=Recipe(),
        mesh=MeshConfig(data=case.data, fsdp=case.fsdp, tensor=case.tensor),
        batch_size=case.batch * case.data * case.fsdp,
        remat=case.remat,  # pyright: ignore[reportArgumentType]
    )
    return plans.planned(config, mesh), mesh


def table() -> str:
    """The tables of docs/scaling.md."""
    rows = _results()
    found = {(row["model"], row["data"], row["fsdp"], row["tensor"]): row for row in rows}
    meshes = dict.fromkeys((case.data, case.fsdp, case.tensor) for case in CASES)
    names = [" x ".join(map(str, sizes)) for sizes in meshes]
    lines = [f"| model | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for model in MODELS:
        cells = [_cell(found.get((model, *sizes))) for sizes in meshes]
        lines.append(f"| {model.partition('.')[0]} | {' | '.join(cells)} |")

    # what travels in one layer, forward and backward together
    lines += [
        "",
        "| model, mesh | exchange in a layer | over | dtype | times | MB each |",
        "|---" * 6 + "|",
    ]
    for row in rows:
        if row["model"] in LARGEST and row["devices"] > 1:
            lines += [*_layer(row)]
    return "\n".join(lines)


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    gib = row["GiB"]
    return f"{gib['total']:.1f} ({gib['arguments']:.1f})"


def in_loop(exchange: dict[str, Any], row: dict[str, Any]) -> bool:
    """Whether an exchange is in the loop over blocks, in which the last is not where it computes class tokens alone."""
    return exchange["trips"] in (row["depth"], row["depth"] - 1)


def _layer(row: dict[str, Any]) -> Iterator[str]:
    """Rows of a table for what a layer exchanges, but for vectors of biases and norms."""
    title = f"{row['model'].partition('.')[0]}, {row['data']} x {row['fsdp']} x {row['tensor']}"
    for each in row["collectives"]:
        if in_loop(each, row) and each["bytes"] > 1e6:
            times = each["count"] // each["trips"]
            size, axes = f"{each['bytes'] / 1e6:.1f}", " x ".join(each["axes"])
            yield f"| {title} | {each['kind']} | {axes} | {each['dtypes']} | {times} | {size} |"
            title = ""


def main(wanted: list[str]) -> None:
    found = {row["name"]: row for row in _results()}
    for case in CASES:
        chosen = not wanted or any(part in case.name for part in wanted)
        if not chosen or case.name in found:
            continue
        found[case.name] = {"name": case.name, **measured(case)}
        print(case.name, found[case.name]["GiB"], found[case.name]["compiling_s"], flush=True)
        # after each: a compilation takes a minute
        rows = [found[each.name] for each in CASES if each.name in found]
        RESULTS.write_text(json.dumps({"versions": _versions(), "rows": rows}, indent=1) + "\n")


def _results() -> list[dict[str, Any]]:
    return json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []


def _versions() -> dict[str, str]:
    from importlib import metadata

    return {name: metadata.version(name) for name in ("jax", "flax", "jax-cuda13-plugin")}


if __name__ == "__main__":
    if sys.argv[1:] == ["--table"]:
        print(table())
    else:
        main(sys.argv[1:])
