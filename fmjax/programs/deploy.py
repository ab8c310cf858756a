"""`fmjax export` to what runs or loads without fmjax: programs, and folders of other libraries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from fmjax import names
from fmjax.config.run import RunConfig
from fmjax.console import console
from fmjax.deploy import folders, onnx, stablehlo, tflite
from fmjax.deploy.folder import check_folder
from fmjax.deploy.program import Images, Output, program
from fmjax.engine.records import CLASSES, read_run
from fmjax.engine.run import chosen_step, outline, restore_params
from fmjax.engine.steps import has_steps
from fmjax.errors import UsageError, in_bytes
from fmjax.models.lora import merged
from fmjax.models.surgery import without_classifier
from fmjax.models.vit import ViT
from fmjax.preprocessing import PreprocessConfig, preprocess_config
from fmjax.programs.convert import SUFFIX as TENSORS
from fmjax.programs.convert import export_file, tell_differences
from fmjax.targets import check_target
from fmjax.weights.export import export as write_tensors
from fmjax.weights.load import load
from weights_conversion.readers import open_checkpoint

FOLDER = "/"  # the end of a target that is one
WRITERS = {
    stablehlo.SUFFIX: stablehlo.write,
    onnx.SUFFIX: onnx.write,
    tflite.SUFFIX: tflite.write,
}
ONE_PICTURE = (tflite.SUFFIX,)  # the ends of programs whose batch is 1 and no other
# the end of a target -> the flags that are read for it, and what else it is called
TENSOR_FLAGS = ("dialect", "base", "model", "classifier")
PROGRAM_FLAGS = ("model", "classifier", "images", "outputs", "dtype")
FLAGS: dict[str, tuple[str, ...]] = {
    TENSORS: TENSOR_FLAGS,
    FOLDER: TENSOR_FLAGS,
    stablehlo.SUFFIX: PROGRAM_FLAGS,
    onnx.SUFFIX: PROGRAM_FLAGS,
    tflite.SUFFIX: PROGRAM_FLAGS,
}
DEFAULTS: dict[str, Any] = {
    "dialect": "",
    "base": "",
    "model": "",
    "classifier": True,
    "images": "uint8",
    "outputs": (),
    "dtype": "float32",
}


@dataclass(frozen=True)
class Given:
    """What is to be written: a model and what is known of its images and outputs."""

    model: ViT
    preprocessing: PreprocessConfig
    classes: tuple[str, ...] = ()
    config: RunConfig | None = None  # of a run
    step: int = 0  # of a run, that the model is from


def export(source: str, target: str, *, flags: dict[str, Any], force: bool = False) -> None:
    """A run, a file or a published model -> what the end of the target says: tensors, a folder or a program.

    flags: the values of those in DEFAULTS. force: replace what is there. Raises UsageError for an end that says
    nothing, and for a flag that such a target does not read.
    """
    # all that is wrong with the flags is said before a model is looked for
    end = FOLDER if target.endswith(FOLDER) else Path(target).suffix
    if end not in FLAGS:
        raise UsageError(
            f"the target is {target!r}; it must end in {TENSORS} for a file of tensors, / for a folder of another "
            f"library, or {', '.join(WRITERS)} for a program"
        )
    unread = [name for name in DEFAULTS if name not in FLAGS[end] and flags[name] != DEFAULTS[name]]
    if unread:
        readers = " or ".join(each for each, read in FLAGS.items() if unread[0] in read)
        raise UsageError(f"--{unread[0]} is for targets that end in {readers}, not in {end}")
    read = {name: flags[name] for name in FLAGS[end]}
    if end == TENSORS and Path(source).expanduser().exists():
        export_file(source, target, force=force, **read)
    elif end == TENSORS:
        _export_published(source, target, force=force, **read)
    elif end == FOLDER:
        _export_folder(source, target, force=force, **read)
    else:
        _export_program(source, target, end, force=force, **read)


def _export_published(
    name: str,
    target: str,
    *,
    dialect: str,
    base: str,
    model: str,
    classifier: bool,
    force: bool,
) -> None:
    path = check_target(target, TENSORS, flag="the target", sources=(base,), force=force)
    found = given(name, model=model, dtype="float32", classifier=classifier, evaluated=False)
    dialect = dialect or "timm"
    write_tensors(found.model, path, dialect, base or None)
    console.print(f"{path}: {dialect}, from {name}")
    tell_differences(found.model.spec, dialect)


def _export_program(
    source: str,
    target: str,
    end: str,
    *,
    model: str,
    classifier: bool,
    images: Images,
    outputs: Sequence[Output],
    dtype: str,
    force: bool,
) -> None:
    path = check_target(target, end, flag="the target", sources=(source,), force=force)
    found = given(source, model=model, dtype=dtype, classifier=classifier, evaluated=True)
    made = program(
        found.model, found.preprocessing, images=images, outputs=outputs, classes=found.classes
    )
    # written and run beside the model, by the same function
    difference = WRITERS[end](path, made)
    batch = 1 if end in ONE_PICTURE else "batch"
    shape = " x ".join(map(str, (batch, *made.shape)))
    console.print(f"{path}: {in_bytes(path.stat().st_size)}, {source}")
    console.print(f"takes {made.dtype} images of {shape}, gives {', '.join(made.outputs)}")
    console.print(str(difference))


def _export_folder(
    source: str,
    target: str,
    *,
    dialect: str,
    base: str,
    model: str,
    classifier: bool,
    force: bool,
) -> None:
    folder = check_folder(target, flag="the target", sources=(source, base), force=force)
    # the position table stays as it was published: the library has its own way to resize it
    found = given(source, model=model, dtype="float32", classifier=classifier, evaluated=False)
    dialect = dialect or "timm"
    folders.write(
        folder,
        found.model,
        found.preprocessing,
        dialect=dialect,
        classes=found.classes,
        licence=licence_of(found.model),
        base=base or None,
        classifier=classifier,
    )
    written = ", ".join(sorted(path.name for path in folder.iterdir()))
    console.print(f"{folder}: {dialect}, from {source} ({written})")
    tell_differences(found.model.spec, dialect)


def given(source: str, *, model: str, dtype: str, classifier: bool, evaluated: bool) -> Given:
    """The model behind a run's folder, a file or a name.

    model: "arch.tag", for a file that does not say it. dtype: what it computes in. classifier: False leaves a
    classifier, or the head of another task, out. evaluated: of published weights, whether the position table is resized
    to the images that they are evaluated with. Raises UsageError for a run whose head has no place in a model.
    """
    folder = Path(source).expanduser()
    if is_run(folder):
        return of_run(folder, dtype=dtype, classifier=classifier)
    named, file = source, None
    if folder.exists():
        # a file says by its metadata what it is, or the user does
        named, file = model or open_checkpoint(folder).metadata.get("model", ""), folder
        if not named:
            raise UsageError(f"{source} does not say which model it is; name it with --model")
    elif model:
        raise UsageError(f"--model is for a file that does not say its model, not for {source!r}")
    size = preprocess_config(names.resolve(named)).image_size if evaluated else None
    loaded = load(named, checkpoint=file, image_size=size, dtype=jnp.dtype(dtype))
    seen = preprocess_config(loaded, size or loaded.spec.image_size)
    return Given(loaded if classifier else without_classifier(loaded), seen)


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's. Those of other libraries have a config.json, too."""
    return (folder / CLASSES).is_file() or has_steps(folder)


def of_run(folder: Path, *, dtype: str, classifier: bool = True) -> Given:
    """The model of a run at its best step, its adapters merged; the arguments are those of `given`."""
    config, labels = read_run(folder)
    # as `restore` does, but for the dtype: a program runs on other devices than the run did
    config = replace(config, model=replace(config.model, dtype=dtype))
    learner = outline(folder, config, labels)
    whole = learner.task.joined(learner.net)
    others = [part for part in learner.net if part != "backbone"]
    # told before a number is read
    if classifier and others and whole.classifier is None:
        raise UsageError(
            f"{folder} learned {type(learner.task).__name__}, whose {' and '.join(others)} no such target has a place "
            f"for; pass --no-classifier for the backbone alone"
        )
    step = chosen_step(folder, config, learner.task, None)
    params = restore_params(folder, learner.net, step, None, average=config.recipe.averages)
    model = merged(learner.task.joined(learner.bound(params)))
    if not classifier:
        return Given(without_classifier(model), learner.images, (), config, step)
    return Given(model, learner.images, labels, config, step)


def licence_of(model: ViT) -> str:
    """The licence of the weights that a model is, or began with; "" where no row says it."""
    own = [row for row in names.weights_of(model.spec.name) if row.name == model.spec.weights]
    return own[0].licence if own else ""
