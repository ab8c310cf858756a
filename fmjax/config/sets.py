"""What is asked of a set of images as a whole."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Annotated

import tyro

from fmjax.config.checks import require
from fmjax.config.data import ImagesConfig

MAX_SHORT_EDGE = 1 << 13  # pixels of pictures that are packed as pixels


def _check_left_out(data: ImagesConfig, names: tuple[str, ...], why: str) -> None:
    """Raises UsageError for a flag of images in general that a program has no use for."""
    usual = ImagesConfig()
    for name in names:
        value, expected = getattr(data, name), getattr(usual, name)
        flag = f"--data.{name.replace('_', '-')}"
        require(value == expected, flag, value, f"{expected!r}, as {why}")


@dataclass(frozen=True, kw_only=True)
class DataCheckConfig:
    """Looks at every image before a run does. Ends with code 3 where a run would stop."""

    data: Annotated[ImagesConfig, tyro.conf.arg(prefix_name=True)] = field(
        default_factory=ImagesConfig
    )
    small: int = 32  # pixels; images with a shorter side are named
    large: int = 25_000_000  # pixels of an image; those with more are named
    long: float = 4.0  # longer side over the shorter; images beyond it are named
    # images of the largest class over those of another; classes beyond it are named
    ratio: float = 10.0
    # a model ("arch.tag") whose embeddings show what looks alike, what is far from all, and which labels are in doubt
    embed: str = ""
    checkpoint: str = ""  # of --embed: a file or folder instead of the published source
    # of the median distance (1 - cosine) to the nearest neighbour; pairs closer than it are named, with --embed
    alike: float = 0.25
    unlike: float = (
        6.0  # robust deviations from the median; images further off are named, with --embed
    )
    json: bool = False  # print a record for machines, with every row of every finding
    page: str = ""  # an .html file to write: the findings and the classes, for a browser
    force: bool = False  # replace the page if it is there

    def __post_init__(self) -> None:
        _check_left_out(self.data, ("workers",), "sets are read by --data.threads")
        require(self.small >= 1, "--small", self.small, "1 or more")
        require(self.large >= 1, "--large", self.large, "1 or more")
        require(1 <= self.long < math.inf, "--long", self.long, "1 or more, and finite")
        require(1 <= self.ratio < math.inf, "--ratio", self.ratio, "1 or more, and finite")
        self._check_embedding()

    def _check_embedding(self) -> None:
        require(0 < self.alike < 1, "--alike", self.alike, "above 0 and below 1")
        require(0 < self.unlike < math.inf, "--unlike", self.unlike, "above 0, and finite")
        usual = {field.name: field.default for field in fields(self)}
        # without a network nothing would come of them
        for name in ("checkpoint", "alike", "unlike"):
            value = getattr(self, name)
            agrees = bool(self.embed) or value == usual[name]
            require(agrees, f"--{name}", value, "left out, as there is no --embed")


@dataclass(frozen=True, kw_only=True)
class DataPackConfig:
    """Writes a set as ArrayRecord files, which `--data.source arrayrecord:DIR` reads."""

    data: Annotated[ImagesConfig, tyro.conf.arg(prefix_name=True)] = field(
        default_factory=ImagesConfig
    )
    out: str = "packed"  # the folder to write, which must not be there
    shard_mb: int = 256  # of one file, about
    # pack pixels, 3 bytes each, of pictures whose shorter side is shrunk to so many; a run decodes nothing then.
    # 0 packs the files as they are
    short_edge: int = 0

    def __post_init__(self) -> None:
        _check_left_out(self.data, ("workers", "ignore"), "sets are packed by --data.threads")
        if not self.short_edge:
            _check_left_out(self.data, ("max_pixels",), "files are packed as they are")
        require(1 <= self.shard_mb <= 1 << 20, "--shard-mb", self.shard_mb, f"1 to {1 << 20:,}")
        agrees = 0 <= self.short_edge <= MAX_SHORT_EDGE
        expected = f"0, or pixels up to {MAX_SHORT_EDGE:,}"
        require(agrees, "--short-edge", self.short_edge, expected)
