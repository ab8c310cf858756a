"""Trains the demo checkpoint that ships with fmjax: python docs/make_demo_checkpoint.py FASHION_MNIST_DIR OUT_DIR

FASHION_MNIST_DIR holds the four original idx files (github.com/zalandoresearch/fashion-mnist, MIT; Debian:
dataset-fashion-mnist). OUT_DIR gets the images as a folder, the run, and demo_vit_ti4.fashion_mnist.safetensors.
"""

import gzip
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

import fmjax
from fmjax.config.presets import load_preset
from fmjax.programs.finetune import finetune

CLASSES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle-boot",
)


def read(source: Path, prefix: str) -> tuple[np.ndarray, np.ndarray]:
    """(images [N 28 28], labels [N]) of a part of the idx files, both uint8. prefix: train or t10k."""
    with gzip.open(source / f"{prefix}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(source / f"{prefix}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return images, labels


def lay_out(source: Path, target: Path) -> None:
    """The idx files as target/{train,val}/<class>/<number>.png."""
    for split, prefix in (("train", "train"), ("val", "t10k")):
        images, labels = read(source, prefix)
        for name in CLASSES:
            (target / split / name).mkdir(parents=True, exist_ok=True)
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            Image.fromarray(image).save(target / split / CLASSES[label] / f"{number:05}.png")


def main(source: Path, out: Path) -> None:
    images = out / "fashion_mnist"
    if not images.exists():
        lay_out(source, images)
    preset = load_preset("demo_pretrain")
    config = replace(
        preset, out=str(out / "run"), data=replace(preset.data, source=f"folder:{images}")
    )
    finetune(config)
    fmjax.export(
        str(out / "run"), out / "demo_vit_ti4.fashion_mnist.safetensors", "timm", classifier=False
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
