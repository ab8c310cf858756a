"""The flags of `fmjax push`. Imports no jax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Dialect = Literal[
    "timm", "hf_dinov2", "hf_dinov2_with_registers", "hf_vit", "hf_clip", "hf_siglip", "hf_dinov3"
]


@dataclass(frozen=True, kw_only=True)
class PushConfig:
    """What a hub is given of a fine-tuned run."""

    dialect: Dialect = "timm"  # whose library loads the repository
    classifier: bool = True  # write the run's classifier; without it the projection is kept
    private: bool = False  # a repository that is made now is seen by its owner alone
    dry_run: bool = False  # write the folder, and upload nothing
    force: bool = False  # replace the files of a folder that has some
