"""A model as TFLite, by LiteRT's own converter, for phones and small boards. No TensorFlow and no torch is needed.

The converter reads what `jax.export` writes. It knows no batch that is open, so a file takes one picture, as such files
do. The blocks stand one behind the other, as there is no loop over stacked parameters that its delegates take.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from fmjax.deploy.program import Difference, Program, compared, unrolled
from fmjax.errors import UsageError, in_bytes
from weights_conversion.writer import whole

SUFFIX = ".tflite"
SIGNATURE = "serving_default"  # the one that readers look for
IMAGES = "images"  # the name of the input; those of the outputs are the fields of Features
ABOUT = "fmjax.json"
LARGEST = 2**31 - 2**26  # bytes of parameters: a flatbuffer has 2 GiB at most
MAKER, RUNNER = "litert_converter", "ai_edge_litert"


def write(path: Path, program: Program) -> Difference:
    """Writes a program, runs it in LiteRT's interpreter beside its model and returns how far the two are apart.

    What goes in and out is `Program`'s, for one picture, by name: "images", and the names of its outputs, in the
    signature "serving_default". Its facts are `fmjax.json` in a zip at the file's end, which is where TFLite keeps
    files of its own. Raises UsageError where a package is missing, the model computes in half precision or has no room.
    """
    dialects, passes = _package(f"{MAKER}.mlir"), _package(f"{MAKER}.mlir.passmanager")
    interpreter = _package(f"{RUNNER}.interpreter")
    dtype = jnp.dtype(program.model.dtype or jnp.float32)
    if dtype != jnp.float32:
        raise UsageError(f"--dtype is {dtype.name}; TFLite is written in float32")
    nbytes = sum(leaf.nbytes for leaf in program.params.values())
    if nbytes > LARGEST:
        raise UsageError(
            f"{program.about['model']} has {in_bytes(nbytes)} of parameters; a TFLite file has room for 2 GiB, "
            f"a target that ends in .stablehlo or .onnx for any"
        )

    content = _converted(program, dialects, passes)
    with whole(path, len(content)) as file:
        file.write(content)
        about = {**program.about, "images": {**program.about["images"], "shape": _shape(program)}}
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr(zipfile.ZipInfo(ABOUT), json.dumps(about, indent=2) + "\n")
        file.flush()
        # read back before it has its name; in full precision, as the interpreter computes
        with jax.default_matmul_precision("highest"):
            run = _runner(interpreter, Path(file.name))
            return compared(program, run, batches=(1,))


def _package(name: str) -> Any:
    """A module of the extra "litert". Raises UsageError where it is missing."""
    try:
        with _quiet():
            return importlib.import_module(name)
    except ImportError as error:
        missing = name.partition(".")[0].replace("_", "-")
        raise UsageError(
            f"TFLite is written by litert-converter and tried in ai-edge-litert, and {missing} is not installed: "
            f"`pip install 'fmjax[litert]'`, in an environment of its own as it takes an older typing_extensions"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what libraries in C++ write to the process's own standard error, and their warnings.

    They greet, and tell of delegates and of processors; what goes wrong is raised.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with tempfile.TemporaryFile() as nowhere, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _shape(program: Program) -> list[int]:
    return [1, *program.shape]


def _converted(program: Program, mlir: Any, passes: Any) -> bytes:
    """The bytes of a file. Raises UsageError where the converter has no operation for one of the model's."""
    images = jax.ShapeDtypeStruct(_shape(program), program.dtype)
    exported = export.export(jax.jit(unrolled(program)), platforms=["cpu"])(images)
    stablehlo = _package(f"{MAKER}.mlir.dialects.stablehlo")
    converter = _package(f"{MAKER}.mlir._mlir_libs.converter_api_ext")
    context = mlir.ir.Context()
    converter.prepare_mlir_context(context)
    with context, _quiet():
        # of StableHLO's portable form, which readers of another release of it take
        module = stablehlo.deserialize_portable_artifact(context, exported.mlir_module_serialized)
        converter.set_signature(module.operation, SIGNATURE, [IMAGES], list(program.outputs))
        settings = converter.ConvertToTFLConfig()
        settings.model_origin_framework = "JAX"
        try:
            converter.run_convert_to_tfl_passes(module, passes.PassManager(), settings)
            return converter.export_flatbuffer_to_bytes(module.operation)
        except (RuntimeError, ValueError, mlir.ir.MLIRError) as error:
            raise UsageError(
                f"LiteRT's converter does not take {program.about['model']} ({str(error).strip()[:200]}); "
                f"a target that ends in .stablehlo or .onnx does"
            ) from error


def _runner(package: Any, path: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """A function of images that runs a file in LiteRT's interpreter, on the CPU."""
    with _quiet():
        interpreter = package.Interpreter(str(path))
        signature = interpreter.get_signature_runner(SIGNATURE)

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        with _quiet():
            return signature(**{IMAGES: images})

    return run
