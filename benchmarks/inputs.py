"""Pictures a second and core, from JPEG files to what a network is fed, beside torchvision in one run.

python -m benchmarks.inputs  ->  benchmarks/results/inputs.json and its table in docs/speed.md (--table: that alone)

Training draws a crop of 8 % of the area or more and a mirror image, evaluation scales the shorter side to 256 and cuts
out the centre, both at 224 pixels. Each side goes as far as its training needs the host: torchvision to normalised
floats, fmjax to the bytes that its network normalises itself. All cases take turns, so that what else the machine does
meets them all; figures are medians over rounds, ratios of the same round. `--data.decoder fast` needs OpenCV.
"""

from __future__ import annotations

import io
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.turns import in_turn

ROOT = Path(__file__).parents[1]
OUT = ROOT / "benchmarks" / "results" / "inputs.json"
PAGE = ROOT / "docs" / "speed.md"
BEGIN, END = "<!-- table: python -m benchmarks.inputs -->", "<!-- end of the inputs -->"
BATCH, ROUNDS = 32, 7
FULL, RESIZED, PIXELS = "500 x 375", "shorter side 256", "shorter side 256, packed pixels"
IMAGES = {FULL: 192, RESIZED: 192, PIXELS: 192}  # of a pass
DIFFERENT, COPIES = 256, 32  # photographs, and the names that each has
FIRST = 256  # images of the batch that is waited for
THREADS = 4  # of the first batch: the default
SHORTER, LARGE = (
    256,
    (1600, 1200),
)  # pixels, of pictures that were resized before, and as a camera has them
CLASSES = ("first", "second")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SCALE = 0.08  # smallest part of the area of a crop
PACKAGES = ("pillow", "opencv-python-headless", "torch", "torchvision", "numpy")
Run = Callable[[], int]  # one pass -> how many images


def folders(root: Path) -> dict[str, Path]:
    """The same photographs at full size, and resized before: as files, and packed as their pixels."""
    from benchmarks.sources import photographs
    from fmjax.config.data import ImagesConfig
    from fmjax.config.sets import DataPackConfig
    from fmjax.programs.data_pack import main as pack

    found = {name: root / f"{number}" for number, name in enumerate(IMAGES)}
    for number, content in enumerate(photographs(DIFFERENT)):
        image = Image.open(io.BytesIO(content))
        scale = SHORTER / min(image.size)
        small = jpeg(image, (round(image.width * scale), round(image.height * scale)))
        for folder, data in ((found[FULL], content), (found[RESIZED], small)):
            inside = folder / CLASSES[number % 2]
            inside.mkdir(parents=True, exist_ok=True)
            first = inside / f"{number:05}.jpg"
            first.write_bytes(data)
            # a set of thousands: the place of an example in a shuffle is found at another speed in one of hundreds
            for copy in range(1, COPIES):
                os.link(first, inside / f"{number + DIFFERENT * copy:05}.jpg")
    source = ImagesConfig(source=f"folder:{found[FULL]}")
    pack(DataPackConfig(data=source, out=str(found[PIXELS]), short_edge=SHORTER))
    return found


def jpeg(image: Image.Image, size: tuple[int, int]) -> bytes:
    """A photograph at another size, saved."""
    file = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def ours(
    source: str,
    *,
    training: bool,
    interpolation: Any = "bicubic",
    decoder: Any = "exact",
    images: int,
    size: int = BATCH,
    threads: int = 1,
) -> Run:
    """A pass over so many images, by fmjax."""
    from fmjax.config import DataConfig
    from fmjax.data.batches import eval_batches, train_batches
    from fmjax.data.sources import open_source
    from fmjax.data.transforms import Views
    from fmjax.specs import PreprocessConfig

    config = DataConfig(source=source, crop_scale=SCALE, threads=threads, decoder=decoder)
    part = open_source(config).train
    look = PreprocessConfig(
        image_size=(224, 224), mean=MEAN, std=STD, crop_pct=0.875, interpolation=interpolation
    )
    view = Views(look, crop_scale=SCALE, flip=0.5, decoder=decoder)

    def run() -> int:
        if training:
            steps = images // size
            batches = train_batches(part, view, config, batch_size=size, seed=0, steps=steps)
        else:
            batches = eval_batches(part.subset(np.arange(images)), view, config, batch_size=size)
        return sum(int(batch["weight"].sum()) for batch in batches)

    return run


def theirs(
    folder: Path,
    *,
    training: bool,
    interpolation: str = "bicubic",
    images: int,
    size: int = BATCH,
    workers: int = 0,
) -> Run:
    """The same by torchvision and torch's DataLoader."""
    from tests.support.torch_reference import declare_torchvision_operators

    declare_torchvision_operators()
    import torch
    from torch.utils.data import DataLoader, Subset
    from torchvision import transforms as of
    from torchvision.datasets import ImageFolder

    torch.set_num_threads(1)
    way = of.InterpolationMode(interpolation)
    before = [of.Resize(256, way), of.CenterCrop(224)]
    if training:
        crop = of.RandomResizedCrop(224, (SCALE, 1), interpolation=way)
        before = [crop, of.RandomHorizontalFlip()]
    steps = of.Compose([*before, of.ToTensor(), of.Normalize(MEAN, STD)])
    found = Subset(ImageFolder(str(folder), steps), range(images))

    def run() -> int:
        loader = DataLoader(found, size, shuffle=training, num_workers=workers)
        return sum(len(labels) for _, labels in loader)

    return run


def cases(found: dict[str, Path]) -> dict[str, Run]:
    """Of each size, way and filter a pass by torchvision and one by each decoder."""
    runs: dict[str, Run] = {}
    for size, folder in found.items():
        packed = size == PIXELS
        # torchvision has no packed sets: it reads the files that were resized
        files = found[RESIZED] if packed else folder
        source = f"{'arrayrecord' if packed else 'folder'}:{folder}"
        for filter in ("bicubic", "bilinear"):
            for training in (True, False):
                name = f"{'training' if training else 'evaluation'}, {size}, {filter}"
                options: dict[str, Any] = {"training": training, "interpolation": filter}
                options["images"] = IMAGES[size]
                runs[f"{name}: torchvision"] = theirs(files, **options)
                runs[f"{name}: exact"] = ours(source, **options)
                if training:
                    runs[f"{name}: fast"] = ours(source, decoder="fast", **options)
    return runs


def rates(runs: dict[str, Run]) -> dict[str, dict[str, float]]:
    """Of each case the images a second of processor time, and that over torchvision's in the same round."""
    # a first round warms up
    images = {name: run() for name, run in runs.items()}
    spent = {
        name: [each / images[name] for each in seconds]
        for name, seconds in in_turn(runs, ROUNDS).items()
    }
    out = {}
    for name, seconds in spent.items():
        beside = spent[f"{name.rpartition(': ')[0]}: torchvision"]
        over = [other / own for own, other in zip(seconds, beside, strict=True)]
        out[name] = {
            "images_per_core_s": round(1 / statistics.median(seconds), 1),
            "over_torchvision": round(statistics.median(over), 3),
        }
    return out


def first_batches(folder: Path) -> dict[str, float]:
    """Seconds to the first batch of training, listing of the folder left out."""
    options: dict[str, Any] = {"training": True, "images": FIRST, "size": FIRST}
    source = f"folder:{folder}"
    runs = {
        f"fmjax, {THREADS} threads": ours(source, threads=THREADS, **options),
        f"fmjax, {THREADS} threads, fast": ours(source, threads=THREADS, decoder="fast", **options),
        "torchvision, no worker": theirs(folder, **options),
        "torchvision, 2 workers": theirs(folder, workers=2, **options),
    }
    seconds = in_turn(runs, ROUNDS, time.perf_counter)
    return {name: round(statistics.median(taken), 3) for name, taken in seconds.items()}


def table(found: dict[str, Any]) -> str:
    """The tables of the page."""
    lines = [
        "| images/s of a core | torchvision | exact | over it | fast | over it |",
        "|---|---|---|---|---|---|",
    ]
    for name in found["rates"]:
        head, _, who = name.rpartition(": ")
        if who != "torchvision":
            continue
        cells = [f"{found['rates'][name]['images_per_core_s']:.0f}"]
        for decoder in ("exact", "fast"):
            row = found["rates"].get(f"{head}: {decoder}")
            told = ["", ""]
            if row:
                told = [f"{row['images_per_core_s']:.0f}", f"{row['over_torchvision']:.2f}"]
            cells += told
        lines.append(f"| {head} | {' | '.join(cells)} |")
    told = ", ".join(f"{name} {size:.0f} kB" for name, size in found["kilobytes"].items())
    lines += [
        "",
        f"An image takes on average: {told}.",
        "",
        f"| the first batch of {FIRST} | seconds |",
        "|---|---|",
    ]
    lines += [f"| {name} | {seconds:.2f} |" for name, seconds in found["first_batch"].items()]
    return "\n".join(lines)


def kilobytes_of(folder: Path) -> float:
    """An image's, on average."""
    files = list(folder.glob("*/*.jpg"))
    images = len(files) or DIFFERENT * COPIES
    return sum(file.stat().st_size for file in files or folder.iterdir()) / images / 1e3


def measured() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="inputs") as place:
        os.environ["FMJAX_CACHE"] = f"{place}/cache"
        found = folders(Path(place))
        kilobytes = {name: round(kilobytes_of(folder), 1) for name, folder in found.items()}
        return {
            "kilobytes": kilobytes,
            "rates": rates(cases(found)),
            "first_batch": first_batches(found[FULL]),
        }


def main() -> None:
    if sys.argv[1:] != ["--table"]:
        machine = {"cores": os.cpu_count(), "python": platform.python_version()}
        versions = {name: version(name) for name in PACKAGES}
        record = {"machine": machine, "versions": versions, "images": IMAGES} | measured()
        OUT.write_text(json.dumps(record, indent=1) + "\n")
    from benchmarks.pages import put

    put(PAGE, BEGIN, END, table(json.loads(OUT.read_text())))


if __name__ == "__main__":
    main()
