"""What jax reads of the environment when it starts, where the user has said nothing else."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, MutableMapping
from pathlib import Path

# jax's own default is three quarters of a GPU: what it leaves is for other processes, and a run has the card to itself.
# The rest is for the driver and for libraries, which take about 1 GiB of their own.
MEMORY = ("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.92")
OWN = "_FMJAX_SET"  # the name of what a command has set itself: that it is no word of the user's
# any of them is a word about memory
SAID = (
    MEMORY[0],
    "XLA_CLIENT_MEM_FRACTION",
    "XLA_PYTHON_CLIENT_PREALLOCATE",
    "XLA_PYTHON_CLIENT_ALLOCATOR",
)
# where programs are kept that were compiled, and with them what a GPU's kernels were tuned to; empty: nowhere
COMPILED = "JAX_COMPILATION_CACHE_DIR"
# of such a folder in bytes, and of what is worth keeping in seconds; a program of ViT-L's step has 10 MB
KEPT = {
    "JAX_COMPILATION_CACHE_MAX_SIZE": str(4 << 30),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
}
COLD = ("bench",)  # commands that time how long compiling takes
PROCESSOR = Path("/proc/cpuinfo")
# what a processor is and can do, by the names of x86 and of ARM
TRAITS = ("model name", "flags", "CPU implementer", "CPU part", "Features")


def prepare(environment: MutableMapping[str, str], command: str = "") -> None:
    """Sets what is not set. Before jax is imported: a program that imports fmjax itself is left alone."""
    chosen: dict[str, str] = {}
    if not any(name in environment for name in SAID):
        chosen.update([MEMORY])
    if COMPILED not in environment and command not in COLD:
        chosen[COMPILED] = str(compiled_folder())
        # a bound of the user's own stands
        chosen.update({name: value for name, value in KEPT.items() if name not in environment})
    if chosen:
        names = (*set_here(environment), *chosen)
        environment.update(chosen | {OWN: " ".join(names)})


def set_here(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The names of the variables that a command has set, and no user."""
    return tuple(environment.get(OWN, "").split())


def compiled_folder() -> Path:
    """Where compiled programs are kept: in fmjax's cache, of this kind of processor."""
    # imported here: the text of a help needs none of it
    from fmjax.store.record import cache_folder

    return cache_folder() / "compiled" / processor()


def processor(file: Path = PROCESSOR) -> str:
    """A digest of what this machine's processor is and can do.

    jax takes a program of another processor from its cache where both are called alike, and such a program can end the
    process at its first instruction that is unknown here: of a home folder that several machines share, each kind of
    them has its own part.
    """
    traits = {platform.machine(), platform.system(), platform.processor()}
    lines = file.read_text(errors="replace").splitlines() if file.is_file() else []
    # every core has its lines, which are alike but for clocks and numbers
    traits |= {line for line in lines if line.partition(":")[0].strip() in TRAITS}
    return hashlib.sha256("\n".join(sorted(traits)).encode()).hexdigest()[:16]
