"""What a reader of the documentation has: a folder with what the pages name, and published weights in small."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fmjax import names
from fmjax.specs import Source, ViTSpec, Weights
from fmjax.store import locate
from fmjax.store.locate import Located
from tests.support import sets
from tests.support.checkpoints import random_file, save, small
from tests.support.guide import DOCS, ROOT, blocks
from tests.support.scenes import drawn

# the backbones that pages train, score and export
LARGE = ("ViT-B-16", "dinov2_vits14", "EVA02-E-14-plus")
# a page's folders of pictures, and the kinds in them
PICTURES = {
    "images": ("cat", "dog"),
    "photos": ("bird", "fruit"),
    "photographs": ("bird", "fruit"),
    "DIR": ("cat", "dog"),
    "data/cats/train": ("cat", "dog"),
    "data/cats/val": ("cat", "dog"),
    "data/pets": ("cat", "dog"),
}
SPEC_OF_TAO = """
results_dir: runs/cats
train:
  num_epochs: 2
  num_gpus: 1
  optim: {optim: adamw, lr: 5e-3, policy: cosine, weight_decay: 0.05, warmup_epochs: 1}
model:
  backbone: {type: ViT-B-16}
  head: {type: TAOLinearClsHead, loss: {type: CrossEntropyLoss, label_smooth_val: 0.1}}
dataset:
  batch_size: 16
  img_size: 64
  train_dataset: {images_dir: data/cats/train}
  val_dataset: {images_dir: data/cats/val}
"""


def furnish(folder: Path) -> None:
    """Puts what the pages' commands read into a folder, files of weights as `shrink` has made them."""
    for place, kinds in PICTURES.items():
        _pictures(folder / place, kinds)
    drawn(folder / "scenes")
    (folder / "configs").symlink_to(ROOT / "configs")
    for name in ("spec.yaml", "train.yaml"):
        (folder / name).write_text(SPEC_OF_TAO)
    [task] = [b.text for b in blocks(DOCS / "adding_a_task.md") if b.language == "python"]
    for name in ("angle.py", "my_task.py"):
        (folder / name).write_text(task)
    for name in ("clip.safetensors", "clip_vit_b16.safetensors"):
        save(folder / name, random_file(names.get_spec("ViT-B-16"), "open_clip") | _text_tower())
    save(folder / "model.safetensors", random_file(names.get_spec("dinov2_vits14"), "timm"))
    _sets(folder)


def _pictures(folder: Path, kinds: tuple[str, ...], each: int = 12) -> None:
    """Noise of a shade for each kind, so that there is something to tell them by."""
    rng = np.random.default_rng(len(folder.name))
    for shade, kind in enumerate(kinds):
        (folder / kind).mkdir(parents=True)
        for number in range(each):
            pixels = rng.integers(0, 128, (40, 40, 3)) + 127 * shade
            picture = Image.fromarray(pixels.astype(np.uint8))
            picture.save(folder / kind / f"{number:03}.png")


def _text_tower(width: int = 64, embed_dim: int = 24) -> dict[str, np.ndarray]:
    """What a file of OpenAI's CLIP has beside the image tower: a text tower, here of one block."""
    block = {
        "ln_1.weight": (width,),
        "ln_1.bias": (width,),
        "attn.in_proj_weight": (3 * width, width),
        "attn.in_proj_bias": (3 * width,),
        "attn.out_proj.weight": (width, width),
        "attn.out_proj.bias": (width,),
        "ln_2.weight": (width,),
        "ln_2.bias": (width,),
        "mlp.c_fc.weight": (4 * width, width),
        "mlp.c_fc.bias": (4 * width,),
        "mlp.c_proj.weight": (width, 4 * width),
        "mlp.c_proj.bias": (width,),
    }
    shapes = {f"transformer.resblocks.0.{name}": shape for name, shape in block.items()}
    shapes |= {"token_embedding.weight": (99, width), "positional_embedding": (77, width)}
    shapes |= {"ln_final.weight": (width,), "ln_final.bias": (width,)}
    shapes |= {"text_projection": (width, embed_dim), "logit_scale": ()}
    return {name: np.ones(shape, np.float32) for name, shape in shapes.items()}


def _sets(folder: Path) -> None:
    """One small set in every kind that docs/data.md has a command for."""
    table = sets.table(folder / "pets").rename(folder / "pets/set.csv").read_text()
    rows = [line.split(",") for line in table.splitlines()[1:]]
    pets = [f"pets/{path},{label},{part}" for path, label, part in rows]
    (folder / "pets/set.csv").unlink()
    (folder / "pets.csv").write_text("\n".join(["path,label,split", *pets]))
    (folder / "breeds.csv").write_text("\n".join(["file,breed,split", *pets]))
    (folder / "names.txt").write_text("\n".join(sets.CLASSES))
    sets.packed(folder / "packed", folder / "pets")
    sets.parquets(folder / "pets-parquet")
    sets.tars(folder / "pets-tars")
    sets.saved_to_disk(folder / "pets-saved")


def prepare_tfds(folder: Path) -> None:
    """The dataset `small_digits` as TFDS prepares it."""
    from tests.support.tfds_digits import SmallDigits

    builder = SmallDigits(data_dir=str(folder), file_format="array_record")
    builder.download_and_prepare(file_format="array_record")


def shrink(patch: Any, folder: Path) -> None:
    """Makes the large backbones small ones for as long as a patch lasts, and their files, in a folder, what every
    source of theirs has."""
    # transformers has classes for hidden layers of four widths only
    tiny = {name: replace(small(name), mlp_dim=4 * small(name).width) for name in LARGE}
    whole: Callable[[], Any] = names._rows.__wrapped__

    @functools.cache
    def rows() -> tuple[dict[str, ViTSpec], dict[str, Weights]]:
        specs, weights = whole()
        changed = {
            name: replace(row, image_size=tiny[row.model].image_size)
            for name, row in weights.items()
            if row.model in tiny
        }
        return specs | tiny, weights | changed

    real = locate.obtain

    def obtain(weights: Weights, **options: Any) -> Located:
        if weights.model not in tiny:
            return real(weights, **options)
        return _published(folder, weights, weights.sources[0])

    patch.setattr(names, "_rows", rows)
    patch.setattr(locate, "obtain", obtain)


def _published(folder: Path, weights: Weights, source: Source) -> Located:
    """A file in the names of a source, made when it is first asked for."""
    path = folder / f"{weights.name}.{source.dialect}.safetensors"
    if not path.exists():
        save(path, random_file(names.get_spec(weights.name), source.dialect))
    return Located(path, source, "0" * 64, path.stat().st_size, None)
