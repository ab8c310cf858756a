"""What each kind of source costs: starting over a million files, and images a second, beside torchvision in one run.

python benchmarks/sources.py  ->  benchmarks/results/sources.json and the tables of docs/speed.md
"""

from __future__ import annotations

import io
import json
import os
import platform
import resource
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
BEGIN, END = "<!-- table: python benchmarks/sources.py -->", "<!-- end of the table -->"
FILES, CLASSES = 1_000_000, 1_000
IMAGES, SIDE, ROUNDS = 400, 320, 3
KINDS = ("folder", "csv", "arrayrecord", "parquet", "wds", "hf")


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
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "images": count,
        "seconds": time.perf_counter() - begun,
        "kept_mb": _resident() - before,
        "peak_mb": peak - before,
    }


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def apart(source: str) -> dict[str, float]:
    """`start` in a process of its own, whose memory is nobody else's."""
    command = [sys.executable, __file__, "start", source]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def pictures(root: Path) -> dict[str, str]:
    """The same JPEGs in every kind of source -> the source of each."""
    sys.path.insert(0, str(ROOT))
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tests.support import sets

    rng = np.random.default_rng(0)
    rows = []
    for number in range(IMAGES):
        coarse = rng.integers(0, 256, (20, 20, 3), np.uint8)
        file = io.BytesIO()
        # smooth, so that a file has about the size of a photograph's
        Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(file, "JPEG")
        rows.append((f"{number:05}", file.getvalue(), sets.CLASSES[number % 3]))
    lines, members = ["path,label"], []
    for name, content, label in rows:
        path = root / "folder" / label / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        lines.append(f"folder/{label}/{name}.jpg,{label}")
        members += [(f"{name}.jpg", content), (f"{name}.cls", label.encode())]
    (root / "set.csv").write_text("\n".join(lines))
    sets.tar(root / "wds.tar", members)
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


def ours(source: str, threads: int) -> Callable[[], int]:
    """One pass over a source: decoded, shorter side to 224, centre cropped, in batches of 50."""
    from fmjax.config import DataConfig
    from fmjax.data.batches import eval_batches
    from fmjax.data.sources import open_source
    from fmjax.data.transforms import Views
    from fmjax.preprocessing import PreprocessConfig

    half = (0.5, 0.5, 0.5)
    config = DataConfig(source=source, threads=threads)
    part = open_source(config).train
    view = Views(PreprocessConfig(image_size=(224, 224), mean=half, std=half))

    def run() -> int:
        batches = eval_batches(part, view, config, batch_size=50)
        return sum(int(batch["weight"].sum()) for batch in batches)

    return run


def theirs(folder: str, workers: int) -> Callable[[], int]:
    """The same by torchvision and torch's DataLoader, whose workers stay."""
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    bicubic = transforms.InterpolationMode.BICUBIC
    steps = [transforms.Resize(224, bicubic), transforms.CenterCrop(224), transforms.PILToTensor()]
    found = ImageFolder(folder, transforms.Compose(steps))
    loader = DataLoader(found, 50, num_workers=workers, persistent_workers=workers > 0)
    return lambda: sum(len(labels) for _, labels in loader)


def rates(runs: dict[str, Callable[[], int]]) -> dict[str, dict[str, float]]:
    """Images a second of each, in turn: the median of some rounds, and the median of each round's ratio to the last."""
    for run in runs.values():
        assert run() == IMAGES
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            begun = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begun)
    beside = seconds[list(runs)[-1]]
    return {
        name: {
            "images_s": IMAGES / statistics.median(taken),
            "over_torchvision": statistics.median(
                b / a for a, b in zip(taken, beside, strict=True)
            ),
            "spread": (max(taken) - min(taken)) / statistics.median(taken),
        }
        for name, taken in seconds.items()
    }


def measured(root: Path) -> dict[str, Any]:
    os.environ["FMJAX_CACHE"] = str(root / "cache")
    sources = pictures(root)
    alone = {kind: ours(sources[kind], 1) for kind in KINDS}
    alone["torchvision, 0 workers"] = theirs(str(root / "folder"), 0)
    several = {kind: ours(sources[kind], 2) for kind in KINDS}
    several["torchvision, 2 workers"] = theirs(str(root / "folder"), 2)
    found: dict[str, Any] = {"one": rates(alone), "two": rates(several)}
    million(root)
    found["start"] = {
        "folder:": apart(f"folder:{root / 'set'}"),
        "csv:": apart(f"csv:{root / 'set.csv'}"),
        "torchvision's ImageFolder": apart(f"torchvision:{root / 'set'}"),
    }
    return found


def tables(found: dict[str, Any]) -> str:
    """Both tables of the page."""
    lines = [
        "| a million files in 1,000 folders | seconds | MB kept | MB at most | names and sizes, seconds |",
        "|---|---|---|---|---|",
    ]
    for name, row in found["start"].items():
        record = f"{row['record_s']:.1f}" if "record_s" in row else ""
        cells = (f"{row['seconds']:.1f}", f"{row['kept_mb']:.0f}", f"{row['peak_mb']:.0f}", record)
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    lines += [
        "",
        "| images/s | 1 thread | over torchvision | 2 threads | over torchvision |",
        "|---|---|---|---|---|",
    ]
    for one, two in zip(found["one"], found["two"], strict=True):
        cells = []
        for row in (found["one"][one], found["two"][two]):
            cells += [f"{row['images_s']:.0f}", f"{row['over_torchvision']:.2f}"]
        name = f"`{one}:`" if one in KINDS else "torchvision, no worker, 2 workers"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    if sys.argv[1:2] == ["start"]:
        print(json.dumps(start(sys.argv[2])))
        return
    root = Path(tempfile.mkdtemp(prefix="sources"))
    try:
        found = measured(root)
    finally:
        shutil.rmtree(root)
    machine = {
        "cpu": platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    OUT.write_text(
        json.dumps({"machine": machine, "images": IMAGES, "side": SIDE, **found}, indent=1)
    )
    text = PAGE.read_text()
    before, after = text.split(BEGIN)[0], text.split(BEGIN)[1].split(END, 1)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{tables(found)}\n{END}{after}")


if __name__ == "__main__":
    main()
