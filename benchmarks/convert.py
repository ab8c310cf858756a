"""`fmjax convert` and `load` beside torch.load and timm's own loading: python benchmarks/convert.py OUT_DIR [NAME ...]

Synthetic float16 files with the published keys and shapes. Every step is a process of its own; the page cache is warm
for all, since the file has just been written. Results: benchmarks/results/convert.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

CASES = {
    "ViT-B-32.openai": ("open_clip", "vit_base_patch32_clip_quickgelu_224"),
    "ViT-L-14.openai": ("open_clip", "vit_large_patch14_clip_quickgelu_224"),
    "ViT-g-14.laion2b_s12b_b42k": ("open_clip", "vit_giant_patch14_clip_224"),
    "EVA02-E-14-plus.laion2b_s9b_b144k": ("open_clip_timm", "eva02_enormous_patch14_clip_224"),
}
REPEATS = 3

SYNTHETIC = """
import sys, torch, fmjax, weights_conversion as wc, numpy as np
from fmjax.models.build import param_shapes
name, dialect, path = sys.argv[1:]
shapes = param_shapes(fmjax.get_spec(name))
params = wc.in_memory_tree({p: np.broadcast_to(np.float16(0), s) for p, s in shapes.items()})
shapes = {k: t.shape for k, t in wc.to_torch(params, wc.writing(dialect, shapes)).items()}
zeros = {"visual.trunk.head.bias"} if not fmjax.get_spec(name).proj_bias else set()
torch.save({k: torch.zeros(s, dtype=torch.float16) if k in zeros else torch.rand(s, dtype=torch.float16)
            for k, s in shapes.items()}, path)
"""
CONVERT = "import sys; from fmjax.cli import main; sys.exit(main(['convert', *sys.argv[1:]]))"
LOAD = """
import sys, jax, jax.numpy as jnp, fmjax
model = fmjax.load(sys.argv[1], checkpoint=sys.argv[2], param_dtype=jnp.float16)
jax.block_until_ready(jax.tree.leaves(model))
"""
TIMM = """
import sys, torch
for name in ("nms", "qnms"):
    torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import timm
from timm.models import eva, vision_transformer
file = torch.load(sys.argv[2], map_location="cpu", weights_only=True, mmap=sys.argv[3] == "mmap")
with torch.device("meta"):
    model = timm.create_model(sys.argv[1], pretrained=False)
model = model.to(torch.float16).to_empty(device="cpu")
module = eva if isinstance(model, eva.Eva) else vision_transformer
model.load_state_dict(module.checkpoint_filter_fn(file, model), strict=True)
"""


def measure(code: str, *arguments: str) -> dict[str, float]:
    """Seconds, processor seconds and peak memory of a Python process."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, (code, arguments)
    seconds, used = time.perf_counter() - start, usage.ru_utime + usage.ru_stime
    return {"seconds": seconds, "cpu_s": used, "peak_mb": usage.ru_maxrss / 1024}


def median(code: str, *arguments: str, repeats: int) -> dict[str, float]:
    runs = sorted(
        (measure(code, *arguments) for _ in range(repeats)), key=lambda run: run["seconds"]
    )
    return runs[len(runs) // 2]


def main(folder: Path, names: list[str]) -> None:
    idle = {
        "fmjax": measure(
            "import fmjax.programs.convert, fmjax.models.build as f, fmjax; f.param_shapes(fmjax.get_spec('ViT-B-32'))"
        ),
        "timm": measure(TIMM.split("file =")[0]),
    }
    rows = []
    for name in names or CASES:
        dialect, timm_name = CASES[name]
        source, target = folder / "source.pt", folder / "target.safetensors"
        measure(SYNTHETIC, name, dialect, str(source))
        size, repeats = source.stat().st_size, 1 if source.stat().st_size > 4e9 else REPEATS
        steps = {
            "timm": ("timm", TIMM, (timm_name, str(source), "whole")),
            "timm_mmap": ("timm", TIMM, (timm_name, str(source), "mmap")),
            "convert": ("fmjax", CONVERT, (name, str(source), str(target))),
            "load": ("fmjax", LOAD, (name, str(source))),
        }
        row = {"name": name, "dialect": dialect, "bytes": size}
        for step, (library, code, arguments) in steps.items():
            found = median(code, *arguments, repeats=repeats)
            net = {"net_s": found["seconds"] - idle[library]["seconds"]}
            net |= {
                "net_mb": found["peak_mb"] - idle[library]["peak_mb"],
                "gb_per_s": size / 1e9 / found["seconds"],
            }
            row[step] = found | net
            target.unlink(missing_ok=True)
        rows.append(row)
        print(json.dumps(row))
        source.unlink()
    result = {"imports": idle, "rows": rows}
    Path(__file__).with_name("results").joinpath("convert.json").write_text(
        json.dumps(result, indent=1) + "\n"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
