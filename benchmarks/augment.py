"""What each change of a training image costs: photographs from JPEG to 224 pixels, with one change after the other.

python benchmarks/augment.py  ->  benchmarks/results/augment.json, and its table in docs/speed.md (--table: that alone)

Processor time of one thread. Every photograph goes through all cases in turn before the next one, so that what else
the machine does meets them all; figures are medians over rounds, ratios are of the same round.
"""

from __future__ import annotations

import io
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results") / "augment.json"
PAGE = Path(__file__).parents[1] / "docs" / "speed.md"
START, END = "<!-- benchmarks/augment.py -->", "<!-- end of benchmarks/augment.py -->"
SIDE = 224
ROUNDS = 15
LONGER_SIDE = 500  # pixels of a photograph, as in ImageNet
BATCH = 64  # images that are mixed at a time
PLAIN = "crop and mirror image"
# name -> (as on the command line, fields of the data's settings)
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    PLAIN: ("", {}),
    "upside down": ("--data.vertical-flip 0.5", {"vertical_flip": 0.5}),
    "quarter turns": ("--data.quarter-turn 0.5", {"quarter_turn": 0.5}),
    "rotation": ("--data.rotation 30", {"rotation": 30.0}),
    "colour jitter": ("--data.color-jitter 0.4 0.4 0.4 0", {"color_jitter": (0.4, 0.4, 0.4, 0.0)}),
    "with hue": ("--data.color-jitter 0.4 0.4 0.4 0.1", {"color_jitter": (0.4, 0.4, 0.4, 0.1)}),
    "RandAugment": ("--data.rand-ops 2", {"rand_ops": 2}),
    "erasing, noise": ("--data.erase 0.25", {"erase": 0.25}),
    "erasing, mean colour": (
        "--data.erase 0.25 --data.erase-fill const",
        {"erase": 0.25, "erase_fill": "const"},
    ),
}


def photographs() -> list[bytes]:
    """Colour photographs as JPEGs."""
    from PIL import Image

    from tests.support.real_images import photographs

    out = []
    for pixels in photographs().values():
        image = Image.fromarray(pixels)
        image.thumbnail((LONGER_SIDE, LONGER_SIDE), Image.Resampling.BICUBIC)
        file = io.BytesIO()
        image.save(file, "JPEG", quality=90)
        out.append(file.getvalue())
    return out


def ways() -> dict[str, Callable[[bytes, Any], Any]]:
    """From a file's contents to what a batch has of it, for each case."""
    from fmjax.config import AugmentConfig
    from fmjax.data.images import read
    from fmjax.data.transforms import Views
    from fmjax.specs import PreprocessConfig

    images = PreprocessConfig(
        image_size=(SIDE, SIDE), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )
    views = {
        name: Views(images, 0.35, 0.5, AugmentConfig(**fields))
        for name, (_, fields) in CASES.items()
    }

    def way(view: Views) -> Callable[[bytes, Any], Any]:
        return lambda content, rng: view({"image": read(content)}, rng)

    return {name: way(view) for name, view in views.items()}


def measured() -> dict[str, dict[str, float]]:
    """Of each case the images/s of a core, and its time over that of the plain crop."""
    import numpy as np

    given, cases = photographs(), ways()
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(ROUNDS + 1):
        spent = dict.fromkeys(cases, 0.0)
        for index, content in enumerate(given):
            for name, way in cases.items():
                # the same crops for all
                rng = np.random.default_rng((number, index))
                start = time.thread_time()
                way(content, rng)
                spent[name] += time.thread_time() - start
        # the first round warms up
        if number:
            for name, time_spent in spent.items():
                seconds[name].append(time_spent / len(given))
    plain = seconds[PLAIN]
    return {
        name: {
            "images_per_s": round(1 / statistics.median(found), 1),
            "ratio": round(statistics.median(a / b for a, b in zip(found, plain, strict=True)), 3),
        }
        for name, found in seconds.items()
    }


def mixing() -> dict[str, float]:
    """Milliseconds an image of mixup and cutmix, compiled for this CPU: what the device does beside the step."""
    import jax
    import numpy as np

    from fmjax.config import ClassifyConfig
    from fmjax.tasks.mixing import mixed

    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, SIDE, SIDE, 3), np.uint8)
    batch = {
        "image": pixels,
        "label": np.zeros(BATCH, np.int32),
        "weight": np.ones(BATCH, np.float32),
    }
    out = {}
    configs = {"mixup": ClassifyConfig(mixup=0.8), "cutmix": ClassifyConfig(cutmix=1.0)}
    for name, config in configs.items():
        function = jax.jit(lambda one, key, c=config: mixed(one, key, c, labels="label"))
        found = []
        for seed in range(6):
            start = time.process_time()
            jax.block_until_ready(function(batch, jax.random.key(seed)))
            found.append((time.process_time() - start) / BATCH * 1000)
        out[name] = round(statistics.median(found[1:]), 3)
    return out


def table() -> str:
    """The rows of docs/speed.md."""
    found = json.loads(RESULTS.read_text())
    lines = [
        "| change | flags | images/s of a core | time over the plain crop |",
        "|---|---|---|---|",
    ]
    for name, row in found["cases"].items():
        flags = CASES[name][0]
        shown = f"`{flags}`" if flags else "the defaults"
        lines.append(f"| {name} | {shown} | {row['images_per_s']:.0f} | {row['ratio']:.2f} |")
    times = found["mixing_ms"]
    lines += [
        "",
        f"mixup and cutmix cost the host nothing. Compiled for this CPU they take {times['mixup']:.2f} and "
        f"{times['cutmix']:.2f} ms an image of 224 pixels.",
    ]
    return "\n".join(lines)


def write_page() -> None:
    from pages import put

    put(PAGE, START, END, table())


def main() -> None:
    from importlib import metadata

    import jax

    found = {"cases": measured(), "mixing_ms": mixing()}
    versions = {"pillow": metadata.version("pillow"), "jax": jax.__version__}
    record = {"machine": platform.machine(), **versions, "rounds": ROUNDS, **found}
    RESULTS.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] != ["--table"]:
        main()
    write_page()
