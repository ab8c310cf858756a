"""What each kind of source costs: starting over a million files, and images a second, beside torchvision in one run.

python benchmarks/sources.py  ->  benchmarks/results/sources.json and its tables in docs/speed.md (--table: those alone)

All cases take turns, so that what else the machine does meets them all; figures are medians over rounds. "Of a core" is
by processor time, that of worker processes included.
"""

from __future__ import annotations

import io
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
OUT = ROOT / "benchmarks" / "results" / "sources.json"
PAGE = ROOT / "docs" / "speed.md"
BEGIN, END = "<!-- table: python benchmarks/sources.py -->", "<!-- end of the sources -->"
FILES, CLASSES = 1_000_000, 1_000
IMAGES, WIDTH, HEIGHT = 1_200, 500, 375  # pixels, as in ImageNet
BATCH, ROUNDS = 50, 3
KINDS = ("folder", "csv", "arrayrecord", "parquet", "wds", "hf")
BY = ("threads", "processes")  # two of either
HALF = (0.5, 0.5, 0.5)  # mean and deviation


def million(root: Path) -> None:
    """Files of no bytes, as starting opens none, and a table of them."""
    with (root / "set.csv").open("w") as table:
        table.write("path,label\n")
        for label in range(CLASSES):
            folder = root / "set" / f"class{label:04}"
            folder.mkdir(parents=True)
            for number in range(FILES // CLASSES):
                name = f"{label:04}_{number:08}.jpg"
                os.close(os.open(folder / name, os.O_CREAT))
                table.write(f"set/class{label:04}/{name},class{label:04}\n")


def start(source: str) -> dict[str, float]:
    """Seconds and MB that opening a source takes, in this process; recording its names and sizes beside it."""
    if source.startswith("torchvision:"):
        from tests.support.torch_reference import declare_torchvision_operators

        declare_torchvision_operators()
        from torchvision.datasets import ImageFolder

        before, begun = _resident(), time.perf_counter()
        kept = ImageFolder(source.partition(":")[2])
        return _cost(len(kept), before, begun)
    from fmjax.config import DataConfig
    from fmjax.data.sources import open_source
    from fmjax.data.split import part_of

    config = DataConfig(source=source)
    open_source(DataConfig(source="digits"))  # what is imported on first use is not held against it
    before, begun = _resident(), time.perf_counter()
    splits = open_source(config)
    cost = _cost(len(splits.train), before, begun)
    begun = time.perf_counter()
    part = part_of(splits.train, source)
    return cost | {"record_s": time.perf_counter() - begun, "recorded": len(part)}


def _cost(count: int, before: float, begun: float) -> dict[str, float]:
    return {
        "images": count,
        "seconds": time.perf_counter() - begun,
        "kept_mb": _resident() - before,
        "peak_mb": _highest() - before,
    }


def _highest() -> float:
    # getrusage would count the process that has started this one
    lines = Path("/proc/self/status").read_text().splitlines()
    [line] = [line for line in lines if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def apart(source: str) -> dict[str, float]:
    """`start` in a process of its own, whose memory is nobody else's."""
    command = [sys.executable, __file__, "start", source]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout)


def photographs(count: int = IMAGES) -> list[bytes]:
    """Crops of photographs as JPEGs, each another one."""
    from tests.support.real_images import photographs

    rng = np.random.default_rng(0)
    given = [Image.fromarray(pixels) for pixels in photographs().values()]
    out = []
    for number in range(count):
        image = given[number % len(given)]
        scale = max(WIDTH / image.width, HEIGHT / image.height) * rng.uniform(1, 1.5)
        image = image.resize((round(image.width * scale) + 1, round(image.height * scale) + 1))
        left = int(rng.integers(0, image.width - WIDTH + 1))
        top = int(rng.integers(0, image.height - HEIGHT + 1))
        file = io.BytesIO()
        image.crop((left, top, left + WIDTH, top + HEIGHT)).save(file, "JPEG", quality=90)
        out.append(file.getvalue())
    return out


def pictures(root: Path) -> dict[str, str]:
    """The same JPEGs in every kind of source -> the source of each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tests.support import sets

    # of each picture its name, content and class
    rows = [
        (f"{number:05}", content, sets.CLASSES[number % 3])
        for number, content in enumerate(photographs())
    ]
    lines, members = ["path,label"], []
    for name, content, label in rows:
        path = root / "folder" / label / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        lines.append(f"folder/{label}/{name}.jpg,{label}")
        members += [(f"{name}.jpg", content), (f"{name}.cls", label.encode())]
    (root / "set.csv").write_text("\n".join(lines))
    sets.tar(root / "wds.tar", members)

    # the same table as Parquet, and as save_to_disk writes it
    table = sets.arrow(rows)
    pq.write_table(table, root / "set.parquet")
    (root / "hf").mkdir()
    with (
        pa.OSFile(str(root / "hf" / "x.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as out,
    ):
        out.write_table(table, max_chunksize=100)
    (root / "hf" / "state.json").write_text('{"_data_files": [{"filename": "x.arrow"}]}')
    sets.packed(root / "packed", root / "folder")
    return {
        "folder": f"folder:{root / 'folder'}",
        "csv": f"csv:{root / 'set.csv'}",
        "arrayrecord": f"arrayrecord:{root / 'packed'}",
        "parquet": f"parquet:{root / 'set.parquet'}",
        "wds": f"wds:{root / 'wds.tar'}",
        "hf": f"hf:{root / 'hf'}",
    }


def ours(source: str, **options: int) -> Callable[[], int]:
    """One pass over a source: decoded, shorter side to 224, centre cropped, in batches."""
    from fmjax.config import DataConfig
    from fmjax.data.batches import eval_batches
    from fmjax.data.sources import open_source
    from fmjax.data.transforms import Views
    from fmjax.specs import PreprocessConfig

    config = DataConfig(source=source, **options)
    part = open_source(config).train
    view = Views(PreprocessConfig(image_size=(224, 224), mean=HALF, std=HALF))

    def run() -> int:
        batches = eval_batches(part, view, config, batch_size=BATCH)
        return sum(int(batch["weight"].sum()) for batch in batches)

    return run


def theirs(folder: str, workers: int) -> Callable[[], int]:
    """The same by torchvision and torch's DataLoader."""
    from tests.support.torch_reference import declare_torchvision_operators

    declare_torchvision_operators()
    import torch
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    torch.set_num_threads(1)
    bicubic = transforms.InterpolationMode.BICUBIC
    steps = [transforms.Resize(224, bicubic), transforms.CenterCrop(224), transforms.PILToTensor()]
    found = ImageFolder(folder, transforms.Compose(steps))
    loader = DataLoader(found, BATCH, num_workers=workers)
    return lambda: sum(len(labels) for _, labels in loader)


def processor_s() -> float:
    """Processor time of this process and of those that it has waited for, in seconds."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def rates(runs: dict[str, Callable[[], int]]) -> dict[str, dict[str, float]]:
    """Of each case the images a second, and those of a second of processor time."""
    for run in runs.values():
        assert run() == IMAGES
    walls: dict[str, list[float]] = {name: [] for name in runs}
    used: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            begun, before = time.perf_counter(), processor_s()
            run()
            walls[name].append(time.perf_counter() - begun)
            used[name].append(processor_s() - before)
    return {
        name: {
            "images_per_s": round(IMAGES / statistics.median(walls[name]), 1),
            "images_per_core_s": round(IMAGES / statistics.median(used[name]), 1),
        }
        for name in runs
    }


def measured(root: Path) -> dict[str, Any]:
    sys.path.insert(0, str(ROOT))
    os.environ["FMJAX_CACHE"] = str(root / "cache")
    sources = pictures(root)
    cases = {}
    for kind in KINDS:
        cases[f"{kind} by threads"] = ours(sources[kind], threads=2)
        cases[f"{kind} by processes"] = ours(sources[kind], threads=2, workers=2)
    cases["torchvision by threads"] = theirs(str(root / "folder"), 0)
    cases["torchvision by processes"] = theirs(str(root / "folder"), 2)
    found: dict[str, Any] = {"rates": rates(cases)}
    return found | {"start": started(root)}


def started(root: Path) -> dict[str, dict[str, float]]:
    """What the start over a million files takes."""
    million(root)
    return {
        "folder:": apart(f"folder:{root / 'set'}"),
        "csv:": apart(f"csv:{root / 'set.csv'}"),
        "torchvision's ImageFolder": apart(f"torchvision:{root / 'set'}"),
    }


def tables(found: dict[str, Any]) -> str:
    """Both tables of the page."""
    lines = [
        "| images/s | of a core, threads | of a core, processes | 2 threads | 2 processes |",
        "|---|---|---|---|---|",
    ]
    for kind in (*KINDS, "torchvision"):
        rows = [found["rates"][f"{kind} by {how}"] for how in BY]
        cells = [
            f"{row[unit]:.0f}" for unit in ("images_per_core_s", "images_per_s") for row in rows
        ]
        name = f"`{kind}:`" if kind in KINDS else "torchvision (no worker, 2 workers)"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "| a million files in 1,000 folders | seconds | MB kept | MB at most | names and sizes, seconds |",
        "|---|---|---|---|---|",
    ]
    for name, row in found["start"].items():
        record = f"{row['record_s']:.1f}" if "record_s" in row else ""
        cells = [f"{row['seconds']:.1f}", f"{row['kept_mb']:.0f}", f"{row['peak_mb']:.0f}", record]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_page() -> None:
    from pages import put

    put(PAGE, BEGIN, END, tables(json.loads(OUT.read_text())))


def main() -> None:
    root = Path(tempfile.mkdtemp(prefix="sources"))
    try:
        found = measured(root)
    finally:
        shutil.rmtree(root)
    machine = {"cores": os.cpu_count(), "python": platform.python_version()}
    record = {"machine": machine, "images": IMAGES, "pixels": [WIDTH, HEIGHT], **found}
    OUT.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["start"]:
        print(json.dumps(start(sys.argv[2])))
        sys.exit()
    if sys.argv[1:] != ["--table"]:
        main()
    write_page()
