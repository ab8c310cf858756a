"""Embeddings as places on a map: what a network takes to be alike lies together."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image

from fmjax.report.pictures import sprite

FEWEST = 12  # points that t-SNE can be asked for
COMPONENTS = (
    50  # that t-SNE is given, as its authors advise (van der Maaten & Hinton 2008, sec. 4.2)
)
WIDTH, HEIGHT, MARGIN = 640, 420, 14
THUMBNAIL = 48  # pixels
LEGEND = 12  # classes at most that a legend names


@dataclass(frozen=True)
class Point:
    """An image on the map. x, y: of a drawing of WIDTH x HEIGHT; tile: its place in the sprite, -1 where the image is
    gone."""

    x: float
    y: float
    colour: str
    name: str
    true: str
    predicted: str
    tile: int


@dataclass(frozen=True)
class Atlas:
    """A map of images. how: the method; sprite: all thumbnails as one data URI, in rows of `columns`."""

    how: str
    points: tuple[Point, ...]
    legend: tuple[tuple[str, str], ...]  # colour, class
    sprite: str
    columns: int
    thumbnail: int = THUMBNAIL
    size: tuple[int, int] = (WIDTH, HEIGHT)


def atlas(
    features: Float[np.ndarray, "N E"],
    images: Sequence[Image.Image | None],
    names: Sequence[str],
    true: Sequence[str],
    predicted: Sequence[str],
) -> Atlas:
    """A map of some images by their embeddings. true, predicted: names of classes, "" where there is none."""
    # only images that are still there have a place in the sheet of thumbnails
    how, places = placed(features)
    known = [image for image in images if image is not None]
    tiles = iter(range(len(known)))
    classes = sorted({*true} - {""})
    colours = dict(zip(classes, hues(len(classes)), strict=True))
    rows = zip(places.tolist(), images, names, true, predicted, strict=True)
    points = tuple(
        Point(x, y, colours.get(label, "#888888"), name, label, found, _tile(image, tiles))
        for (x, y), image, name, label, found in rows
    )
    legend = tuple((colours[name], name) for name in classes) if len(classes) <= LEGEND else ()
    sheet, columns = sprite(known, THUMBNAIL) if known else ("", 1)
    return Atlas(how, points, legend, sheet, columns)


def _tile(image: Image.Image | None, tiles: object) -> int:
    return -1 if image is None else next(tiles)  # pyright: ignore[reportCallIssue, reportArgumentType]


def placed(features: Float[np.ndarray, "N E"]) -> tuple[str, Float[np.ndarray, "N 2"]]:
    """The method, and the places [N 2] in the drawing; the same for the same features."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from sklearn.preprocessing import normalize

    # by direction: embeddings are compared by their cosine
    rows: np.ndarray = np.asarray(normalize(np.asarray(features, np.float64)))
    count = min(COMPONENTS, *rows.shape)
    rows = PCA(count, svd_solver="full").fit_transform(rows)
    if len(rows) < FEWEST:
        return "PCA", _framed(np.pad(rows, ((0, 0), (0, 2)))[:, :2])
    perplexity = min(30.0, (len(rows) - 1) / 4)
    found = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(rows)
    return "t-SNE", _framed(found)


def _framed(places: np.ndarray) -> np.ndarray:
    low, high = places.min(0), places.max(0)
    shares = (places - low) / np.maximum(high - low, 1e-12)
    room = np.asarray([WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN])
    return np.round(MARGIN + shares * room, 1)


def hues(count: int) -> list[str]:
    """Colours that differ and are as readable on white as on black; neighbours in number are far apart."""
    # by the golden angle, which never meets itself; of many, every other is darker
    found = []
    for i in range(count):
        red, green, blue = colorsys.hls_to_rgb(
            (0.58 + i * 0.381966) % 1, 0.45 + 0.15 * (i % 2), 0.55
        )
        found.append("#" + "".join(f"{round(255 * part):02x}" for part in (red, green, blue)))
    return found
