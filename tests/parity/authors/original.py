"""An original: published weights whose network the authors' own code builds, saves and runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import torch

from fmjax.names import get_spec, split_name
from fmjax.specs import ViTSpec

Size = tuple[int, int]
Answer = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Original:
    """One name of the zoo in its authors' code. Methods run where that code can be imported, see imports.py."""

    name: str  # "arch.tag"
    depth: int = 0  # how many blocks are built; 0: all

    repository: ClassVar[str]  # owner/name
    folder: ClassVar[str]  # what a checkout of it is called
    source: ClassVar[str] = "."  # the folder inside it that its packages lie in
    packages: ClassVar[tuple[str, ...]]  # what is imported from there
    missing_sizes: ClassVar[str] = ""  # why the authors' code cannot be asked for all three sizes

    @property
    def arch(self) -> str:
        return split_name(self.name)[0]

    @property
    def spec(self) -> ViTSpec:
        """The published one, whatever the depth here."""
        return get_spec(self.name)

    @property
    def blocks(self) -> int:
        return self.depth or self.spec.depth

    @property
    def sizes(self) -> tuple[Size, ...]:
        """Native, a smaller square, and one that is not square."""
        raise NotImplementedError

    def build(self) -> torch.nn.Module:
        """The authors' network, its parameters not yet of interest."""
        raise NotImplementedError

    def save(self, model: Any, folder: Path) -> Path:
        """A file as the authors publish theirs."""
        path = folder / "checkpoint.pth"
        torch.save(model.state_dict(), path)
        return path

    def sized(self, model: Any, file: Path, size: Size) -> Any:
        """The network for an image size; most take any."""
        return model

    def answer(self, model: Any, images: torch.Tensor) -> Answer:
        """(all tokens [1 L D] after the final norm, pooled [1 E]) of images [1 3 H W]."""
        raise NotImplementedError


def with_depth(module: Any, kind: str, depth: int) -> Any:
    """A patch under which the authors' own functions for each size build so many blocks of a class of theirs.

    Their functions fix the depth next to the other sizes, and a giant at full depth does not fit here.
    """
    original = getattr(module, kind)
    return mock.patch.object(module, kind, shallow(original, depth))


def shallow(kind: Callable[..., Any], depth: int) -> Callable[..., Any]:
    """A constructor whose depth is decided."""

    def build(**arguments: Any) -> Any:
        return kind(**{**arguments, "depth": depth})

    return build
