"""What a recipe costs in the step: one step of each in turn, over the step that trains all with AdamW.

python benchmarks/recipe_steps.py  ->  benchmarks/results/recipe_steps.json and its table in docs/speed.md (--table)

ViT-S/16 of random weights at 224 pixels, batch 8, float32, processor time, medians over rounds.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results") / "recipe_steps.json"
PAGE = Path(__file__).parents[1] / "docs" / "speed.md"
START, END = "<!-- benchmarks/recipe_steps.py -->", "<!-- end of benchmarks/recipe_steps.py -->"
ROUNDS = 7
PLAIN = "all, AdamW"
# name -> (as on the command line, fields of the recipe)
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    PLAIN: ("the defaults", {}),
    "with an average": ("`--recipe.ema 0.999`", {"ema": 0.999}),
    "in two parts": ("`--recipe.accumulate 2`", {"accumulate": 2}),
    "SGD": ("`--recipe.optimiser sgd`", {"optimiser": "sgd"}),
    "Muon": ("`--recipe.optimiser muon`", {"optimiser": "muon"}),
    "adapters of rank 8": ("`--recipe.lora-rank 8`", {"lora_rank": 8}),
    "norms and biases": ("`--recipe.train norms_and_biases`", {"train": "norms_and_biases"}),
    "the last two blocks": ("`--recipe.last-blocks 2`", {"last_blocks": 2}),
    "the head": ("`--recipe.train head`", {"train": "head"}),
}


def compiled_cases() -> dict[str, dict[str, Any]]:
    """Of each case the compiled step, its state and batch, and what the compiler says of its memory."""
    from guards import SMALL, started

    from fmjax.engine.ahead import compiled_ahead
    from fmjax.trees import flat

    out = {}
    for name, (_, fields) in CASES.items():
        plan, mesh, state, batch = started(replace(SMALL, recipe=replace(SMALL.recipe, **fields)))
        ahead = compiled_ahead(plan, mesh)
        leaves = flat(plan.params)
        trained = sum(leaf.size for path, leaf in leaves.items() if path not in plan.freeze.paths)
        out[name] = {
            "step": ahead.program,
            "state": state,
            "batch": batch,
            "memory_mib": round(ahead.memory.total / 2**20),
            "trained": trained,
        }
    return out


def measured() -> dict[str, dict[str, float]]:
    """Seconds a step of each case, and the median of its ratios to the plain one in the same round."""
    import jax

    cases = compiled_cases()
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(ROUNDS + 1):
        for name, case in cases.items():
            start = time.process_time()
            case["state"], logs = case["step"](case["state"], case["batch"])
            jax.block_until_ready(logs)
            # the first round warms up
            if number:
                seconds[name].append(time.process_time() - start)
    plain = seconds[PLAIN]
    return {
        name: {
            "seconds": round(statistics.median(found), 3),
            "ratio": round(statistics.median(a / b for a, b in zip(found, plain, strict=True)), 3),
            "memory_mib": cases[name]["memory_mib"],
            "trained": cases[name]["trained"],
        }
        for name, found in seconds.items()
    }


def table() -> str:
    """The rows of docs/speed.md."""
    lines = [
        "| what is trained | flags | seconds a step | over the first | parameters trained | memory of a step |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in json.loads(RESULTS.read_text())["cases"].items():
        cells = [
            name,
            CASES[name][0],
            f"{row['seconds']:.2f}",
            f"{row['ratio']:.2f}",
            f"{row['trained']:,}",
            f"{row['memory_mib']:,} MiB",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write_page() -> None:
    from pages import put

    put(PAGE, START, END, table())


def main() -> None:
    import jax

    record = {"machine": platform.machine(), "jax": jax.__version__, "rounds": ROUNDS}
    RESULTS.write_text(json.dumps(record | {"cases": measured()}, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] != ["--table"]:
        main()
    write_page()
