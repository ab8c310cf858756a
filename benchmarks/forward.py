"""ViT-B/16 on the CPU, float32: images/s beside timm, eager and compiled, interleaved in one run; compile times; cold
start.

python benchmarks/forward.py [ROUNDS]. Same weights, same images, same threads; the outputs are compared first. Results:
benchmarks/results/forward.json.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from turns import in_turn

THREADS = len(os.sched_getaffinity(0))
BATCH = 8


def torch_side():
    """The helper of the tests, which has to be imported before timm."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.support import torch_reference

    return torch_reference


def main(rounds: int) -> None:
    torch_reference = torch_side()
    import jax
    import timm
    import torch

    import fmjax
    import weights_conversion as wc
    from fmjax.models.build import abstract, param_shapes
    from fmjax.models.functional import functional
    from fmjax.weights.load import fill

    torch.set_num_threads(THREADS)
    spec = fmjax.get_spec("ViT-B-16.openai")
    reference = torch_reference.randomise(
        timm.create_model("vit_base_patch16_clip_quickgelu_224"), 0
    )
    torch.nn.init.zeros_(reference.head.bias)
    tensors = torch_reference.numpy_tensors(reference.state_dict())
    params = wc.to_jax(
        wc.in_memory_tree(tensors), wc.get_dialect("timm"), param_shapes(spec)
    ).params
    images = np.random.default_rng(0).standard_normal((BATCH, 224, 224, 3), np.float32)
    torch_images = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    compiled_torch = torch.compile(reference)
    ways, compile_s = {}, {}
    for name, unroll in (("fmjax scanned", False), ("fmjax unrolled", True)):
        apply, tree = functional(fill(abstract(spec, unroll=unroll), params))
        start = time.perf_counter()
        step = jax.jit(lambda p, x, apply=apply: apply(p, x).pooled).lower(tree, images).compile()
        compile_s[f"{name} forward"] = time.perf_counter() - start
        gradient = jax.jit(jax.grad(lambda p, x, apply=apply: apply(p, x).pooled.sum()))
        start = time.perf_counter()
        gradient.lower(tree, images).compile()
        compile_s[f"{name} gradient"] = time.perf_counter() - start
        ways[name] = lambda step=step, tree=tree: np.asarray(step(tree, images))

    def run_torch(model):
        with torch.inference_mode():
            return model(torch_images).numpy()

    ways["timm eager"] = lambda: run_torch(reference)
    start = time.perf_counter()
    run_torch(compiled_torch)
    compile_s["timm compiled forward"] = time.perf_counter() - start
    ways["timm compiled"] = lambda: run_torch(compiled_torch)
    outputs = {name: way() for name, way in ways.items()}
    scale = np.abs(outputs["timm eager"]).max()
    errors = {
        name: float(np.abs(out - outputs["timm eager"]).max() / scale)
        for name, out in outputs.items()
    }
    times = in_turn(ways, rounds, time.perf_counter)
    rate = {name: BATCH / statistics.median(t) for name, t in times.items()}
    best = {name: BATCH / min(t) for name, t in times.items()}
    ratio = {
        n: statistics.median(e / o for e, o in zip(times["timm eager"], t, strict=True))
        for n, t in times.items()
    }
    result = {
        "threads": THREADS,
        "batch": BATCH,
        "rounds": rounds,
        "relative_error": errors,
        "images_per_s_median": rate,
        "images_per_s_best": best,
        "speed_over_timm_eager_paired_median": ratio,
        "compile_s": compile_s,
        "cold_start_to_first_embedding_s": cold_start(),
        "versions": {"jax": jax.__version__, "torch": torch.__version__, "timm": timm.__version__},
    }
    print(json.dumps(result, indent=1))
    Path(__file__).with_name("results").joinpath("forward.json").write_text(
        json.dumps(result, indent=1) + "\n"
    )


def cold_start() -> dict[str, float]:
    """A new process, no compilation cache: from the interpreter's start to the first embedding."""
    code = (
        "import fmjax, jax, numpy as np; m = {}; c = fmjax.preprocess_config({!r}); "
        "x = fmjax.preprocess(np.zeros((300, 400, 3), np.uint8), c); np.asarray(jax.jit(lambda m, x: "
        "m(x).pooled)(m, x))"
    )
    out = {}
    for name, make in (
        ("demo_vit_ti4.fashion_mnist", "fmjax.load"),
        ("ViT-B-16.openai", "fmjax.create"),
    ):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code.format(f"{make}({name!r})", name)], check=True)
        out[f"{make} {name}"] = time.perf_counter() - start
    return out


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
