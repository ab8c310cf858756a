"""The images of a report: those that a run held out, by their names, as far as they are still there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from fmjax.config.run import RunConfig
from fmjax.data import audit
from fmjax.data.example import Examples, Splits
from fmjax.data.images import decode
from fmjax.data.sources import open_source
from fmjax.data.split import Images, Part, Split, compare, joined, part_of, relabelled
from fmjax.errors import DataError, FmjaxError, sentence


@dataclass(frozen=True)
class Gallery:
    """Pictures by the names that a run's record has of them. notes: what a reader of the page must know of them;
    audit: what was found in the data."""

    examples: Examples | None
    where: Mapping[str, int]
    max_pixels: int
    notes: tuple[str, ...] = ()
    audit: tuple[str, ...] = ()

    def picture(self, name: str) -> Image.Image | None:
        """None where it is gone, or cannot be read."""
        place = self.where.get(name)
        if place is None or self.examples is None:
            return None
        try:
            return decode(self.examples.fields["image"](place), max_pixels=self.max_pixels)
        except (DataError, OSError):
            return None


def of_images(images: Images, max_pixels: int) -> Gallery:
    """Those of a run that is still at hand."""
    where = {name: place for place, name in enumerate(images.split.val.names)}
    return Gallery(images.val, where, max_pixels)


def opened(config: RunConfig, classes: tuple[str, ...], split: Split | None) -> Gallery:
    """Those of a run of which only the records are at hand: its data are opened and compared with them."""
    data = config.data
    # a page of a run whose data are gone is worth having all the same
    try:
        splits = open_source(data)
        everything = relabelled(joined(splits), classes)
    except (FmjaxError, ValueError, OSError) as error:
        return Gallery(None, {}, data.max_pixels, notes=(f"no images: {sentence(error)}",))
    # by the names of the record, which hold wherever the folder lies now
    present = part_of(everything, data.source)
    where = {name: place for place, name in enumerate(present.names)}
    notes, found = [], []
    # a run of an older version has no record to compare with
    if split is not None:
        changes = compare(split, present)
        if str(changes):
            notes.append(f"{data.source} has changed since the run was made: {changes}")
        found = _audited(splits, everything, split, where)
    return Gallery(everything, where, data.max_pixels, tuple(notes), tuple(found))


def _audited(
    splits: Splits, everything: Examples, split: Split, where: Mapping[str, int]
) -> list[str]:
    """What of the data a score should not be believed for, in the parts that the run has drawn."""
    # of what is still there: what is gone was said before
    train, val = (everything.subset(_there(part, where)) for part in (split.train, split.val))
    return audit.lines(splits, train, val if len(val) else None)


def _there(part: Part, where: Mapping[str, int]) -> np.ndarray:
    places = [where[name] for name in part.names if name in where]
    return np.asarray(places, np.int64)
