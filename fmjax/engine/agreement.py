"""Whether all processes were started to do the same, with the same code and the same data: else the first collective
call would wait forever, or mix what does not belong together."""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

import fmjax
from fmjax.data.example import Examples
from fmjax.engine import hosts
from fmjax.errors import UsageError, printable
from fmjax.kernels import activation, attention, norm
from fmjax.models.build import compute_dtype
from fmjax.serial import to_json

# what each of them is on a device, by the setting that names it
KERNELS = {"attention": attention.told, "norms": norm.told, "activations": activation.told}
# what may differ: who one is, and where the same images lie on one's own disk
OWN = ("hosts.", "data.threads", "data.workers", "data.data_dir", "data.source", "source")


def check(config: Any, **facts: Any) -> None:
    """Raises UsageError, on all processes alike, with the first that differs from process 0 and in what.

    config: a program's dataclass. facts: what else has to be the same, by a name with underscores for spaces.
    """
    if jax.process_count() == 1:
        return
    # each hears all, so that all refuse alike, and nobody waits for one who has gone
    said = {f"--{name.replace('_', '-')}": value for name, value in settings(config).items()}
    said |= {name.replace("_", " "): value for name, value in facts.items()}
    # a device that lacks or fails a kernel would be given another program than the others
    said |= {f"the kernel of {name}": _kernel(config, name) for name in KERNELS}
    said |= {"fmjax's version": fmjax.__version__, "jax's version": jax.__version__}
    everyone = hosts.exchanged(said | {"fmjax's source files": source_digest()})
    for index, theirs in enumerate(everyone):
        found = differences(everyone[0], theirs)
        if found:
            raise UsageError(
                f"{hosts.name(index)} differs from {hosts.name(0)}: {'; '.join(found[:3])}; start all processes by "
                f"the same command, with the same version of fmjax and the same data"
            )


def _kernel(config: Any, name: str) -> str:
    if getattr(config, name, "auto") == "xla":
        return "xla"
    dtype = compute_dtype(getattr(getattr(config, "model", None), "dtype", "auto"))
    # without the reason, which is another device's own
    return KERNELS[name](jax.local_devices()[0], dtype).partition(":")[0]


def settings(config: Any) -> dict[str, Any]:
    """The fields of a config by their dotted names, those left out that each process has of its own."""
    values = json.loads(to_json(config))
    home = getattr(getattr(config, "task", None), "home", "")
    found = {".".join(path): value for path, value in _leaves(values)} | {"task.home": str(home)}
    return {name: value for name, value in found.items() if not name.startswith(OWN)}


def _leaves(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterable[tuple[tuple, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value


def differences(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What another process says otherwise than the first, in words."""
    names = [name for name in {**first, **other} if first.get(name) != other.get(name)]
    return [f"{name} is {_short(other.get(name))}, not {_short(first.get(name))}" for name in names]


def _short(value: Any) -> str:
    return printable(reprlib.repr(value))


def source_digest() -> str:
    """Of the package's own code."""
    root = Path(fmjax.__file__).parent
    return digest(path.read_bytes() for path in sorted(root.rglob("*.py")))


def images_digest(examples: Examples) -> str:
    """Of the names and labels of a set, in their order."""
    # names of files need not be text
    names = (
        examples.names(index).encode("utf-8", "surrogatepass") for index in range(len(examples))
    )
    return digest([*names, np.asarray(examples.labels, np.int32).tobytes()])


def digest(parts: Iterable[bytes]) -> str:
    """Of byte strings, each of which ends where it ends: a few letters, to be compared."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "little") + part)
    return total.hexdigest()[:16]
