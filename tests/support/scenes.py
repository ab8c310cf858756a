"""Small pictures with masks, drawn: discs and squares of a colour each, on noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SHAPES = ("background", "disc", "square")
COLOURS = ((90, 90, 90), (200, 60, 40), (40, 70, 210))


def drawn(root: Path, count: int = 24, size: tuple[int, int] = (40, 48)) -> Path:
    """root/images, root/masks and root/classes.txt; the border of each shape is of no class (255)."""
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("\n".join(SHAPES))
    rng = np.random.default_rng(0)
    for number in range(count):
        mask = scene(rng, size)
        colours = np.asarray((*COLOURS, (255, 255, 255)), float)[np.minimum(mask, len(COLOURS))]
        pixels = np.clip(colours + rng.normal(0, 20, colours.shape), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{number:02}.png")
        Image.fromarray(mask).save(root / "masks" / f"{number:02}.png")
    return root


def scene(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """uint8 [H W]: a disc and a square."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    mask = np.zeros(size, np.uint8)
    for kind in (1, 2):
        radius = rng.integers(6, 11)
        row, column = rng.integers(radius, size[0] - radius), rng.integers(radius, size[1] - radius)
        away = (rows - row, columns - column)
        distance = np.hypot(*away) if kind == 1 else np.maximum(*map(np.abs, away))
        mask[distance < radius + 1] = 255
        mask[distance < radius] = kind
    return mask
