"""`fmjax convert`, `export` and `verify`: whole files, streamed tensor by tensor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

import weights_conversion as wc
from fmjax import names
from fmjax.console import console
from fmjax.engine.run import CONFIG, restore
from fmjax.engine.steps import has_steps
from fmjax.errors import CheckpointError, UsageError
from fmjax.names import resolve
from fmjax.specs import ViTSpec
from fmjax.store import locate
from fmjax.targets import check_target
from fmjax.weights.export import export
from fmjax.weights.load import LOCAL, read
from fmjax.weights.publisher import differences
from weights_conversion.detection import tables
from weights_conversion.readers import open_checkpoint
from weights_conversion.writer import write_safetensors

SUFFIX = ".safetensors"
EXTRAS = "extras."  # before the names of what a converted file carries along


def convert(name: str, source: str, target: str, *, dialect: str = "", force: bool = False) -> None:
    """A checkpoint in any dialect -> a file in fmjax's own names and layout, its extras beside the parameters.

    force: replace a target that is there. Raises MisfitError with everything that does not fit; nothing is written
    then.
    """
    if name.startswith(LOCAL):
        raise UsageError(
            f"{name}: `fmjax convert` takes the file as its second argument; name the model first"
        )
    path = check_target(target, SUFFIX, flag="the target", sources=(source,), force=force)
    loaded = read(name, checkpoint=source, dialect=dialect or None)
    # parameters under our own paths, what is carried along under its own names
    tensors = dict(loaded.conversion.params)
    tensors |= {EXTRAS + key: tensor for key, tensor in loaded.conversion.extras.items()}
    # what the way back needs: whose names the tensors had, under which prefix, and what their values said
    metadata = {"format": "fmjax", "model": resolve(name), "dialect": loaded.dialect.name}
    metadata["lead"] = loaded.dialect.container
    metadata |= {"facts": json.dumps(loaded.conversion.facts), "classifier": loaded.classifier}
    size = write_safetensors(path, tensors, metadata)
    console.print(loaded.summary)
    # what is not in the new file is told, a few names of many
    left_out = [
        f"left out: {wc.quoted(key)} ({reason})"
        for key, reason in loaded.conversion.dropped.items()
    ]
    for line in wc.cut(left_out):
        console.print(line)
    console.print(f"{path}: {size:,} bytes")


def export_file(
    source: str,
    target: str,
    *,
    dialect: str = "",
    base: str = "",
    model: str = "",
    classifier: bool = True,
    force: bool = False,
) -> None:
    """A run, or a converted file, -> a safetensors file of a PyTorch dialect.

    dialect: "" is timm for a run, and the original's own for a converted file, whose extras then return as they were.
    base: the original file, for what fmjax does not model. model: the name, for a file that does not say it.
    classifier: False leaves a run's classifier out and keeps the projection. force: replace a target that is there.
    """
    path = check_target(target, SUFFIX, flag="the target", sources=(source, base), force=force)
    # checkpoints without a config are a damaged run: reading it as one says so
    if (Path(source) / CONFIG).is_file() or has_steps(Path(source)):
        _export_run(source, path, dialect or "timm", base, classifier=classifier)
    else:
        _export_converted(source, path, dialect, base, model=model)


def _export_run(source: str, path: Path, dialect: str, base: str, *, classifier: bool) -> None:
    restored = restore(source)
    export(restored, path, dialect, base or None, classifier=classifier)
    console.print(f"{path}: {dialect}, from the run {source}")
    tell_differences(restored.spec, dialect)


def _export_converted(source: str, path: Path, dialect: str, base: str, *, model: str) -> None:
    metadata = open_checkpoint(source).metadata
    name = model or metadata.get("model", "")
    if not name:
        raise UsageError(f"{source} does not say which model it is; name it with --model")
    loaded = read(name, checkpoint=source)
    table = wc.writing(dialect or metadata.get("dialect", "timm"), loaded.conversion.params)
    if table.read_only:
        raise CheckpointError(f"{table.name} cannot be exported to: {table.read_only}")

    # what the converted file carries along has names in the dialect that it came from, and in no other
    extras: Mapping[str, wc.LazyTensor] = {}
    if metadata.get("dialect") == table.name:
        table = _in_its_container(source, table, metadata.get("lead", ""))
        extras = _original_extras(loaded.conversion.extras)
    out = wc.to_torch(loaded.conversion.params, table, extras=extras, heads=loaded.spec.num_heads)
    left_out = [] if extras or base else list(loaded.conversion.extras)
    if left_out:
        console.print(
            f"left out: {len(left_out)} tensors that {table.name} has no names for; pass --base to add them"
        )
    if base:
        out |= table.unwritten(open_checkpoint(base).tensors, out)

    write_safetensors(path, out)
    console.print(f"{path}: {len(out)} tensors, {table.name}")
    tell_differences(loaded.spec, table.name)


def _in_its_container(source: str, table: wc.Dialect, container: str) -> wc.Dialect:
    """The table that writes names under the prefix that they had. Raises CheckpointError for one that no table has."""
    # metadata is what a file says of itself: only a prefix that tables know is written into names
    known = {each for other in tables() if other.name == table.name for each in other.containers}
    if container and container not in known:
        raise CheckpointError(
            f"{source} has names under {wc.quoted(container)}, as no {table.name} file; convert again"
        )
    return replace(table, container=container)


def tell_differences(spec: ViTSpec, dialect: str) -> None:
    """Says what the library that reads the exported file computes differently."""
    found = differences(spec, dialect)
    if found:
        console.print(f"note: the code that reads {dialect} computes {found}")


def verify(name: str, *, checkpoint: str = "", dialect: str = "", offline: bool = False) -> None:
    """Checks that every tensor of a file is accounted for, and that file -> fmjax -> file returns its bits. A
    published file is hashed anew first."""
    if not checkpoint and not name.startswith(LOCAL):
        locate.obtain(names.get_weights(name), offline=offline, anew=True)
    loaded = read(name, checkpoint=checkpoint or None, dialect=dialect or None, offline=offline)
    if loaded.dialect.name == "fmjax":
        raise UsageError(
            f"{loaded.path} is in fmjax's own names: verify the file that it was converted from"
        )
    # there and back: a dialect says which of its tensors may come back with other values
    conversion, original = loaded.conversion, loaded.dialect.renamed(loaded.file.tensors)
    back = wc.to_torch(
        conversion.params, loaded.dialect, extras=conversion.extras, heads=loaded.spec.num_heads
    )
    expected = {key for key in original if key not in conversion.dropped}
    shapes = {path: tensor.shape for path, tensor in conversion.params.items()}
    declared = wc.lossy_keys(loaded.dialect, shapes, loaded.spec.num_heads)
    changed = [key for key in sorted(expected & set(back)) if not _same(original[key], back[key])]
    other = sorted(expected ^ set(back)) + [key for key in changed if key not in declared]
    if other:
        raise CheckpointError(
            f"{loaded.path}: {len(other)} tensors do not come back bit by bit: {wc.listed(other)}"
        )
    for reason in dict.fromkeys(declared[key] for key in changed):
        console.print(f"other values come back where {reason}")
    console.print(
        f"{loaded.summary}; {len(back) - len(changed)}/{len(expected)} tensors come back bit by bit"
    )


def _original_extras(extras: Mapping[str, wc.LazyTensor]) -> dict[str, wc.LazyTensor]:
    return {key.removeprefix(EXTRAS): tensor for key, tensor in extras.items()}


def _same(one: wc.LazyTensor, other: wc.LazyTensor) -> bool:
    # by their bytes: == takes -0.0 for 0.0, and no NaN for itself
    a, b = np.ascontiguousarray(one.read(())), np.ascontiguousarray(other.read(()))
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
