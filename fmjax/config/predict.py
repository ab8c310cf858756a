"""What is asked of a run about pictures whose truth nobody knows."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Annotated, Literal

import tyro

from fmjax.config.checks import PILLOW_PIXELS, require
from fmjax.config.data import MAX_WORKERS
from fmjax.config.run import MeshConfig

FILES = (".csv", ".jsonl", ".parquet")


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """What a fine-tuned run says of pictures: the classes of each, or of each of its pixels.

    There is a row for every picture, in the order of what is named, with its file and the error that kept it from being
    read. Beside them a classifier says class, probability, classes and probabilities; with several classes a picture,
    the classes above --threshold and their probabilities; a segmentation its mask, a PNG, the classes in it and their
    shares of the pixels.
    """

    # files, folders and those below them, web addresses; - for paths from standard input, @FILE for those in a file
    images: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PICTURES ...")
    ] = ()
    # a file with a path or an address a line, as @FILE among the images
    list: str = ""
    top: int = 5  # classes of a picture, the likeliest first; all where there are fewer
    threshold: float = 0.5  # probability above which a class is there, where several may be
    out: str = ""  # a .csv, .jsonl or .parquet file to write; "" prints
    format: Literal["table", "csv", "jsonl"] = "table"  # of what is printed, without --out
    masks: str = "masks"  # the folder for the masks of a segmentation, a PNG a picture
    force: bool = False  # replace the file if it is there
    preset: str = ""  # the .py file of a task of one's own; it is run
    step: int = -1  # of the checkpoint; -1 is the best of those that are kept
    mesh: MeshConfig = field(default_factory=MeshConfig)
    batch_size: int = 32  # pictures at a time, over all devices; answers do not depend on it
    threads: int = 4  # that fetch and decode, each a batch
    workers: int = 0  # processes that do so for the threads, where there are many cores; 0: none
    # of one picture, which may take 8 bytes each; larger ones are unreadable
    max_pixels: int = 50_000_000

    def __post_init__(self) -> None:
        # what a program would meet after the weights were read is refused here
        require(self.top >= 1, "--top", self.top, "1 or more")
        require(self.batch_size >= 1, "--batch-size", self.batch_size, "1 or more")
        require(self.threads >= 1, "--threads", self.threads, "1 or more")
        require(0 <= self.threshold <= 1, "--threshold", self.threshold, "a probability")
        require(self.step >= -1, "--step", self.step, "a step, or -1 for the best")
        require(
            0 <= self.workers <= MAX_WORKERS,
            "--workers",
            self.workers,
            f"0 to {MAX_WORKERS}",
        )
        require(
            1 <= self.max_pixels <= PILLOW_PIXELS,
            "--max-pixels",
            self.max_pixels,
            f"1 to {PILLOW_PIXELS}, Pillow's own limit",
        )
        if self.out:
            self._check_file()

    def _check_file(self) -> None:
        require(
            PurePath(self.out).suffix in FILES,
            "--out",
            self.out,
            "a name that ends in .csv, .jsonl or .parquet",
        )
        require(
            self.format == "table",
            "--format",
            self.format,
            "left out with --out, whose ending says it",
        )
