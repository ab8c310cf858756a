"""The first embedding of a process, as a script of a few lines has it: run in a process of its own, which says on a
line of JSON how long its parts took."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

SIZE = (300, 400)  # of the picture, in pixels


def embedded(asked: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of the imports, of the model, and of the first embedding with all that it compiles.

    asked: the fields of a ModelConfig, which a script need not import.
    """
    began = time.perf_counter()
    import jax
    import numpy as np

    import fmjax

    # the package resolves its names when they are asked for
    load, create = fmjax.load, fmjax.create
    imported = time.perf_counter()
    model = _made(asked, load, create)
    jax.block_until_ready(jax.tree.leaves(model))
    made = time.perf_counter()
    config = fmjax.preprocess_config(model)
    images = fmjax.preprocess(np.zeros((*SIZE, 3), np.uint8), config)
    # the parameters are given, and are no constants of the program
    np.asarray(jax.jit(lambda model, images: model.embedding(images))(model, images))
    return {
        "imports_s": imported - began,
        "model_s": made - imported,
        "embedding_s": time.perf_counter() - made,
    }


def _made(asked: Mapping[str, Any], load: Callable[..., Any], create: Callable[..., Any]) -> Any:
    """The model, with its weights or random ones."""
    from fmjax.models.build import compute_dtype

    size = tuple(asked["image_size"])
    options: dict[str, Any] = {"dtype": compute_dtype(asked["dtype"])}
    # the words of a config for "as published" are None in the package
    options["image_size"] = size if any(size) else None
    if asked["init"] == "random":
        return create(asked["name"], **options)
    return load(
        asked["name"],
        checkpoint=asked["checkpoint"] or None,
        dialect=asked["dialect"] or None,
        resample=None if asked["resample"] == "weights" else asked["resample"],
        offline=asked["offline"],
        **options,
    )


if __name__ == "__main__":
    sys.stdout.write(json.dumps(embedded(json.loads(sys.argv[1]))) + "\n")
