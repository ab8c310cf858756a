"""Seconds and peak memory of `fmjax convert` on synthetic float16 files: python benchmarks/convert.py OUT_DIR [NAME
...]

Every file is written tensor by tensor, so the machine never holds it. Results: benchmarks/results/convert.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import fmjax
import weights_conversion as wc
from fmjax.factory import param_shapes
from weights_conversion.writer import write_safetensors

CASES = (("ViT-L-14.openai", "open_clip"), ("EVA02-E-14-plus.laion2b_s9b_b144k", "open_clip_timm"))


def synthetic(path: Path, name: str, dialect: str) -> int:
    """A file with the published keys and shapes, random float16 values."""
    half = np.dtype(np.float16)

    def lazy(shape: tuple[int, ...]) -> wc.LazyTensor:
        def read(index):
            part = np.broadcast_to(np.zeros((), half), shape)[index].shape
            return np.random.default_rng(0).random(part, np.float32).astype(half)

        return wc.LazyTensor(shape, half, read)

    params = {path: lazy(shape) for path, shape in param_shapes(fmjax.get_spec(name)).items()}
    return write_safetensors(path, wc.to_torch(params, wc.get_dialect(dialect)))


def measure(command: list[str]) -> dict[str, float]:
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, command
    return {
        "seconds": time.perf_counter() - start,
        "peak_mb": usage.ru_maxrss / 1024,
        "cpu_s": usage.ru_utime + usage.ru_stime,
    }


def main(folder: Path, names: list[str]) -> None:
    imports = "import fmjax.convert, fmjax.factory as f, fmjax; f.param_shapes(fmjax.get_spec('ViT-B-32'))"
    idle = measure([sys.executable, "-c", imports])
    rows = []
    for name, dialect in CASES:
        if names and name not in names:
            continue
        source, target = folder / "source.safetensors", folder / "target.safetensors"
        size = synthetic(source, name, dialect)
        found = measure([sys.executable, "-m", "fmjax.cli", "convert", name, str(source), str(target)])
        row = {
            "name": name,
            "dialect": dialect,
            "bytes": size,
            **found,
            "peak_mb_above_imports": found["peak_mb"] - idle["peak_mb"],
        }
        rows.append(row | {"gb_per_s": size / 1e9 / found["seconds"]})
        print(json.dumps(rows[-1]))
        source.unlink()
        target.unlink()
    result = {"imports": idle, "rows": rows}
    Path(__file__).with_name("results").joinpath("convert.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
