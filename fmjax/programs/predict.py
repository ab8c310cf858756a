"""`fmjax predict`: what a run says of new pictures, one row each, as they are read."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fmjax.config.data import ImagesConfig
from fmjax.config.predict import PredictConfig
from fmjax.config.presets import load_preset
from fmjax.console import console, counted
from fmjax.data import audit
from fmjax.data.example import Examples
from fmjax.data.unlabelled import LIST, STDIN, pictures
from fmjax.engine.placement import mesh_of
from fmjax.engine.plan import Learner
from fmjax.engine.predict import Answered, answered
from fmjax.engine.records import read_run
from fmjax.engine.run import chosen_step, outline, restore_params
from fmjax.errors import DataError, Stopped, UsageError, amount, escaped, safe
from fmjax.programs.answers import Row, printed, text_of, written
from fmjax.report.segments import class_colours
from fmjax.store import addresses
from fmjax.targets import check_target, check_writable
from fmjax.tasks.task import Asked
from weights_conversion.writer import whole

NAMED = 10  # unreadable pictures that are told beside a file
PALETTE = 256  # classes that a PNG with colours can tell apart


@dataclass
class Counts:
    """How many pictures have been looked at, and how many could not be read."""

    pictures: int = 0
    unreadable: int = 0


def main(run: str, config: PredictConfig) -> Counts:
    """Writes or prints an answer for every picture, and returns how many there were.

    Raises DataError where there are none, or none can be read; the rows are written all the same then.
    """
    # what is wrong with the flags, the pictures or the run is told before an array is read
    found = pictures(_places(config))
    examples = found.train
    for line in audit.lines(found, examples, None):
        _tell(line)
    folder = Path(run)
    own = load_preset(config.preset).task if config.preset else None
    trained, labels = read_run(folder, own)
    path = _target(config)
    mesh = mesh_of(config.mesh, _tell)
    learner = outline(folder, trained, labels, mesh)
    step = chosen_step(folder, trained, learner.task, None if config.step < 0 else config.step)
    average = trained.recipe.averages
    params = restore_params(folder, learner.net, step, mesh, average=average)

    stream = answered(
        learner,
        params,
        examples,
        mesh,
        asked=Asked(config.top, config.threshold),
        data=_reading(config),
        batch_size=config.batch_size,
    )
    counts = Counts()
    try:
        _write(config, path, stream, examples, learner, counts)
    except KeyboardInterrupt:
        left = f", and wrote no {path}" if path else ""
        raise Stopped(f"stopped after {amount(counts.pictures, 'picture')}{left}") from None
    _tell(f"predict {_summary(counts, path)} by step {step} of {run}")
    if counts.unreadable == counts.pictures:
        raise DataError(f"none of {amount(counts.pictures, 'picture')} could be read")
    return counts


def _places(config: PredictConfig) -> list[str]:
    # a list by its flag is one more place, behind those that are named
    listed = [config.list if config.list == STDIN else f"{LIST}{config.list}"]
    places = [*config.images, *(listed if config.list else [])]
    if not places:
        raise UsageError(
            "fmjax predict needs pictures behind the run: files, folders, addresses, @LIST, or - for paths from "
            "standard input"
        )
    if places.count(STDIN) > 1:
        raise UsageError("standard input (-) can be read once; name it once")
    return places


def _target(config: PredictConfig) -> Path | None:
    # the kind of file is its ending, which the flags have checked
    if not config.out:
        return None
    suffix = Path(config.out).suffix
    # an answer never takes the place of a picture or a list
    sources = (config.list, *config.images)
    return check_target(config.out, suffix, flag="--out", sources=sources, force=config.force)


def _reading(config: PredictConfig) -> ImagesConfig:
    # the pictures have no source but the places: of its settings there are those of reading alone
    return ImagesConfig(
        threads=config.threads, workers=config.workers, max_pixels=config.max_pixels
    )


def _write(
    config: PredictConfig,
    path: Path | None,
    stream: Iterator[list[Answered]],
    examples: Examples,
    learner: Learner,
    counts: Counts,
) -> None:
    # a bar, and lines of progress, would stand between the rows that are printed
    sized = ((len(some), some) for some in stream)
    batches = counted(sized, len(examples), "pictures") if path else (some for _, some in sized)
    masks = Masks(Path(config.masks).expanduser(), len(examples), len(learner.labels), config.force)
    with written(path) if path else printed(config.format) as sink:
        for some in batches:
            like = {"file": "", "error": "", **some[0].answer}
            sink.add([_row(one, examples, masks) for one in some], like)
            bad = [one for one in some if one.error]
            if path:
                _name(bad, examples, counts)
            counts.pictures += len(some)
            counts.unreadable += len(bad)


def _row(one: Answered, examples: Examples, masks: Masks) -> Row:
    name = examples.names(one.index)
    if one.error:
        # the same columns, with nothing in them
        return {"file": name, "error": one.error} | dict.fromkeys(one.answer)
    answer = dict(one.answer)
    if isinstance(answer.get("mask"), np.ndarray):
        answer["mask"] = str(masks.write(one.index, name, answer["mask"]))
    return {"file": name, "error": None} | answer


def _name(bad: Iterable[Answered], examples: Examples, counts: Counts) -> None:
    """Tells the first few pictures that could not be read; all are in the rows."""
    for place, one in enumerate(bad, counts.unreadable):
        if place < NAMED:
            console.print(f"unreadable picture: {_printed(examples.names(one.index))}: {one.error}")


def _printed(name: str) -> str:
    return addresses.shown(name) if "://" in name else escaped(name)


def _summary(counts: Counts, path: Path | None) -> str:
    bad = f", {counts.unreadable:,} of them unreadable" if counts.unreadable else ""
    pictures = amount(counts.pictures, "picture")
    return f"{pictures}{bad}{f' in {path}' if path else ''}"


def _tell(line: str) -> None:
    # beside the rows, which a pipe may take
    sys.stderr.write(safe(line) + "\n")


@dataclass
class Masks:
    """The folder of the masks of a segmentation, made when the first one comes."""

    folder: Path
    pictures: int
    classes: int
    force: bool
    made: bool = False

    def write(self, index: int, name: str, mask: np.ndarray) -> Path:
        """A PNG of one channel, whose values are the classes, with a colour for each where there are not too many;
        `masks:DIR` reads it as it is. Its name starts with the picture's place, as names may be there twice."""
        self._make()
        # as many digits for all, so that they lie in the order of the rows
        digits = len(str(self.pictures))
        stem = Path(name.partition("?")[0]).stem[:60]
        path = self.folder / f"{index:0{digits}}_{_plain(stem)}.png"
        with whole(path) as file:
            _picture(mask, self.classes).save(file, "PNG")
        return path

    def _make(self) -> None:
        if self.made:
            return
        if self.folder.exists() and any(self.folder.iterdir()) and not self.force:
            raise UsageError(
                f"--masks {str(self.folder)!r} is not empty; name another folder, or pass --force to write among what "
                f"is there"
            )
        check_writable(self.folder)
        self.made = True


def _plain(stem: str) -> str:
    """A name that every file system takes."""
    return re.sub(r"[^\w.-]", "_", text_of(stem))


def _picture(mask: np.ndarray, classes: int) -> Any:
    # without colours the value is the class all the same
    if classes > PALETTE:
        return Image.fromarray(mask.astype(np.uint16))
    picture = Image.fromarray(mask.astype(np.uint8)).convert("P")
    picture.putpalette(class_colours(classes).ravel().tolist())
    return picture
