"""Sources -> batches of uint8 images, by Grain: decoded by threads, the same for a seed whatever their number.

A batch has image [B H W 3] uint8, label [B], weight [B], index [B] and reason [B]. An unreadable image has weight 0 and
a reason: it is left out of the loss and of every metric, and nothing else moves. Padding has weight 0 and index -1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grain.python as grain
import jax
import numpy as np
from jax.sharding import NamedSharding
from PIL import Image

from fmjax.config.data import DataConfig, ImagesConfig
from fmjax.data.images import Picture, Unreadable, read
from fmjax.data.resizing import resize, scaled
from fmjax.data.sources import Source
from fmjax.errors import DataError, escaped
from fmjax.specs import PreprocessConfig

Batch = dict[str, Any]  # of numpy arrays
Transform = Callable[[Image.Image], np.ndarray]
ASPECT = (3 / 4, 4 / 3)
REASON = "U200"  # as wide for all images: batches are stacked into one array


def train_batches(
    source: Source, config: DataConfig, preprocess: PreprocessConfig, *, batch_size: int, seed: int
) -> grain.DatasetIterator:
    """An endless iterator of shuffled, augmented batches. Its get_state and set_state are the position in the data."""
    if len(source) == 0:
        raise DataError("there are no training images")

    def load(example: dict[str, Any], rng: np.random.Generator) -> Batch:
        return _example(source, example, config, preprocess, lambda image: augment(image, preprocess, config, rng))

    dataset = grain.MapDataset.source(source).seed(seed).shuffle().repeat().random_map(load)
    return iter(dataset.batch(batch_size).to_iter_dataset(_threads(config)))


def eval_batches(
    source: Source, config: ImagesConfig, preprocess: PreprocessConfig, *, batch_size: int
) -> Iterator[Batch]:
    """Every image once, in order; the last batch is padded."""

    def load(example: dict[str, Any]) -> Batch:
        return _example(source, example, config, preprocess, lambda image: resize(image, preprocess))

    dataset = grain.MapDataset.source(source).map(load).batch(batch_size)
    for batch in dataset.to_iter_dataset(_threads(config)):
        yield _padded(batch, batch_size)


def _threads(config: ImagesConfig) -> grain.ReadOptions:
    return grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=4 * config.threads)


def _example(
    source: Source, example: dict[str, Any], config: ImagesConfig, preprocess: PreprocessConfig, transform: Transform
) -> Batch:
    pixels, reason = _pixels(source.read(example["index"]), config.max_pixels, transform)
    bad = pixels is None
    return {
        "image": np.zeros((*preprocess.image_size, 3), np.uint8) if bad else pixels,
        "label": np.int32(example["label"]),
        "weight": np.float32(not bad),
        "index": np.int32(example["index"]),
        "reason": np.array(reason, REASON),
    }


def _pixels(picture: Picture, max_pixels: int, transform: Transform) -> tuple[np.ndarray | None, str]:
    """The transformed picture and ""; or None, and why there is none."""
    try:
        return transform(read(picture, max_pixels=max_pixels)), ""
    except Unreadable as error:
        return None, error.reason
    except (ValueError, OverflowError, MemoryError) as error:  # of a transform, for a shape that it cannot take
        return None, escaped(f"it cannot be resized: {error or type(error).__name__}", 200)


def augment(
    image: Image.Image, preprocess: PreprocessConfig, config: DataConfig, rng: np.random.Generator
) -> np.ndarray:
    """Random resized crop (arXiv:1409.4842, as torchvision draws it) and mirror image.

    The crop is resized as the weights' evaluation resizes: big_vision trains without antialiasing, too.
    """
    height, width = preprocess.image_size
    if config.crop_scale < 1:
        box = crop_box(image.size, config.crop_scale, rng)
        pixels = scaled(image, box, (width, height), preprocess.interpolation)
    else:
        pixels = resize(image, preprocess)
    return pixels[:, ::-1] if rng.random() < config.flip else pixels


def crop_box(size: tuple[int, int], scale: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a crop with `scale` to all of the area; the whole image if ten draws do not fit."""
    width, height = size
    for _ in range(10):
        area = width * height * rng.uniform(scale, 1)
        aspect = np.exp(rng.uniform(*np.log(ASPECT)))
        w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
            return left, top, left + w, top + h
    return 0, 0, width, height


def _padded(batch: Batch, size: int) -> Batch:
    missing = size - len(batch["label"])
    if not missing:
        return batch
    filler = {"index": -1, "reason": ""}
    pad = {k: np.full((missing, *v.shape[1:]), filler.get(k, 0), v.dtype) for k, v in batch.items()}
    return {key: np.concatenate([value, pad[key]]) for key, value in batch.items()}


def to_devices(batch: Batch, sharding: NamedSharding) -> dict[str, jax.Array]:
    """What the step needs of a batch, spread over the devices."""
    names = ("image", "label", "weight")
    return {name: jax.make_array_from_process_local_data(sharding, batch[name]) for name in names}


class BadImages:
    """Counts unreadable images, each once, and stops the run when there are too many.

    `add` returns the new ones' names, each with its reason, as they may be printed.
    """

    def __init__(self, source: Source, limit: int) -> None:
        self.source, self.limit = source, limit
        self.indices: set[int] = set()

    def add(self, batch: Batch) -> list[str]:
        bad = (batch["weight"] == 0) & (batch["index"] >= 0)
        found = dict(zip(batch["index"][bad].tolist(), batch["reason"][bad].tolist(), strict=True))
        new = {index: reason for index, reason in sorted(found.items()) if index not in self.indices}
        self.indices |= set(new)
        told = [f"{escaped(self.source.names(index))}: {reason}" for index, reason in new.items()]
        if len(self.indices) > self.limit:
            raise DataError(
                f"{len(self.indices)} unreadable images, more than --data.max-bad {self.limit}; the last: "
                f"{'; '.join(told[-3:])}"
            )
        return told
