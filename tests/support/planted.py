"""A set of images with a fault of every kind, each planted once: kind -> what its row names."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("cat", "dog", "fox")
SIDE = 48


def picture(seed: int, width: int = SIDE, height: int = SIDE, mode: str = "RGB") -> Image.Image:
    """A picture that no other seed's is like: coarse blocks, which a lossy format keeps, under a little noise."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (8, 8, 3), np.uint8)
    smooth = Image.fromarray(blocks).resize((width, height), Image.Resampling.BILINEAR)
    noise = rng.integers(-9, 10, (height, width, 3))
    values = np.clip(np.asarray(smooth, np.int16) + noise, 0, 255)
    return Image.fromarray(values.astype(np.uint8)).convert(mode)


def saved(image: Image.Image, path: Path, form: str | None = None, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, form, **options)


def clean(root: Path, *, per_class: int = 4) -> None:
    """train/ and val/ of three classes, without a fault."""
    seed = 0
    for part in ("train", "val"):
        for name in CLASSES:
            for number in range(per_class):
                seed += 1
                saved(picture(seed), root / part / name / f"{number}.png")


def unreadable(root: Path) -> None:
    file = io.BytesIO()
    picture(100).save(file, "PNG")
    (root / "train/cat/cut.png").write_bytes(file.getvalue()[:-60])


def other_format(root: Path) -> None:
    saved(picture(101), root / "train/cat/really.png", "JPEG")


def several_frames(root: Path) -> None:
    frames = [picture(seed) for seed in (102, 103)]
    saved(
        frames[0],
        root / "train/dog/moves.webp",
        save_all=True,
        append_images=frames[1:],
        lossless=True,
    )


def alpha(root: Path) -> None:
    image = picture(104)
    image.putalpha(200)
    saved(image, root / "train/dog/clear.png")


def sixteen_bits(root: Path) -> None:
    values = np.asarray(picture(105).convert("L"), np.uint16) * 257
    saved(Image.fromarray(values), root / "train/dog/deep.png")


def floats(root: Path) -> None:
    values = np.asarray(picture(106).convert("L"), np.float32) / 255
    saved(Image.fromarray(values), root / "train/dog/real.tiff")


def turned(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    saved(picture(107), root / "train/fox/turned.jpg", exif=exif, quality=95)


def copy_in_another_part(root: Path) -> None:
    # saved anew, without loss: other bytes and the same pixels
    saved(Image.open(root / "train/cat/0.png"), root / "val/cat/again.bmp")


def near_copy_in_another_part(root: Path) -> None:
    saved(Image.open(root / "train/fox/1.png"), root / "val/fox/again.jpg", quality=90)


def near_copy(root: Path) -> None:
    half = Image.open(root / "val/fox/1.png").resize((SIDE * 2, SIDE * 2), Image.Resampling.BICUBIC)
    saved(half, root / "val/fox/larger.png")


def nested(root: Path) -> None:
    saved(picture(108), root / "train/cat/below/deeper.png")


def linked_folder(root: Path) -> None:
    (root / "train/cat/linked").symlink_to(root / "train/dog")


def class_by_link(root: Path) -> None:
    (root / "train/hound").symlink_to(root / "train/dog")


def two_folders(root: Path) -> None:
    saved(picture(109), root / "validation/cat/0.png")


def touched(name: str) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    return plant


def drawn(name: str, seed: int, **options) -> Callable[[Path], None]:
    return lambda root: saved(picture(seed, **options), root / name)


def copied(name: str, source: str) -> Callable[[Path], None]:
    return lambda root: saved(Image.open(root / source), root / name)


def many(root: Path) -> None:
    for number in range(90):
        saved(picture(200 + number), root / f"train/dog/many {number}.png")


# kind -> (what plants it, a part of the row that it gets)
FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "two-folders-for-a-part": (two_folders, "validation/ is val, as is val/"),
    "class-not-in-train": (drawn("val/wolf/0.png", 110), "val/wolf"),
    "class-without-images": (lambda root: (root / "train/owl").mkdir(), "train/owl"),
    "class-twins": (drawn("train/Cat/0.png", 111), "train: 'cat' and 'Cat'"),
    "class-by-link": (class_by_link, "train/hound is dog"),
    "unreadable": (unreadable, "train/cat/cut.png: "),
    "one-colour": (lambda root: saved(Image.new("RGB", (SIDE, SIDE), "red"), root / "train/cat/red.png"), "red.png"),
    "small": (drawn("train/cat/tiny.png", 112, width=40, height=20), "tiny.png (40 x 20)"),
    "large": (drawn("train/cat/huge.png", 113, width=400, height=300), "huge.png (400 x 300)"),
    "long": (drawn("train/cat/strip.png", 114, width=300, height=40), "strip.png (300 x 40)"),
    "other-format": (other_format, "really.png"),
    "several-frames": (several_frames, "moves.webp"),
    "cmyk": (drawn("train/dog/print.jpg", 115, mode="CMYK"), "print.jpg"),
    "palette": (drawn("train/dog/few.gif", 116, mode="P"), "few.gif"),
    "one-bit": (drawn("train/dog/fax.png", 117, mode="1"), "fax.png"),
    "alpha": (alpha, "clear.png"),
    "16-bit": (sixteen_bits, "deep.png"),
    "float": (floats, "real.tiff"),
    "turned": (turned, "turned.jpg"),
    "copy": (copied("train/fox/copy.png", "train/fox/0.png"), "train/fox/copy.png is train/fox/0.png"),
    "two-labels": (
        copied("train/fox/dog.png", "train/dog/0.png"), "train/fox/dog.png (fox) is train/dog/0.png (dog)"
    ),
    "in-two-parts": (copy_in_another_part, "val/cat/again.bmp is train/cat/0.png"),
    "nearly-in-two-parts": (near_copy_in_another_part, "val/fox/again.jpg is like train/fox/1.png"),
    "nearly-a-copy": (near_copy, "val/fox/larger.png is like val/fox/1.png"),
    "class-not-in-val": (drawn("train/bear/0.png", 118), "bear"),
    "class-with-one-image": (drawn("train/lynx/0.png", 119), "lynx"),
    "imbalance": (many, "cat has "),
    "dead-link": (lambda root: (root / "train/cat/gone.png").symlink_to("nowhere"), "train/cat/gone.png"),
    "special-file": (lambda root: os.mkfifo(root / "train/cat/pipe.png"), "train/cat/pipe.png"),
    "without-suffix": (touched("train/cat/README"), "train/cat/README"),
    "other-suffix": (touched("train/dog/list.csv"), "train/dog/list.csv"),
    "outside-classes": (drawn("train/loose.png", 120), "train/loose.png"),
    "linked-folder": (linked_folder, "train/cat/linked"),
    "system-file": (touched("train/cat/.DS_Store"), "train/cat/.DS_Store"),
    "nested": (nested, "train/cat/below/deeper.png"),
}  # fmt: skip
