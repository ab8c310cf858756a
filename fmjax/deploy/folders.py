"""The folders of other libraries, by the dialect of their tensors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fmjax.deploy import open_clip_folder, timm_folder, transformers_folder
from fmjax.deploy.folder import Folder, fill, whole_folder
from fmjax.errors import UsageError, nearest
from fmjax.models.vit import ViT
from fmjax.specs import PreprocessConfig

DIALECTS = ("timm", "open_clip", *transformers_folder.KINDS)


def write(
    folder: Path,
    model: ViT,
    preprocessing: PreprocessConfig,
    *,
    dialect: str = "timm",
    classes: Sequence[str] = (),
    licence: str = "",
    base: str | Path | None = None,
    classifier: bool = True,
) -> Path:
    """Writes a folder that the library of a dialect loads as it is, and returns it.

    preprocessing: of the images, at the size of the model. classes: names of the outputs of its classifier. base: the
    original file, whose other tensors return unchanged. classifier: False leaves the classifier out. All files appear,
    or none. Raises CheckpointError where the library has no class for such a model, UsageError for a dialect without a
    folder.
    """
    # what could be refused is, before a file is made
    contents = contents_of(
        model,
        preprocessing,
        dialect=dialect,
        classes=classes,
        licence=licence,
        base=base,
        classifier=classifier,
    )
    with whole_folder(folder) as place:
        fill(place, model, contents, dialect=dialect, base=base, classifier=classifier)
    return folder


def contents_of(
    model: ViT,
    preprocessing: PreprocessConfig,
    *,
    dialect: str,
    classes: Sequence[str] = (),
    licence: str = "",
    base: str | Path | None = None,
    classifier: bool = True,
) -> Folder:
    """What `write` writes, the numbers apart."""
    if dialect not in DIALECTS:
        raise UsageError(
            f"no library loads a folder of {dialect!r}{nearest(dialect, DIALECTS)}; --dialect is one of "
            f"{', '.join(DIALECTS)}, or name a file that ends in .safetensors"
        )
    # a model without a classifier, or one that is left out, has no classes
    outputs = 0
    if classifier and model.classifier is not None:
        outputs = model.classifier.kernel.shape[1]
    if dialect == "open_clip":
        return open_clip_folder.folder(model, preprocessing, base)
    named = {"outputs": outputs, "classes": classes}
    # only timm's config says a licence
    if dialect == "timm":
        return timm_folder.folder(model, preprocessing, **named, licence=licence)
    return transformers_folder.folder(model, dialect, preprocessing, **named)
