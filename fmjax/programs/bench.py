"""`fmjax bench`: how fast a backbone is on this machine, row after row, and what the figures depend on."""

from __future__ import annotations

import gc
import json
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from fmjax import __version__, names
from fmjax.bench.kinds import TIMED
from fmjax.bench.loading import lacking
from fmjax.bench.rows import Row, limits_of, recorded
from fmjax.bench.start import start
from fmjax.bench.subject import Subject, levers, subject
from fmjax.bench.timing import device_now
from fmjax.config.bench import KINDS, BenchConfig, Kind
from fmjax.console import console
from fmjax.engine.backbone import asked_size
from fmjax.errors import DataError, FmjaxError, escaped, sentence
from fmjax.kernels import trust
from fmjax.preprocessing import preprocess_config
from fmjax.programs.bench_page import show
from fmjax.programs.machine import cores, plugins, steering, version
from fmjax.serial import write_atomically
from fmjax.targets import check_target

# what ends one row and not the others; the last is jax's own: a device that has no memory left, a kernel that fails
TOLD = (FmjaxError, ValueError, OSError, jax.errors.JaxRuntimeError)
NO_MEMORY = "RESOURCE_EXHAUSTED"
LONGEST = 300  # letters of what a device says
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def main(config: BenchConfig) -> dict[str, Any]:
    """Times what is asked for, shows it, and returns the record; --out has it after every kind.

    What could not be timed is said in its row. Raises UsageError for a name or a size that cannot be before anything is
    timed, for a kernel that cannot run here before the device is, and DataError where nothing could be timed.
    """
    name = names.resolve(config.model.name)
    path = None
    if config.out:
        path = check_target(config.out, ".json", flag="--out", force=config.force)
    preprocess_config(config.model.name, asked_size(config.model))
    lack = lacking(config.model)
    # those of a new process first: once a device is taken here, it has no memory for another
    rows = list(_started(config, lack))
    asked = subject(config)
    head = header(name, asked)
    record = _written(path, head, rows, asked)
    for kind in _on_device(config):
        rows += _tried(kind, asked, lack)
        record = _written(path, head, rows, asked)
    # of rows that all failed the first says why
    if all(row.failed for row in rows):
        raise DataError(f"nothing could be timed; {rows[0].kind}: {rows[0].failed}")
    if config.json:
        sys.stdout.write(json.dumps(record, indent=2) + "\n")
    else:
        show(head, rows, limits_of(rows, asked.nominal))
    return record


def _started(config: BenchConfig, lack: str) -> Iterator[Row]:
    """The rows of a new process: with random weights where there are no others."""
    if "start" not in config.kinds:
        return
    _tell(config, "start")
    model = replace(config.model, init="random") if lack else config.model
    yield from _guarded("start", start(config, model))


def _on_device(config: BenchConfig) -> Iterator[Kind]:
    """What is timed in this process, each once, in the order of the table."""
    for kind in KINDS:
        if kind in config.kinds and kind in TIMED:
            _tell(config, kind)
            yield kind


def _tell(config: BenchConfig, kind: Kind) -> None:
    # some take a minute, and say nothing before they are done
    if not config.json:
        console.print(f"timing  {kind}")


def _tried(kind: Kind, asked: Subject, lack: str) -> list[Row]:
    """The rows of a kind, as many as could be timed, and why the next could not."""
    if kind == "weights" and lack:
        return [Row(kind=kind, what="", failed=lack)]
    rows = list(_guarded(kind, TIMED[kind](asked)))
    # the arrays of one kind leave the device before those of the next come
    gc.collect()
    return rows


def _guarded(kind: Kind, rows: Iterator[Row]) -> Iterator[Row]:
    try:
        yield from rows
    except TOLD as error:
        yield Row(kind=kind, what="", failed=_why(error))


def _why(error: Exception) -> str:
    """What ended a row, in a sentence."""
    if not isinstance(error, jax.errors.JaxRuntimeError):
        return sentence(error)
    # the compiler and the device say it on many lines, of which the first has the reason
    text = str(error)
    if NO_MEMORY in text:
        return "the device has no memory left for it; take a smaller --batch-size"
    return escaped(text.partition("\n")[0], LONGEST)


def header(name: str, asked: Subject) -> dict[str, Any]:
    """What the figures are of, and what they depend on. Raises UsageError for a kernel that cannot run here."""
    config, device = asked.config, asked.device
    # whoever compares two records has to see in what they differ, besides the model
    versions = {"fmjax": __version__, **{package: version(package) for package in PACKAGES}}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": name,
        "image_size": asked.images.image_size,
        "batch_size": config.batch_size,
        "dtype": jnp.dtype(asked.dtype).name,
        "seconds": config.seconds,
        "device": device.device_kind,
        "platform": device.platform,
        "devices": jax.device_count(),
        "device_bytes": (device.memory_stats() or {}).get("bytes_limit"),
        "nominal_flops_per_s": asked.nominal,
        "gpu": device_now(),
        "cores": cores(),
        "python": platform.python_version(),
        "versions": versions | plugins(),
        "environment": steering(os.environ),
        # a program that is found there has hardly been compiled
        "compile_cache": getattr(jax.config, "jax_compilation_cache_dir", None) or "",
        "levers": [asdict(lever) for lever in levers(asked)],
        "verdicts": [asdict(verdict) for verdict in trust.remembered()],
    }


def _written(
    path: Path | None, head: dict[str, Any], rows: list[Row], asked: Subject
) -> dict[str, Any]:
    """The record so far, in the file too: what is timed is kept, however the process ends."""
    limits = limits_of(rows, asked.nominal)
    record = head | {
        "product_flops_per_s": limits.product,
        "rows": [recorded(row, limits) for row in rows],
    }
    if path is not None:
        write_atomically(path, json.dumps(record, indent=1) + "\n")
    return record
