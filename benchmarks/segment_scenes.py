"""Segmentation of real cut-outs on drawn grounds: python benchmarks/segment_scenes.py CHECKPOINT OUT (from a checkout)

CHECKPOINT is a file or folder with DINOv2 ViT-S/14. The cut-outs are photographs with an alpha channel out of Debian's
package tuxpaint-stamps-default. OUT gets 200 scenes to train on and 50 held-out ones, made of other photographs, and
four runs of one budget: a linear layer on the frozen network, one on its last four layers, the whole network tuned, and
the same from random weights. It prints their scores.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from fmjax.config import ModelConfig, RunConfig, SegmentConfig
from fmjax.config.presets import load_preset
from fmjax.console import console
from fmjax.programs.finetune import finetune
from tests.support.real_images import CLASSES, STAMPS

KINDS = (
    "bird",
    "fish",
    "flower",
    "fruit",
    "insect",
    "mammal",
    "music",
    "tool",
    "vegetable",
    "vehicle",
)
SIDE = 280  # pixels of a scene
OBJECTS = (1, 4)  # in a scene
LARGEST = (90, 190)  # pixels of an object's longer side
HELD_OUT = 4  # of this many photographs of a kind, one
BUDGET = {"steps": 150, "batch_size": 8, "eval_every": 50, "save_every": 150}


def main(checkpoint: str, out: Path) -> None:
    scenes = out / "scenes"
    if not scenes.exists():
        lay_out(scenes)
    for name, config in runs(checkpoint, scenes, out).items():
        console.print(f"== {name}")
        finetune(config)


def runs(checkpoint: str, scenes: Path, out: Path) -> dict[str, RunConfig]:
    """Settings by name; but for the last they start from the checkpoint."""
    linear, tune = load_preset("segment_linear"), load_preset("segment_tune")
    model = replace(linear.model, checkpoint=checkpoint)
    random = replace(model, init="random")
    chosen: dict[str, tuple[RunConfig, ModelConfig]] = {
        "linear": (linear, model),
        "linear_4": (replace(linear, task=SegmentConfig(layers=4)), model),
        "tune": (tune, model),
        "random": (tune, random),
    }
    return {
        name: replace(
            preset,
            out=str(out / name),
            model=model,
            data=replace(preset.data, source=f"masks:{scenes}"),
            export="none",
            **BUDGET,
        )
        for name, (preset, model) in chosen.items()
    }


def lay_out(root: Path) -> None:
    """root/{train,val}/{images,masks} and root/classes.txt."""
    rng = np.random.default_rng(0)
    root.mkdir(parents=True)
    (root / "classes.txt").write_text("\n".join(("background", *KINDS)))
    for part, count in (("train", 200), ("val", 50)):
        photographs = [cut_outs(kind, held_out=part == "val") for kind in KINDS]
        for kind in ("images", "masks"):
            (root / part / kind).mkdir(parents=True)
        for number in range(count):
            picture, mask = scene(photographs, rng)
            picture.save(root / part / "images" / f"{number:03}.png")
            Image.fromarray(mask).save(root / part / "masks" / f"{number:03}.png")


def cut_outs(kind: str, *, held_out: bool) -> list[Image.Image]:
    """The photographs of a kind, cropped to what is not transparent."""
    paths = [
        path
        for path in sorted((STAMPS / CLASSES[kind]).glob("**/*.png"))
        if "cartoon" not in str(path)
    ]
    chosen = [path for number, path in enumerate(paths) if (number % HELD_OUT == 0) == held_out]
    pictures = [Image.open(path).convert("RGBA") for path in chosen]
    return [picture.crop(picture.getchannel("A").getbbox()) for picture in pictures]


def scene(
    photographs: list[list[Image.Image]], rng: np.random.Generator
) -> tuple[Image.Image, np.ndarray]:
    """A picture and its mask: objects of different kinds on a ground, later ones in front."""
    picture, mask = ground(rng), np.zeros((SIDE, SIDE), np.uint8)
    kinds = rng.permutation(len(KINDS))[: rng.integers(OBJECTS[0], OBJECTS[1] + 1)]
    for kind in kinds:
        found = photographs[kind][rng.integers(len(photographs[kind]))]
        scale = rng.integers(*LARGEST) / max(found.size)
        cut_out = found.resize(
            (max(round(found.width * scale), 1), max(round(found.height * scale), 1))
        )
        left, top = (int(rng.integers(0, SIDE - length + 1)) for length in cut_out.size)
        picture.alpha_composite(cut_out, (left, top))
        inside = np.asarray(cut_out.getchannel("A")) >= 128
        mask[top : top + cut_out.height, left : left + cut_out.width][inside] = kind + 1
    return picture.convert("RGB"), mask


def ground(rng: np.random.Generator) -> Image.Image:
    """Coloured noise of several scales, so that an edge or a colour alone tells no object."""
    total = np.full((SIDE, SIDE, 3), rng.uniform(60, 200, 3))
    for cells in (3, 9, 35, 140):
        noise = rng.normal(0, 14, (cells, cells, 3)) + rng.normal(0, 14, (cells, cells, 1))
        small = Image.fromarray(np.clip(noise + 128, 0, 255).astype(np.uint8))
        total += np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC), float) - 128
    return Image.fromarray(np.clip(total, 0, 255).astype(np.uint8)).convert("RGBA")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
