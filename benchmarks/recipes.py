"""Every named recipe on real pictures, with three seeds: python benchmarks/recipes.py FOLDER (from a checkout)

FOLDER gets two real towers, the pictures and the runs; what is there is not made again. Results go to
benchmarks/results/recipes.json, and their tables into docs/recipes.md (--table: that alone). Each run is one process on
one core, with as many at a time as there are cores; time is processor time.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results") / "recipes.json"
PAGE = ROOT / "docs" / "recipes.md"
FASHION = Path("/usr/share/datasets/fashion-mnist")  # Debian: dataset-fashion-mnist
SEEDS = (0, 1, 2)
COUNTS = (5, 50, 500)  # garments of a class to train on
HELD_OUT = 100  # garments of a class to score
HELD_OUT_SHARE = 5  # of this many photographs of a class, one
PROBE = "linear_probe"  # whose head lp_ft starts from
FROZEN = ("kNN", "logistic regression")
RANDOM = "random weights"
ANY = (
    *FROZEN,
    PROBE,
    "last_blocks",
    "bitfit",
    "lora",
    "lp_ft",
    "full_layer_decay",
    RANDOM,
)
# where a step takes longest, those that were made for it beside the simplest
OF_CLIP = (*FROZEN, PROBE, "full_layer_decay", "clip_finetune", "clip_layer_decay", RANDOM)
SOME = (*FROZEN, PROBE, "lora", "full_layer_decay", RANDOM)  # by the number of images


@dataclass(frozen=True)
class Setting:
    """A tower, pictures and a budget: the same for all recipes."""

    title: str
    model: str
    tower: str  # below FOLDER/towers
    data: str  # below FOLDER/pictures, with a seed behind it
    side: int  # pixels
    steps: int
    batch: int
    recipes: tuple[str, ...]
    budget_name: str = ""  # of another budget than the usual one

    @property
    def key(self) -> str:
        return f"{self.model.partition('.')[0]}-{self.data}{self.budget_name}"

    def budget(self, recipe: str) -> int:
        """Steps: three of a probe, which has no backward pass, cost as much as one that trains all."""
        return 3 * self.steps if recipe == PROBE else self.steps


DINO = ("dinov2_vits14.lvd142m", "dinov2_vits14/hf/model.safetensors")
CLIP = ("ViT-B-16.openai", "clip_vit_b16/open_clip/open_clip_model.safetensors")
PHOTOGRAPHS = (
    Setting("259 photographs, CLIP ViT-B/16", *CLIP, "photographs", 112, 40, 16, OF_CLIP),
    Setting("259 photographs, DINOv2 ViT-S/14", *DINO, "photographs", 112, 40, 16, ANY),
)
BY_COUNT = (
    *(
        Setting(f"{count} a class", *DINO, f"fashion-{count}", 56, steps, 32, SOME)
        for count, steps in zip(COUNTS, (30, 60, 90), strict=True)
    ),
    # the budget of the others is not even one look at each of these images
    Setting(
        "500 a class, 450 steps",
        *DINO,
        "fashion-500",
        56,
        450,
        32,
        ("full_layer_decay",),
        "-long",
    ),
)


@dataclass
class Found:
    """What the seeds of one recipe came to."""

    scores: list[float] = field(default_factory=list)  # percent
    minutes: list[float] = field(default_factory=list)  # of a processor
    trained: int = 0  # parameters
    memory_mib: float = 0.0  # of a step, as compiled


def lay_out(folder: Path) -> None:
    """The towers and pictures, parts apart: FOLDER/pictures/NAME-SEED/{train,val}/CLASS."""
    from tests.support import real_images, real_towers

    real_towers.clip_vit_b16(folder / "towers")
    real_towers.dinov2_vits14(folder / "towers")
    pictures = folder / "pictures"
    if pictures.exists():
        return
    made = folder / "unfinished"
    shutil.rmtree(made, ignore_errors=True)
    real_images.stamps_folder(made / "stamps")
    for seed in SEEDS:
        divide(made / "stamps", made / f"photographs-{seed}", seed)
        for count in COUNTS:
            garments(made / f"fashion-{count}-{seed}", count, seed)
    made.rename(pictures)


def divide(given: Path, out: Path, seed: int) -> None:
    """Holds out the same share of every class, drawn by the seed."""
    rng = np.random.default_rng(seed)
    for folder in sorted(given.iterdir()):
        paths = rng.permutation(sorted(folder.iterdir()))
        for number, path in enumerate(paths):
            part = "val" if number % HELD_OUT_SHARE == 0 else "train"
            target = out / part / folder.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(path)


def garments(out: Path, count: int, seed: int) -> None:
    """Some of Fashion-MNIST's training images, drawn by the seed, and the first of its test images."""
    from docs.make_demo_checkpoint import CLASSES, read

    # the last folder's name was shorter when this was measured, and the order of folders is that of the draws
    names = (*CLASSES[:-1], "boot")
    drawn = np.random.default_rng(seed)
    for part, prefix, wanted in (("train", "train", count), ("val", "t10k", HELD_OUT)):
        pixels, labels = read(FASHION, prefix)
        for label, name in enumerate(names):
            (out / part / name).mkdir(parents=True)
            found = np.flatnonzero(labels == label)
            if part == "train":
                found = drawn.permutation(found)
            for index in found[:wanted]:
                Image.fromarray(pixels[index]).save(out / part / name / f"{index:05}.png")


def about(setting: Setting, folder: Path, seed: int) -> list[str]:
    """Flags of the tower and the pictures, which all commands take."""
    return [
        *("--model.checkpoint", str(folder / "towers" / setting.tower)),
        *("--model.image-size", str(setting.side), str(setting.side)),
        *("--data.source", f"folder:{folder / 'pictures' / setting.data}-{seed}"),
    ]


def command(setting: Setting, recipe: str, folder: Path, seed: int) -> list[str]:
    """The arguments of `fmjax`."""
    given = about(setting, folder, seed)
    if recipe == "kNN":
        return ["knn", setting.model, *given]
    if recipe == "logistic regression":
        return ["probe", setting.model, *given, "--sweep"]
    named = ["--with-recipe", recipe]
    if recipe == RANDOM:
        # nothing is known that an early block could forget
        named = ["--with-recipe", "full_layer_decay", "--recipe.layer-decay", "1"]
        named += ["--model.init", "random"]
    if recipe == "lp_ft":
        named += ["--head-from", str(place(setting, PROBE, folder, seed))]
    steps = str(setting.budget(recipe))
    return [
        *("finetune", "finetune_clip_b16", "--model.name", setting.model, *given, *named),
        *("--steps", steps, "--batch-size", str(setting.batch), "--seed", str(seed)),
        # scored once, at the end: a best step of many would be chosen by the images it is scored on
        *("--eval-every", steps, "--save-every", steps),
        *("--export", "none", "--out", str(place(setting, recipe, folder, seed))),
    ]


def place(setting: Setting, recipe: str, folder: Path, seed: int) -> Path:
    return folder / "runs" / setting.key / recipe.replace(" ", "_") / str(seed)


def record(setting: Setting, recipe: str, folder: Path, seed: int) -> Path:
    return place(setting, recipe, folder, seed).with_suffix(".json")


def run(setting: Setting, recipe: str, folder: Path, seed: int, core: int) -> dict[str, Any]:
    """Score, processor minutes and what was said of one run, from its record if it was made before."""
    out, file = place(setting, recipe, folder, seed), record(setting, recipe, folder, seed)
    if file.exists():
        return json.loads(file.read_text())
    out.parent.mkdir(parents=True, exist_ok=True)
    said, seconds = measured(command(setting, recipe, folder, seed), core)
    score = re.findall(r"^(?:val|1-NN|linear probe) +accuracy ([\d.]+)%", said, re.M)[-1]
    found = {"score": float(score), "minutes": seconds / 60}
    if recipe not in FROZEN:
        trained = re.search(r"([\d,]+) of [\d,]+ parameters trained", said)
        assert trained
        found["trained"] = int(trained[1].replace(",", ""))
    file.write_text(json.dumps(found))
    # a probe's head is still asked for
    if recipe != PROBE:
        shutil.rmtree(out, ignore_errors=True)
    return found


def measured(words: list[str], core: int) -> tuple[str, float]:
    """What a command prints, and the seconds of processor time that it takes, on one core."""
    # of this thread alone, and of what it starts
    os.sched_setaffinity(0, {core})
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    process = subprocess.Popen(
        [sys.executable, "-m", "fmjax.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
    )
    assert process.stdout
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"fmjax {shlex.join(words)}\n{said}")
    return said, used.ru_utime + used.ru_stime


def memory(setting: Setting, recipe: str, folder: Path, core: int) -> float:
    """MiB that a step takes on its device, as compiled."""
    words = [*command(setting, recipe, folder, 0), "--dry-run"]
    # what it starts from changes nothing of the step
    if "--head-from" in words:
        del words[words.index("--head-from") : words.index("--head-from") + 2]
    said, _ = measured(words, core)
    amount, unit = re.findall(r"^memory +([\d.,]+) (MiB|GiB) a device", said, re.M)[0]
    return float(amount.replace(",", "")) * {"MiB": 1, "GiB": 1024}[unit]


def jobs() -> Iterator[tuple[Setting, str, int]]:
    for seed in SEEDS:
        for setting in (*PHOTOGRAPHS, *BY_COUNT):
            for recipe in setting.recipes:
                yield setting, recipe, seed


def measure(folder: Path) -> dict[str, dict[str, Found]]:
    """All runs, as many at a time as there are cores: setting -> recipe -> what its seeds came to."""
    cores: SimpleQueue[int] = SimpleQueue()
    for core in sorted(os.sched_getaffinity(0)):
        cores.put(core)

    def on_a_core(job: tuple[Setting, str, int]) -> dict[str, Any]:
        setting, recipe, seed = job
        core = cores.get()
        try:
            found = run(setting, recipe, folder, seed, core)
            # the same for all seeds
            if seed == SEEDS[0] and recipe not in FROZEN and "memory_mib" not in found:
                found["memory_mib"] = memory(setting, recipe, folder, core)
                record(setting, recipe, folder, seed).write_text(json.dumps(found))
        finally:
            cores.put(core)
        print(setting.key, recipe, seed, found["score"], flush=True)
        return found

    # what starts from the head of another run waits until all others are done
    asked = sorted(jobs(), key=lambda job: job[1] == "lp_ft")
    with ThreadPoolExecutor(cores.qsize()) as pool:
        done = list(pool.map(on_a_core, [job for job in asked if job[1] != "lp_ft"]))
        done += pool.map(on_a_core, [job for job in asked if job[1] == "lp_ft"])
    out: dict[str, dict[str, Found]] = {}
    for (setting, recipe, _), found in zip(asked, done, strict=True):
        kept = out.setdefault(setting.key, {}).setdefault(recipe, Found())
        kept.scores.append(found["score"])
        kept.minutes.append(found["minutes"])
        kept.trained = found.get("trained", 0)
        kept.memory_mib = kept.memory_mib or found.get("memory_mib", 0.0)
    return out


def spread(scores: list[float]) -> str:
    """Mean and standard deviation over seeds."""
    return f"{statistics.mean(scores):.1f} ± {statistics.stdev(scores):.1f}"


def of_photographs(setting: Setting, found: dict[str, dict[str, Any]]) -> str:
    """Score, steps, time, parameters and memory of each recipe."""
    lines = [
        f"**{setting.title}**, {setting.side} pixels, batch {setting.batch}:",
        "",
        "| recipe | accuracy, % | steps | processor minutes | parameters trained | memory of a step |",
        "|---|---|---|---|---|---|",
    ]
    rows = sorted(found.items(), key=lambda row: -statistics.mean(row[1]["scores"]))
    for recipe, row in rows:
        steps, trained, memory = "", "", ""
        if recipe not in FROZEN:
            steps = str(setting.budget(recipe))
            trained = f"{row['trained']:,}"
            memory = f"{row['memory_mib']:,.0f} MiB"
        minutes = statistics.mean(row["minutes"])
        lines.append(
            f"| {shown(recipe)} | {spread(row['scores'])} | {steps} | {minutes:.1f} | {trained} | {memory} |"
        )
    return "\n".join(lines)


def of_counts(found: dict[str, Any]) -> str:
    """Recipes by the number of images of a class."""
    titles = " | ".join(setting.title for setting in BY_COUNT)
    lines = [f"| recipe | {titles} |", "|---" * (len(BY_COUNT) + 1) + "|"]
    for recipe in SOME:
        rows = [found[setting.key].get(recipe) for setting in BY_COUNT]
        cells = ["" if row is None else spread(row["scores"]) for row in rows]
        lines.append(f"| {shown(recipe)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def of_choice(found: dict[str, Any]) -> str:
    """For each number of images the best recipe, and the cheapest that is as good within the seeds' spread."""
    lines = [
        "| images | best | as good within the spread, at the least time |",
        "|---|---|---|",
    ]
    # a budget that one recipe had alone tells of no other
    for setting in (one for one in (*BY_COUNT, *PHOTOGRAPHS) if len(one.recipes) > 1):
        rows = found[setting.key]
        means = {recipe: statistics.mean(row["scores"]) for recipe, row in rows.items()}
        best = max(means, key=lambda recipe: means[recipe])
        least = means[best] - statistics.stdev(rows[best]["scores"])
        as_good = [recipe for recipe in rows if means[recipe] >= least]
        cheapest = min(as_good, key=lambda recipe: statistics.mean(rows[recipe]["minutes"]))
        cells = [f"{shown(one)}: {means[one]:.1f} %" for one in (best, cheapest)]
        lines.append(f"| {setting.title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(recipe: str) -> str:
    return recipe if " " in recipe or recipe == "kNN" else f"`{recipe}`"


def write_page() -> None:
    """Puts the tables between their markers."""
    from pages import put

    found = json.loads(RESULTS.read_text())["settings"]
    tables = {
        "recipes": "\n\n".join(of_photographs(one, found[one.key]) for one in PHOTOGRAPHS),
        "counts": of_counts(found),
        "choice": of_choice(found),
    }
    for name, table in tables.items():
        start = f"<!-- {name}: python benchmarks/recipes.py -->"
        put(PAGE, start, f"<!-- end of {name} -->", table)


def main(folder: Path) -> None:
    import platform
    from importlib import metadata

    sys.path.insert(0, str(ROOT))
    lay_out(folder)
    found = measure(folder)
    settings = {
        key: {recipe: asdict(row) for recipe, row in rows.items()} for key, rows in found.items()
    }
    versions = {name: metadata.version(name) for name in ("jax", "flax", "optax")}
    made = {"machine": platform.machine(), **versions, "settings": settings}
    RESULTS.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] != ["--table"]:
        main(Path(sys.argv[1]).resolve())
    write_page()
