"""A source -> all that is wrong with it, and what is in it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fmjax.config.data import ImagesConfig
from fmjax.config.sets import DataCheckConfig
from fmjax.data.batches import FEW_BAD
from fmjax.data.check import sets
from fmjax.data.check.kinds import LEFT_OUT, Finding, by_severity, listed
from fmjax.data.check.layout import read_layout
from fmjax.data.check.neighbours import Compared, by_embedding, untold
from fmjax.data.check.pictures import FACTS, NAMED, Bounds, Seen, look
from fmjax.data.example import Examples, Splits
from fmjax.data.sources import open_source
from fmjax.errors import DataError, UsageError, escaped, sentence

SAMPLE = 2_000  # pictures whose values are added up, spread evenly over the set
QUARTERS = (0, 0.25, 0.5, 0.75, 1)
AHEAD = 4  # pictures that are looked at before their turn, for each thread
Watched = Callable[[Iterator[Seen], int], Iterable[Seen]]
# the readable images of each part -> an embedding of each, in that order [N, E]
Embed = Callable[[list[Examples]], np.ndarray]


@dataclass(frozen=True)
class Part:
    """One part of a set: how many images it has, and of each class how many that can be read."""

    images: int
    readable: int
    by_class: np.ndarray


@dataclass(frozen=True)
class Report:
    """What a source has and what is wrong with it. findings: the worst first."""

    source: str
    classes: tuple[str, ...]
    parts: dict[str, Part]
    findings: list[Finding]
    notes: tuple[str, ...]  # of how it was read, as a run says them
    formats: dict[str, int] = field(default_factory=dict)
    # of a side in pixels, from small to large: least, a quarter, half, three quarters, largest
    widths: tuple[int, ...] = ()
    heights: tuple[int, ...] = ()
    mean: tuple[float, ...] = ()  # of red, green and blue in 0..1, over all pixels of a sample
    std: tuple[float, ...] = ()
    sampled: int = 0  # pictures of the sample

    @property
    def errors(self) -> list[Finding]:
        """What a run would stop for."""
        return [finding for finding in self.findings if finding.severity == "error"]


@dataclass(frozen=True)
class _Opened:
    """The parts of a source, and what its opening has shown."""

    parts: dict[str, Examples]
    findings: list[Finding]
    notes: tuple[str, ...]


def check(
    config: DataCheckConfig,
    watched: Watched = lambda seen, total: seen,
    embed: Embed | None = None,
    compared: Compared = untold,
) -> Report:
    """Looks at every picture of a source. watched: gets what is seen of each, in order, and how many there are. embed:
    a network's view of those that can be read, which is compared as well. compared: gets the blocks of that.

    Nothing that is wrong with the data raises: it is a finding. About 200 bytes are kept of an image.
    """
    opened = _opened(config.data)
    total = sum(map(len, opened.parts.values()))
    facts = np.zeros(total, FACTS)
    read = np.ones(total, bool)
    unreadable, wrong, sums, sampled = [], [], np.zeros(7), 0
    # in the order of the parts, so that two checks of one set say the same
    for index, seen in enumerate(watched(_looked_at(opened.parts, config), total)):
        read[index] = not seen.reason
        if seen.reason:
            unreadable.append((index, seen.reason))
            continue
        facts[index] = seen.facts
        sums += seen.sums
        sampled += bool(seen.sums.any())
        if seen.mask:
            wrong.append(seen.mask)

    everything = _set(opened.parts, facts, _root(config.data))
    broken = [f"{everything.name(index)}: {reason}" for index, reason in unreadable]
    parts = _counted(opened.parts, read)
    findings = [*opened.findings, *listed("unreadable", broken), *listed("wrong-mask", wrong)]
    findings += _beyond(parts, config.data)
    chosen = _chosen(everything, read)
    findings += _compared(chosen, parts, config)
    if embed is not None and read.any():
        features = embed(_readable(opened.parts, read))
        bounds = {"alike": config.alike, "unlike": config.unlike}
        findings += by_embedding(chosen, features, **bounds, compared=compared)
    return Report(
        config.data.source,
        everything.classes,
        parts,
        by_severity(findings),
        opened.notes,
        sampled=sampled,
        **_figures(facts[read], sums),
    )


def _opened(data: ImagesConfig) -> _Opened:
    """All that can be had of a source: the refusal of a run is a finding."""
    scheme, _, _ = data.source.partition(":")
    refused: list[str] = []
    splits: Splits | None = None
    try:
        splits = open_source(data)
    except UsageError:
        raise
    except (DataError, OSError) as error:
        refused = [sentence(error)]
    findings = listed("refused", refused)
    # what a run refuses as a whole can still be looked at, so that one check shows all that is to be mended
    if scheme == "folder" and _root(data).is_dir():
        layout = read_layout(_root(data))
        return _Opened(layout.parts, findings + layout.findings, ())
    if splits is None:
        return _Opened({}, findings, ())
    parts = {"train": splits.train} | ({"val": splits.val} if splits.val else {})
    return _Opened(parts, findings + _left_out(splits), splits.notes)


def _root(data: ImagesConfig) -> Path:
    return Path(data.source.partition(":")[2]).expanduser()


def _left_out(splits: Splits) -> list[Finding]:
    """What a source counts with one example each."""
    out = []
    for row in splits.left_out:
        kind = LEFT_OUT.get(row.reason, "left-out")
        told = (
            f"{escaped(row.example)}: {row.reason}" if kind == "left-out" else escaped(row.example)
        )
        out.append(Finding(kind, row.count, [told].__getitem__, known=1))
    return out


def _looked_at(parts: Mapping[str, Examples], config: DataCheckConfig) -> Iterator[Seen]:
    """What is seen of each picture of each part, in order."""
    # threads do, as Pillow decodes without the interpreter's lock
    data, number = config.data, 0
    step = max(1, -(-sum(map(len, parts.values())) // SAMPLE))
    bounds = Bounds(config.small, config.large, config.long)
    waiting: deque[Future[Seen]] = deque()
    pool = ThreadPoolExecutor(data.threads)
    try:
        for examples in parts.values():
            seeing = partial(
                look, examples, bounds=bounds, max_pixels=data.max_pixels, ignore=data.ignore
            )
            for index in range(len(examples)):
                waiting.append(pool.submit(seeing, index, summed=number % step == 0))
                number += 1
                # a few ahead only, so that memory stays flat however large the set is
                if len(waiting) >= AHEAD * data.threads:
                    yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # whoever stops in the middle waits for the pictures in work, not for those in line
        pool.shutdown(cancel_futures=True)


def _set(parts: Mapping[str, Examples], facts: np.ndarray, root: Path) -> sets.Set:
    """All images of all parts, one after the other."""
    every = list(parts.values())
    lengths = [len(examples) for examples in every]
    starts = np.cumsum([0, *lengths])

    def name(index: int) -> str:
        part = int(np.searchsorted(starts, index, side="right")) - 1
        whole = every[part].names(index - int(starts[part]))
        # below the folder, which is named once
        return escaped(whole.removeprefix(f"{root}/"))

    # a source that was refused has no part
    labels = [np.zeros(0, np.int32), *(examples.labels for examples in every)]
    return sets.Set(
        facts=facts,
        parts=np.repeat(np.arange(len(every)), lengths),
        labels=np.concatenate(labels),
        classes=every[0].classes if every else (),
        labelled=all(examples.labelled for examples in every),
        name=name,
    )


def _chosen(images: sets.Set, read: np.ndarray) -> sets.Set:
    """The readable ones."""
    where = np.flatnonzero(read)
    return replace(
        images,
        facts=images.facts[read],
        parts=images.parts[read],
        labels=images.labels[read],
        name=lambda index: images.name(int(where[index])),
    )


def _readable(parts: Mapping[str, Examples], read: np.ndarray) -> list[Examples]:
    """The parts with their readable images only; none that has none."""
    stops = np.cumsum([len(examples) for examples in parts.values()])
    where = np.split(read, stops[:-1])
    pairs = zip(parts.values(), where, strict=True)
    return [examples.subset(np.flatnonzero(mine)) for examples, mine in pairs if mine.any()]


def _counted(parts: Mapping[str, Examples], read: np.ndarray) -> dict[str, Part]:
    out, start = {}, 0
    for role, examples in parts.items():
        mine = read[start : start + len(examples)]
        out[role] = Part(len(examples), int(mine.sum()), _by_class(examples, mine))
        start += len(examples)
    return out


def _by_class(examples: Examples, read: np.ndarray) -> np.ndarray:
    """int64 [classes]: how many readable images are of each class; zeros where the classes are of pixels."""
    count = len(examples.classes)
    if examples.labelled:
        return np.bincount(examples.labels[read], minlength=count)
    # each image may be of several classes, or of none
    out = np.zeros(count, np.int64)
    labels = examples.fields.get("labels")
    if labels is None:
        return out
    for index in np.flatnonzero(read):
        out += np.asarray(labels(int(index))).astype(np.int64)
    return out


def _beyond(parts: Mapping[str, Part], data: ImagesConfig) -> list[Finding]:
    """Parts with more unreadable images than a run goes on with, by the same two bounds."""
    told = []
    for role, part in parts.items():
        bad = part.images - part.readable
        share = bad / max(part.images, 1)
        many = share > data.max_bad_share and bad >= FEW_BAD
        # no run looks at a test part that it is not given
        if role != "test" and (bad > data.max_bad or many):
            told.append(f"{role} has {bad:,} of {part.images:,} ({share:.0%})")
    return listed("too-many-unreadable", told)


def _compared(
    images: sets.Set, parts: Mapping[str, Part], config: DataCheckConfig
) -> list[Finding]:
    out = [*sets.of_pictures(images), *sets.copies(images), *sets.near_copies(images)]
    counts = {role: part.by_class for role, part in parts.items()}
    # of masks, no image as a whole is of a class
    if "train" in counts and counts["train"].any():
        # a split is drawn by class where each image has one
        drawn = "val" not in counts and images.labelled
        out += sets.balance(counts, images.classes, config.ratio, split=drawn)
    return out


def _figures(facts: np.ndarray, sums: np.ndarray) -> dict[str, Any]:
    """Formats, sizes, and the mean and spread of the values of all pixels of the sample."""
    if not len(facts):
        return {}
    formats = Counter(facts["format"].tolist()).most_common()
    # the spread about the mean, by the mean of the squares
    mean, squares = sums[:3] / sums[6], sums[3:6] / sums[6]
    std = np.sqrt(np.maximum(squares - mean**2, 0))
    return {
        "formats": {NAMED[number]: count for number, count in formats},
        "widths": _spread(facts["width"]),
        "heights": _spread(facts["height"]),
        "mean": tuple(np.round(mean, 4).tolist()),
        "std": tuple(np.round(std, 4).tolist()),
    }


def _spread(sides: np.ndarray) -> tuple[int, ...]:
    return tuple(np.quantile(sides, QUARTERS).astype(int).tolist())
