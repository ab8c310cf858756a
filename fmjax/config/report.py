"""What is asked of a report."""

from __future__ import annotations

from dataclasses import dataclass

from fmjax.config.checks import require

MAX_MAPS, MAX_ATLAS = 24, 2_000  # images: a page with all of them is still a few megabytes


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """A page of a run, in one file: curves, mistakes, calibration, data, and what its network sees."""

    out: str = ""  # the file to write; "" is report.html in the run's folder
    preset: str = ""  # the .py file of a task of one's own; it is run
    pictures: bool = True  # also what needs the model: patches, attention, an atlas
    maps: int = 6  # held-out images whose patches and attention are shown; 0 leaves both out
    atlas: int = 400  # held-out images in the atlas of embeddings, at most; 0 leaves it out
    batch_size: int = 32  # images that the model is given at a time

    def __post_init__(self) -> None:
        require(0 <= self.maps <= MAX_MAPS, "--maps", self.maps, f"0 to {MAX_MAPS}")
        require(0 <= self.atlas <= MAX_ATLAS, "--atlas", self.atlas, f"0 to {MAX_ATLAS:,}")
        require(self.batch_size >= 1, "--batch-size", self.batch_size, "1 or more")
