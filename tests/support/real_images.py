"""Real images out of packages; none of them is part of this project."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

# Debian: tuxpaint-stamps-default (GPL-2, used by tests only)
STAMPS = Path("/usr/share/tuxpaint/stamps")
CLASSES = {
    "bird": "animals/birds",
    "fish": "animals/fish",
    "flower": "plants/flowers",
    "fruit": "food/fruit",
    "hat": "clothes/hats",
    "insect": "animals/insects",
    "mammal": "animals/mammals",
    "music": "hobbies/music",
    "roadsign": "town/roadsigns",
    "tool": "household/tools",
    "vegetable": "food/vegetables",
    "vehicle": "vehicles",
}


class Unavailable(Exception):
    """The package is not installed."""


def stamps_folder(root: Path, size: int = 224) -> Path:
    """root/<class>/<number>.png: each stamp on a white square."""
    if not STAMPS.is_dir():
        raise Unavailable(
            "photographs of Debian's package tuxpaint-stamps-default are not installed"
        )
    for label, folder in CLASSES.items():
        (root / label).mkdir(parents=True, exist_ok=True)
        paths = [p for p in sorted((STAMPS / folder).glob("**/*.png")) if "cartoon" not in str(p)]
        for number, path in enumerate(paths):
            on_white(Image.open(path), size).save(root / label / f"{number:03}.png")
    return root


def on_white(image: Image.Image, size: int) -> Image.Image:
    image = image.convert("RGBA")
    side = max(image.size)
    canvas = Image.new("RGBA", (side, side), (255, 255, 255, 255))
    canvas.alpha_composite(image, ((side - image.width) // 2, (side - image.height) // 2))
    return canvas.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)


def photographs() -> dict[str, np.ndarray]:
    """Colour photographs that scikit-image and scikit-learn ship, uint8 [H, W, 3], of different shapes."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    out = {
        name: np.asarray(getattr(data, name)())
        for name in ("astronaut", "chelsea", "coffee", "rocket")
    }
    sample = load_sample_images()
    return out | {
        Path(name).stem: image for name, image in zip(sample.filenames, sample.images, strict=True)
    }
