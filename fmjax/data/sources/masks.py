"""`masks:DIR`: images, and a mask for each that has the class of every pixel."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from fmjax.config.data import ImagesConfig
from fmjax.data import masks
from fmjax.data.classes import read_classes
from fmjax.data.example import Examples, Splits
from fmjax.data.folders import (
    OUTSIDE,
    Found,
    check_apart,
    entries,
    few,
    images,
    left_out,
    parts,
    roles_of,
    test_note,
)
from fmjax.data.images import FORMATS, Unreadable
from fmjax.errors import DataError, amount, escaped

IMAGES, MASKS, CLASSES = "images", "masks", "classes.txt"
LAYOUT = "pass masks:DIR with DIR/images and DIR/masks, or DIR/train/images, DIR/train/masks, DIR/val/images, ..."
ALONE, NO_PNG, BESIDE = "masks without an image", "masks that are no PNG", "folders beside images/"
MAX_CLASSES = masks.IGNORED  # the values of 16 bits but for the one that says: of no class


@dataclass(frozen=True)
class Pairs:
    """The images of a part and the mask of each."""

    folder: Path
    images: list[Path]
    masks: list[Path]


def open_examples(
    place: str,
    config: ImagesConfig,
    *,
    classes: Sequence[str] | None = None,
) -> Splits:
    """DIR/images and DIR/masks, or both in DIR/train and in DIR/val.

    The value of a pixel is its class: its line in classes.txt, from 0. Without that file the classes are those of
    `classes`, else the numbers up to the largest value in any mask. Raises DataError, with the fix, for what cannot be
    trained on.
    """
    root = Path(place).expanduser()
    found = Found(root)
    folders = _parts(root, found)
    if "val" in folders:
        check_apart(folders["train"], folders["val"])
    # train comes before val, and both are read before any class is told: a value means the same in both
    pairs = [_pairs(folders[role], found) for role in ("", "train", "val") if role in folders]
    names, notes = _classes(root, pairs, config, known=tuple(classes or ()))
    if "test" in folders:
        notes.append(test_note(folders["test"], scheme="masks"))
    train, *val = [_examples(part, names) for part in pairs]
    return Splits(train, val[0] if val else None, found.left_out(), tuple(notes))


def _parts(root: Path, found: Found) -> dict[str, Path]:
    """The folders by their part, {"": root} where it is not split; what lies beside them is left out."""
    if not root.is_dir():
        raise DataError(f"no folder {escaped(str(root))}; {LAYOUT}")
    if not (root / IMAGES).is_dir():
        return parts(root, found, scheme="masks", used=(CLASSES,))
    for entry in entries(root):
        if entry.name not in (IMAGES, MASKS, CLASSES):
            reason = left_out(entry)
            found.skip({"": OUTSIDE, "folder": BESIDE}.get(reason, reason), entry.path)
    return {"": root}


def _pairs(folder: Path, found: Found) -> Pairs:
    """Each image of a part with the PNG of its name. Raises DataError where one is missing or there are two."""
    absent = [name for name in (IMAGES, MASKS) if not (folder / name).is_dir()]
    if absent:
        raise DataError(f"{escaped(str(folder))} has no {absent[0]}/; {LAYOUT}")
    # an image without a mask is an error, and a mask without an image left out: people annotate a part of a set
    pictures = _by_stem(folder / IMAGES, images(folder / IMAGES, found, check=_check_level))
    if not pictures:
        raise DataError(f"{escaped(str(folder / IMAGES))} has no images; add some")
    drawn = images(folder / MASKS, found, check=_check_level)
    as_png = [path for path in drawn if path.suffix.lower() == ".png"]
    others = [path for path in drawn if path.suffix.lower() != ".png"]
    pngs = _by_stem(folder / MASKS, as_png)
    missing = [path for stem, path in pictures.items() if stem not in pngs]
    # before anything is left out, as masks in another format are the most frequent reason
    if missing:
        raise _lacking(folder, missing, others)
    for path in others:
        found.skip(NO_PNG, path)
    for stem, path in pngs.items():
        if stem not in pictures:
            found.skip(ALONE, path)
    return Pairs(folder, list(pictures.values()), [pngs[stem] for stem in pictures])


def _by_stem(folder: Path, paths: Iterable[Path]) -> dict[str, Path]:
    """Files by their path below a folder, without its suffix. Raises DataError where two have one."""
    out: dict[str, Path] = {}
    for path in paths:
        # with the folders below: a/1.jpg goes with a/1.png
        stem = str(path.relative_to(folder).with_suffix(""))
        twin = out.setdefault(stem, path)
        if twin != path:
            raise DataError(
                f"{escaped(str(folder))} has {escaped(twin.name)} and {escaped(path.name)}, whose mask would be one "
                f"file; rename or remove one"
            )
    return out


def _lacking(folder: Path, missing: Sequence[Path], others: Sequence[Path]) -> DataError:
    # JPEG changes values at every edge, so that no conversion brings the classes back
    lossy = [path.name for path in others if path.suffix.lower() in FORMATS["JPEG"]]
    if lossy:
        return DataError(
            f"{escaped(str(folder / MASKS))} has masks in JPEG ({few(lossy, 3)}), which changes values; save them as "
            f"PNG from what they were made of"
        )
    return DataError(
        f"there is no mask for {amount(len(missing), 'image')} of {escaped(str(folder / IMAGES))}: "
        f"{few((path.name for path in missing), 3)}; put a PNG of the same name into {MASKS}/, or take the image out"
    )


def _check_level(folder: Path, inside: Sequence[str]) -> None:
    """Some sets have their parts below images/, where ours are above it."""
    roles = roles_of(inside)
    if "train" in roles:
        raise DataError(
            f"{escaped(str(folder))} has train/ in it; put the parts above: train/{IMAGES}, train/{MASKS}, "
            f"val/{IMAGES}, val/{MASKS}"
        )


def _classes(
    root: Path, pairs: Sequence[Pairs], config: ImagesConfig, *, known: tuple[str, ...]
) -> tuple[tuple[str, ...], list[str]]:
    """(names of the classes, what to say of them)."""
    # its own names, then those of a model; numbers where there are neither
    path = root / CLASSES
    listed = _named(path) if os.path.lexists(path) else ()
    if listed and known and listed != known:
        raise DataError(
            f"{escaped(str(root / CLASSES))} names {len(listed)} classes ({few(listed)}) and the model knows "
            f"{len(known)} ({few(known)}); a value must mean the same, so take the model's names, in their order"
        )
    names, notes = listed or known, []
    if not names:
        # only now has every mask to be opened
        names = _counted(root, pairs, config)
        notes.append(
            f"{escaped(str(root))} has no {CLASSES}, so its classes are the numbers up to the largest value in its "
            f"masks, 0 to {len(names) - 1}; the file has a name a line, that of value 0 first"
        )
    else:
        _check_known(pairs, config)
    if config.ignore < len(names):
        notes.append(
            f"the value {config.ignore} is ignored, so no pixel is of class {escaped(names[config.ignore])}"
        )
    return names, notes


def _counted(root: Path, pairs: Sequence[Pairs], config: ImagesConfig) -> tuple[str, ...]:
    """ "0" to the largest value of all masks, each of which is read."""
    highest = -1
    # Pillow decodes without the interpreter's lock, so that threads share the work
    with ThreadPoolExecutor(config.threads) as pool:
        for part in pairs:
            found = pool.map(partial(_highest, config=config), part.masks)
            values = [value for value in found if value is not None]
            if max(values, default=-1) < 0:
                raise _nothing(part, config)
            highest = max(highest, *values)
    # most often two classes saved as black and white, of which 255 is the ignored value
    if highest < 1:
        raise DataError(
            f"the masks of {escaped(str(root))} have the value 0 and the ignored {config.ignore} only; segmentation "
            f"needs two classes or more: save the second one as 1, or set --data.ignore"
        )
    if highest >= MAX_CLASSES:
        raise DataError(
            f"the masks of {escaped(str(root))} have the value {highest}, and a class is below {MAX_CLASSES:,}; "
            f"map it to another, or set --data.ignore {highest}"
        )
    return tuple(str(value) for value in range(highest + 1))


def _highest(path: Path, config: ImagesConfig) -> int | None:
    """Of a mask; None where it is unreadable, which is told when its image is met."""
    try:
        mask = masks.read(path, name=path.name, max_pixels=config.max_pixels)
    except Unreadable:
        return None
    return masks.highest_class(mask, ignore=config.ignore)


def _check_known(pairs: Sequence[Pairs], config: ImagesConfig) -> None:
    """Raises DataError for a part whose masks are all ignored; usually its first mask tells that it is not so."""
    for part in pairs:
        # one at a time, until the first that has a class
        values = (_highest(path, config) for path in part.masks)
        if not any(value is not None and value >= 0 for value in values):
            raise _nothing(part, config)


def _nothing(part: Pairs, config: ImagesConfig) -> DataError:
    return DataError(
        f"no pixel in the {len(part.masks):,} masks of {escaped(str(part.folder / MASKS))} is of a class: all that can "
        f"be read have the ignored value {config.ignore} only; save classes as values, or set --data.ignore"
    )


def _named(path: Path) -> tuple[str, ...]:
    return read_classes(path, most=MAX_CLASSES, task="segmentation")


def _examples(part: Pairs, names: tuple[str, ...]) -> Examples:
    return Examples(
        fields={"image": lambda i: part.images[i], "mask": lambda i: part.masks[i]},
        # no example as a whole is of a class, so none is split or balanced by one
        labels=np.zeros(len(part.images), np.int32),
        classes=names,
        names=lambda i: str(part.images[i]),
        files=part.images,
        masks=part.masks,
        labelled=False,
    )
