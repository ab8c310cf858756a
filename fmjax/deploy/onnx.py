"""A model as ONNX, by jax2onnx, for onnxruntime and what else reads such files.

The blocks stand one behind the other, each with its own parameters: a loop over stacked ones, as JAX runs them, is
slower there and more than many readers know. All is in one file, up to the 2 GB that ONNX has room for; larger models
have their numbers in a file beside it, `NAME.onnx.data`.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fmjax.deploy.program import Difference, Program, compared, unrolled
from fmjax.errors import UsageError

SUFFIX = ".onnx"
OPSET = 18  # of 2022: read by onnxruntime since 1.14, and by most others
IMAGES = "images"  # the name of the input; those of the outputs are the fields of Features
LARGEST = 2**31 - 2**26  # bytes of one file: a protocol buffer has 2 GiB at most
MAKER, RUNNER = "jax2onnx", "onnxruntime"


def write(path: Path, program: Program) -> Difference:
    """Writes a program, runs it in onnxruntime beside its model and returns how far the two are apart.

    What goes in and out is `Program`'s, by name: "images", and the names of its outputs; the batch is any. Its facts
    are JSON in the file's metadata, under "fmjax". Raises UsageError where a package is missing, or the model computes
    in half precision, which onnxruntime has no products for on CPUs.
    """
    to_onnx, onnx, runtime = _package(MAKER).to_onnx, _package("onnx"), _package(RUNNER)
    dtype = jnp.dtype(program.model.dtype or jnp.float32)
    if dtype != jnp.float32:
        raise UsageError(f"--dtype is {dtype.name}; ONNX is written in float32")
    images = jax.ShapeDtypeStruct(("batch", *program.shape), program.dtype)
    names = {"input_names": [IMAGES], "output_names": list(program.outputs)}
    with _quiet():
        model = to_onnx(unrolled(program), [images], opset=OPSET, return_mode="proto", **names)
    onnx.helper.set_model_props(model, {"fmjax": json.dumps(program.about)})

    # beside its place, so that a file that is there has been run; the other file is named in it, so it is not renamed
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fmjax-") as folder:
        written = Path(folder) / path.name
        _save(onnx, model, written, sum(leaf.nbytes for leaf in program.params.values()))
        del model
        # in full precision, as onnxruntime computes
        with jax.default_matmul_precision("highest"):
            difference = compared(program, _session(runtime, written))
        for file in sorted(Path(folder).iterdir(), reverse=True):
            os.replace(file, path.parent / file.name)
    return difference


def _package(name: str) -> Any:
    """A package of the extra "onnx". Raises UsageError where it is missing."""
    try:
        with _quiet():
            return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(
            f"ONNX is written by {MAKER} and tried in {RUNNER}, and {error.name or name} is not installed: "
            f"`pip install 'fmjax[onnx]'`, in an environment of its own as it takes an older orbax-checkpoint"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the converter's logs and warnings, which are of plugins of its own that it cannot import."""
    # no file of ours is named by them, and what goes wrong is raised
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _save(onnx: Any, model: Any, path: Path, nbytes: int) -> None:
    """One file, or two where one would be too large."""
    if nbytes <= LARGEST:
        onnx.save_model(model, path)
        return
    beside = f"{path.name}.data"
    onnx.save_model(model, path, save_as_external_data=True, location=beside)


def _session(runtime: Any, path: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """A function of images that runs a file in onnxruntime, on the CPU."""
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, {IMAGES: images}), strict=True))

    return run
