"""`fmjax from-tao`: a spec of TAO's image classification as a preset, and all that it cannot say there."""

from __future__ import annotations

from fmjax.errors import UsageError, escaped
from fmjax.programs.tao import release5, release6
from fmjax.programs.tao.common import Asked
from fmjax.programs.tao.fields import RELEASE_5, RELEASE_6, Field, field_of
from fmjax.programs.tao.preset import Preset
from fmjax.programs.tao.spec import Spec, read_spec

# fields that one release has and the other has not
OLD = ("dataset.data", "train.train_config", "dataset.img_norm_cfg")
NEW = ("train.optim", "dataset.train_dataset", "dataset.augmentation", "train.num_epochs")


def main(path: str, *, images: int = 0, model: str = "", data: str = "") -> str:
    """The preset of a spec, as Python source. Raises UsageError or DataError, in a sentence, where there is none."""
    if images < 0:
        raise UsageError(f"--images is {images}; it must be 1 or more, or 0 to count them")
    spec, preset = read_spec(path), Preset()
    old, new = (any(map(spec.has, heads)) for heads in (OLD, NEW))
    # a spec of another of TAO's networks has a model and a train too
    if old == new or not spec.has("model.backbone"):
        raise UsageError(
            f"{spec.name} is no spec of TAO's image classification: it has neither model.backbone and train.optim, as "
            f"those of 6.x, nor train.train_config, as those of 5.x"
        )
    fields = RELEASE_5 if old else RELEASE_6
    translate = release5.translate if old else release6.translate
    translate(spec, preset, Asked(images, model, data))
    _explain(spec, preset, fields)
    preset.config()
    title = f"TAO's spec {escaped(spec.name.rpartition('/')[2], 40)} as a preset of fmjax.".replace(
        '"', ""
    )
    return preset.text(title.replace("\\", "/"), "fmjax finetune THIS_FILE.py")


def _explain(spec: Spec, preset: Preset, fields: tuple[Field, ...]) -> None:
    """A comment for every field of the spec that the preset has not."""
    for path in spec.fields:
        row = field_of(path, fields)
        if row is None:
            preset.unknown.append(path)
            continue
        # a section that is no part of training is one line
        name = row.path if row.path.endswith(".*") and "*" not in row.path[:-1] else path
        if row.ignored:
            because = f"; {row.ours}" if row.ours else ""
            _add(preset.ignored, f"{name} ({row.ignored}){because}")
        # a field that says nothing needs no answer
        elif not row.mapped and spec.get(path) is not None:
            _add(preset.absent, f"{name}: {row.ours}")


def _add(rows: list[str], row: str) -> None:
    if row not in rows:
        rows.append(row)
