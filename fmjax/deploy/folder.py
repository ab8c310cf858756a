"""A folder that another library loads as it is: its tensors, and what that library reads beside them."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import weights_conversion as wc
from fmjax.errors import CheckpointError, UsageError
from fmjax.models.vit import ViT
from fmjax.specs import ViTSpec
from fmjax.targets import check_not_source, check_writable
from fmjax.weights.export import tensors
from fmjax.weights.tuned import facts_of
from weights_conversion.writer import write_safetensors


@dataclass(frozen=True)
class Folder:
    """What lies in a folder, the numbers apart."""

    weights: str  # the name of the file of tensors
    texts: Mapping[str, Any]  # name -> what is written as JSON
    # a tensor of zeros that the library asks for and no model here has -> a key that stands beside it, its shape
    zeros: Mapping[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)


def refused(library: str, spec: ViTSpec, lack: str) -> CheckpointError:
    """The error for a model that a library has no class for."""
    return CheckpointError(
        f"{library} has no class for {spec.name}: it has none with {lack}; write its tensors alone, to a file that "
        f"ends in .safetensors, or a program"
    )


def check_folder(
    target: str, *, flag: str, sources: tuple[str, ...] = (), force: bool = False
) -> Path:
    """The folder that can be written there. Raises UsageError for a file, a source, and a folder that has something in
    it, unless `force`; FilesError for a place that cannot be written."""
    # in the order of check_target: what is there, what is read, whether it could be written
    path = Path(target).expanduser()
    if path.exists() and not path.is_dir():
        raise UsageError(f"{flag} {target!r} is a file; name a folder")
    for source in filter(None, sources):
        check_not_source(path / "model.safetensors", source, flag=flag)
        if path.is_dir() and Path(source).expanduser().exists() and path.samefile(Path(source)):
            raise UsageError(f"{flag} {target!r} is read from; write to another folder")
    if path.is_dir() and any(path.iterdir()) and not force:
        raise UsageError(
            f"{flag} {target!r} has files in it; pass --force to replace those of these names, or name another folder"
        )
    check_writable(path.parent)
    return path


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A place for the files of a folder, which have their places there when the block ends, and are gone where it
    fails; other files of the folder stay."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fmjax-") as beside:
        yield Path(beside)
        folder.mkdir(exist_ok=True)
        # configs last: a folder that has one has its tensors
        for file in sorted(Path(beside).iterdir(), key=lambda file: file.suffix != ".safetensors"):
            os.replace(file, folder / file.name)


def fill(
    place: Path,
    model: ViT,
    contents: Folder,
    *,
    dialect: str,
    base: str | Path | None = None,
    classifier: bool = True,
) -> None:
    """Writes the files of a folder into a place: the model in a dialect, and the texts beside it."""
    out = tensors(model, dialect, base, classifier=classifier)
    for name, (beside, shape) in contents.zeros.items():
        prefix = next(key.removesuffix(beside) for key in out if key.endswith(beside))
        # the original's own, where that is there
        out.setdefault(prefix + name, wc.in_memory(np.zeros(shape, np.float32)))
    metadata = {"format": "pt"} | facts_of(model, classifier=classifier)
    write_safetensors(place / contents.weights, out, metadata)
    for name, content in contents.texts.items():
        (place / name).write_text(_as_json(content), "utf-8")


def _as_json(content: Any) -> str:
    """Indented, in letters; where a class is a folder whose name is no text, in JSON's escapes, which bring it back."""
    # a lone surrogate, which stands for a byte that is no UTF-8, cannot be written as a letter
    text = json.dumps(content, indent=2, ensure_ascii=False)
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        text = json.dumps(content, indent=2)
    return text + "\n"
