"""Which images, and how they are held out and augmented."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from fmjax.config.augment import AugmentConfig
from fmjax.config.checks import MAX_SEED, PILLOW_PIXELS, check_source, require

MAX_WORKERS = 256  # each holds Python, Pillow and the list of the images


@dataclass(frozen=True, kw_only=True)
class ImagesConfig:
    """Images with labels: folders, a table, records, archives or a published set; or images with a mask each."""

    # digits, folder:DIR, images:PATH (without labels), masks:DIR, csv:FILE, arrayrecord:DIR, parquet:PATH, wds:PATH,
    # hf:NAME or tfds:NAME
    source: Annotated[str, tyro.conf.arg(aliases=("--source",))] = "digits"
    # where tfds: looks, and where the paths of a csv: start; "" is TFDS's default, and the table's own folder
    data_dir: str = ""
    # a file with a class name a line, which fixes their order; "" takes the source's own
    classes: str = ""
    # of a csv:, parquet: or hf: table; "" looks for image, path, file, filename ...
    image_column: str = ""
    # of a table, or the key in a wds: JSON file; "" looks for label, class, labels ...
    label_column: str = ""
    split_column: str = ""  # of a csv: table, with train, val or test in it; "" looks for split
    # between several labels in one cell; "" is one label a cell, and ; in a column called labels
    label_separator: str = ""
    # read an hf: dataset of the hub, or a parquet:https://..., as it is needed in the place of fetching it first
    stream: bool = False
    # MiB of row groups that a stream shuffles together, in each epoch's own order of them; another value, another order
    stream_window_mib: int = 256
    stream_cache_gib: float = 4.0  # GiB that row groups of streams may take on disk, in FMJAX_CACHE
    threads: int = 4  # that decode and augment
    workers: int = 0  # processes that do so for the threads, where there are many cores; 0: none
    # unreadable images that are named, counted and left out before the run stops
    max_bad: int = 100
    max_bad_share: float = 0.1  # the same, as a share of the set, from the third one on
    ignore: int = 255  # value in a mask of pixels that are of no class
    # of one picture, which may take 8 bytes each; larger ones are unreadable
    max_pixels: int = 50_000_000

    def __post_init__(self) -> None:
        # a run would meet these after its weights were read, or when it is half done
        check_source(self.source)
        self._check_stream()
        require(self.threads >= 1, "--data.threads", self.threads, "1 or more")
        within = 0 <= self.workers <= MAX_WORKERS
        require(within, "--data.workers", self.workers, f"0 to {MAX_WORKERS}")
        require(self.max_bad >= 0, "--data.max-bad", self.max_bad, "0 or more")
        require(0 <= self.max_bad_share <= 1, "--data.max-bad-share", self.max_bad_share, "a share")
        require(0 <= self.ignore <= 65_535, "--data.ignore", self.ignore, "0 to 65535")
        within = 1 <= self.max_pixels <= PILLOW_PIXELS
        require(
            within,
            "--data.max-pixels",
            self.max_pixels,
            f"1 to {PILLOW_PIXELS}, Pillow's own limit",
        )

    def _check_stream(self) -> None:
        """The room of a stream. It holds the window that is read, the next one, and what is on its way.

        Row groups that are larger than that are met when the set is opened, and refused there.
        """
        window, cache = self.stream_window_mib, self.stream_cache_gib
        require(window >= 1, "--data.stream-window-mib", window, "1 or more")
        wanted = "room for three windows (--data.stream-window-mib) or more"
        require(cache * 1024 >= window * 3, "--data.stream-cache-gib", cache, wanted)


@dataclass(frozen=True, kw_only=True)
class DataConfig(AugmentConfig, ImagesConfig):
    """Images to train on: what is held out of them, and how they are augmented."""

    # of a source without a validation split, the same part of every class
    val_fraction: float = 0.2
    split_seed: int = 0  # of the draw of what is held out
    # random resized crop: smallest part of the image's area; 1 switches the crop off
    crop_scale: float = 0.35
    flip: float = 0.5  # probability of a mirror image
    # exact: crops as Pillow makes them. fast: nearly the same in a fraction of the time, by OpenCV (pip install
    # 'fmjax[fast]'); a large JPEG is decoded at a part of its size. Evaluation is exact, whatever this is
    decoder: Literal["exact", "fast"] = "exact"
    # shuffled: every image as often. balanced: every class as often, so that images of rare ones come again sooner
    sampling: Literal["shuffled", "balanced"] = "shuffled"

    def __post_init__(self) -> None:
        # computed with all the same, a crop scale of 35 in the place of 0.35 would only show in what the run learns
        ImagesConfig.__post_init__(self)
        AugmentConfig.__post_init__(self)
        require(
            0 <= self.split_seed <= MAX_SEED,
            "--data.split-seed",
            self.split_seed,
            f"0 to {MAX_SEED}",
        )
        require(
            0 < self.val_fraction < 1, "--data.val-fraction", self.val_fraction, "between 0 and 1"
        )
        require(
            0 < self.crop_scale <= 1, "--data.crop-scale", self.crop_scale, "above 0, at most 1"
        )
        require(0 <= self.flip <= 1, "--data.flip", self.flip, "a probability")

    def check_mask(self) -> None:
        """Raises UsageError for what pictures with masks cannot have."""
        super().check_mask()
        expected = "'exact' where examples have a mask, whose pixels lie over those of the picture"
        require(self.decoder == "exact", "--data.decoder", self.decoder, expected)
