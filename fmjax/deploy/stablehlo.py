"""A model as StableHLO with its parameters, in one file that needs jax and numpy alone.

The file is a zip that `numpy.load` opens:

    program         what `jax.export` made of `apply(params, images)`, for CPU, CUDA and TPU and any batch
    about.json      images, preprocessing, outputs, classes, digests
    params/PATH     one array for each parameter

The parameters are arguments of the program and no constants in it. As constants, 346 MB of them took 2.6 GB of memory
to export, 2.1 GB and 12 s to load and run, and a program has room for 2 GiB; as arguments they are held once.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from fmjax.deploy.program import Difference, Program, as_text, compared, is_numpys, on_host, stored
from fmjax.errors import CheckpointError, UsageError
from weights_conversion.writer import whole

SUFFIX = ".stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")
FORMAT = "fmjax-stablehlo"
PROGRAM, ABOUT, PARAMS = "program", "about.json", "params/"


def write(path: Path, program: Program) -> Difference:
    """Writes a program, reads it back, runs it beside its model and returns how far the two are apart.

    What goes in and out is `Program`'s. The file appears whole or not at all.
    """
    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *program.shape), program.dtype)
    # a plain dict of paths: no class of ours is needed to call it
    params = {path: _shape(leaf) for path, leaf in program.params.items()}
    exported = export.export(jax.jit(program.apply), platforms=PLATFORMS)(params, images)
    facts = {
        "format": FORMAT,
        "platforms": PLATFORMS,
        "version": exported.calling_convention_version,
    }
    about = as_text(program.about, facts.items())

    nbytes = sum(leaf.nbytes for leaf in program.params.values())
    with whole(path, nbytes) as file:
        with zipfile.ZipFile(file, "w") as archive:
            # stored and not packed: numbers do not get smaller, and loading is a copy
            archive.writestr(zipfile.ZipInfo(PROGRAM), exported.serialize())
            archive.writestr(zipfile.ZipInfo(ABOUT), about)
            for name, leaf in program.params.items():
                _write_array(archive, f"{PARAMS}{name}.npy", stored(leaf))
        # read back before it has its name: a file that is there has been run
        file.flush()
        return compared(program, read(Path(file.name)))


def _shape(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    # as `stored` has it
    dtype = leaf.dtype if is_numpys(leaf.dtype) else np.float32
    return jax.ShapeDtypeStruct(leaf.shape, dtype)


def _write_array(archive: zipfile.ZipFile, name: str, value: np.ndarray) -> None:
    # a large one, too, has room
    with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member:
        np.lib.format.write_array(member, value, allow_pickle=False)


def read(path: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """A function of images [B H W 3] that runs a written program on the first device.

    Raises CheckpointError for a file of anything else, and the function UsageError for images of another size or
    dtype.
    """
    about, program, params = _opened(path)
    # compiled once a batch, by jit's own cache
    call = jax.jit(program.call)
    images = about["images"]

    def run(given: np.ndarray) -> dict[str, np.ndarray]:
        if list(given.shape[1:]) != images["shape"][1:] or given.dtype != images["dtype"]:
            wanted = " x ".join(map(str, images["shape"]))
            raise UsageError(
                f"{path.name} takes {images['dtype']} images of {wanted}, got {given.dtype} of "
                f"{' x '.join(map(str, given.shape))}; resize them, or export for that size"
            )
        return on_host(call(params, given))

    return run


def _opened(path: Path) -> tuple[dict[str, Any], export.Exported, Mapping[str, jax.Array]]:
    """The facts, the program and the parameters of a file."""
    try:
        # opened here: numpy leaves a file open that it cannot read
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            about = json.loads(file[ABOUT])
            program = export.deserialize(bytearray(file[PROGRAM]))
            names = [name for name in file.files if name.startswith(PARAMS)]
            params = {name.removeprefix(PARAMS): jax.device_put(file[name]) for name in names}
    except (KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path} is no whole program of `fmjax export RUN FILE{SUFFIX}`; export it again"
        ) from error
    return about, program, params
