"""What a run's network sees, for its report: patches, attention, and embeddings on a map."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fmjax.config.report import ReportConfig
from fmjax.config.run import RunConfig
from fmjax.config.tasks import TaskConfig
from fmjax.console import counted
from fmjax.engine.backbone import preprocessing
from fmjax.engine.predictions import Predictions
from fmjax.engine.run import restore
from fmjax.models.attention import class_attention, has_class_attention
from fmjax.models.vit import ViT
from fmjax.preprocessing import PreprocessConfig, normalise, resize
from fmjax.programs.report_images import Gallery
from fmjax.report.atlas import atlas
from fmjax.report.pages import PatchPicture
from fmjax.report.patches import PatchMaps, heat, patch_maps
from fmjax.report.pictures import SMALL, exact, photo

HEADS = 16  # whose attention is shown one by one
SIDE = 224  # pixels of a picture beside its maps
Parts = dict[str, Any]


def picture_parts(
    folder: Path,
    config: RunConfig,
    classes: tuple[str, ...],
    *,
    predictions: Predictions | None,
    labels: Mapping[str, int],
    gallery: Gallery,
    own: TaskConfig | None,
    asked: ReportConfig,
) -> Parts:
    """The sections that need the model. labels: the held-out images, and the class of each.

    Raises CheckpointError where the run has no model yet.
    """
    # a run of an older version has no record of them, and data may be gone
    known = [name for name in labels if name in gallery.where]
    if not known:
        return {"pictures_note": "None of the held-out images is there any more."}
    model = restore(folder, task=own)
    images = preprocessing(config, model.spec)
    single = gallery.examples is not None and gallery.examples.labelled
    named = {name: classes[labels[name]] for name in known if 0 <= labels[name] < len(classes)}
    named = named if single else {}
    # each figure by itself: the one may be asked for without the other
    parts: Parts = {}
    if asked.maps:
        parts |= patch_pictures(model, images, gallery, spread(known, asked.maps), named)
    if asked.atlas:
        chosen = spread(known, asked.atlas)
        found = _predicted(predictions, classes)
        parts |= _atlas(model, images, gallery, chosen, named, found, asked.batch_size)
    return parts


def spread(some: Sequence[Any], most: int) -> list[Any]:
    """Some from all over a set, whose order may be that of its classes."""
    places = np.linspace(0, len(some) - 1, min(most, len(some))).round().astype(int)
    return [some[place] for place in np.unique(places).tolist()]


def _predicted(predictions: Predictions | None, classes: tuple[str, ...]) -> dict[str, str]:
    """Name of an image -> the class that it was taken for."""
    if predictions is None or not {"logits", "label"} <= predictions.rows.keys():
        return {}
    found = predictions.rows["logits"].argmax(-1).tolist()
    return {name: classes[i] for name, i in zip(predictions.names, found, strict=True)}


def _seen(
    gallery: Gallery, names: Sequence[str], images: PreprocessConfig
) -> Iterator[tuple[str, UInt8[np.ndarray, "H W 3"]]]:
    """The images that can still be read, as the network is given them, but for its normalisation."""
    for name in names:
        picture = gallery.picture(name)
        # one that is gone has no place in a figure
        if picture is not None:
            yield name, resize(picture, images)


def patch_pictures(
    model: ViT,
    images: PreprocessConfig,
    gallery: Gallery,
    names: Sequence[str],
    labels: Mapping[str, str],
) -> Parts:
    seen = dict(_seen(gallery, names, images))
    if not seen:
        return {}
    attends = has_class_attention(model)

    def of_batch(model: ViT, batch: jax.Array) -> tuple[jax.Array, Any]:
        weights = class_attention(model, batch)[1] if attends else None
        return model(batch).patches, weights

    # all at once: the basis of the colours is that of all patches together
    pixels = np.stack(list(seen.values()))
    batch = normalise(jnp.asarray(pixels), images)
    patches, weights = jax.device_get(jax.jit(of_batch)(model, batch))
    found = patch_maps(np.asarray(patches, np.float32))
    # no heads where nothing attends: the middle picture is there all the same
    heads = np.zeros((len(seen), 0, 1, 1)) if weights is None else np.asarray(weights, np.float32)
    rows = zip(seen, pixels, found.colours, heads, strict=True)
    pictures = tuple(_patch_picture(name, labels.get(name, ""), *parts) for name, *parts in rows)
    return {"maps": pictures, "maps_say": _maps_say(model, found, heads.shape[1])}


def _maps_say(model: ViT, found: PatchMaps, heads: int) -> str:
    # a figure is only as good as what is said of how it came about
    rows, columns = found.colours.shape[1:3]
    says = (
        f"Each picture as the network is given it, in {rows} by {columns} patches. In the middle their features by "
        f"the first three principal components as red, green and blue: the same colour is the same kind of thing in "
        f"all pictures; black is what the first component takes for background (arXiv:2304.07193). The three show "
        f"{found.explained:.0%} of the variance."
    )
    if heads:
        token = "class token" if model.pool is None else "query of the pool"
        says += (
            f" On the right how much the {token} attends to each patch, the mean of the {heads} heads of "
            f"the last layer; below head by head, each from its least to its most."
        )
    return says


def _patch_picture(
    name: str,
    label: str,
    pixels: UInt8[np.ndarray, "H W 3"],
    colours: UInt8[np.ndarray, "h w 3"],
    weights: np.ndarray,
) -> PatchPicture:
    """The data of one row of pictures. weights: of its heads [N h w]."""
    # beside its maps a picture is what the network has seen of it: the crop of its evaluation
    picture = photo(Image.fromarray(pixels), SIDE)
    small = max(pixels.shape[:2]) <= SMALL
    attention = exact(heat(weights.mean(0))) if len(weights) else ""
    heads = tuple(exact(heat(head)) for head in weights[:HEADS])
    return PatchPicture(name, label, picture, small, exact(colours), attention, heads)


def _atlas(
    model: ViT,
    images: PreprocessConfig,
    gallery: Gallery,
    names: Sequence[str],
    labels: Mapping[str, str],
    predicted: Mapping[str, str],
    batch_size: int,
) -> Parts:
    pooled = jax.jit(lambda model, batch: model.embedding(normalise(batch, images)))
    features, thumbnails = _embedded(partial(pooled, model), gallery, names, images, batch_size)
    kept = list(thumbnails)
    # two points make no map
    if len(kept) < 3:
        return {}
    found = atlas(
        features,
        list(thumbnails.values()),
        kept,
        [labels.get(name, "") for name in kept],
        [predicted.get(name, "") for name in kept],
    )
    says = (
        f"{len(kept):,} held-out images by their pooled embeddings ({found.how}): what the network takes to be alike "
        f"lies together. Point at one, or move with the arrow keys, to see it."
    )
    if predicted:
        says += " Images that are taken for another class have a ring."
    return {"atlas": found, "atlas_say": says}


def _embedded(
    pooled: Callable[[jax.Array], Any],
    gallery: Gallery,
    names: Sequence[str],
    images: PreprocessConfig,
    batch_size: int,
) -> tuple[np.ndarray, dict[str, Image.Image]]:
    """Features [N E] of the images that can be read, and these by their names, made small."""
    features: list[np.ndarray] = []
    thumbnails: dict[str, Image.Image] = {}
    parts = [names[start : start + batch_size] for start in range(0, len(names), batch_size)]
    # batch by batch, so that no more than one is in memory
    for part in counted(((len(part), part) for part in parts), len(names), "images"):
        seen = dict(_seen(gallery, part, images))
        if not seen:
            continue
        pixels = np.stack(list(seen.values()))
        # all batches are of one size, so that one program serves them
        room = np.zeros((batch_size - len(pixels), *pixels.shape[1:]), np.uint8)
        batch = jnp.asarray(np.concatenate([pixels, room]))
        features.append(np.asarray(pooled(batch), np.float32)[: len(pixels)])
        # kept as small as they are shown, whatever the network's size
        for name, array in seen.items():
            small = Image.fromarray(array)
            small.thumbnail((2 * SMALL, 2 * SMALL))
            thumbnails[name] = small
    return np.concatenate(features or [np.zeros((0, 1), np.float32)]), thumbnails
