"""Facts of a machine -> what will go wrong on it, each with its fix. Pure: nothing is looked at here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from fmjax.errors import in_bytes, in_gib
from fmjax.programs.machine import Facts, Place

LEAST_FREE = 5 << 30  # bytes; the largest file of a tower takes 17 GB, most 1 to 3
LEAST_FILES = (
    1024  # what Linux starts with: pipes of workers, checkpoints and sockets take hundreds
)
BUSY = 0.1  # share of a card's memory in others' hands from which a run may not fit
LEAST_SHARE = 0.5  # of a card's memory: a smaller one was hardly meant for a run
# the driver that each plugin needs at least (docs.jax.dev, installation)
DRIVERS = ((580, "cuda13"), (525, "cuda12"))
# bytes of shared memory a worker takes: four rows of its own, here of DINOv2's 518 x 518
WORKER = 4 * 518 * 518 * 3
SIMULATED = re.compile(r"--xla_force_host_platform_device_count=(\d+)")


@dataclass(frozen=True)
class Finding:
    """One thing, and how it is mended. trouble: a run would fail, not use a device, or be slow; note: worth knowing."""

    severity: Literal["trouble", "note"]
    what: str
    fix: str


def trouble(what: str, fix: str) -> Finding:
    return Finding("trouble", what, fix)


def note(what: str, fix: str) -> Finding:
    return Finding("note", what, fix)


def findings(facts: Facts) -> list[Finding]:
    """All that is wrong, troubles first."""
    found = [finding for rule in RULES for finding in rule(facts)]
    return sorted(found, key=lambda finding: finding.severity == "note")


def _packages(facts: Facts) -> Iterator[Finding]:
    for need in facts.unmet:
        name = re.split(r"[^\w.-]", need)[0]
        version = facts.packages.get(name, "")
        has = f"{name} {version} is installed" if version else f"{name} is not installed"
        yield trouble(f"{has}; fmjax needs {need}", f"pip install -U '{need}'")
    # jax loads a plugin of its own version only, and is a CPU's without a word
    jaxlib = facts.packages.get("jaxlib") or facts.packages.get("jax", "")
    for name, version in facts.plugins.items():
        extra = re.search(r"cuda\d+", name)
        if extra and jaxlib and version != jaxlib:
            yield trouble(
                f"{name} is {version} beside jax {jaxlib}, which does not load it",
                f"pip install -U 'jax[{extra[0]}]=={jaxlib}'",
            )


def _start(facts: Facts) -> Iterator[Finding]:
    if not facts.devices.error:
        return
    # the first variable that is set is the likeliest reason
    steered = [name for name in ("XLA_FLAGS", "JAX_PLATFORMS") if facts.environment.get(name)]
    fix = f"unset {steered[0]}" if steered else "pip install -U jax jaxlib, and try again"
    yield trouble(f"jax does not start: {facts.devices.error}", fix)


def _unused_gpu(facts: Facts) -> Iterator[Finding]:
    """A card that is there, and a jax that computes on something else."""
    there = facts.gpus or any("nvidia" in path for path in facts.device_files)
    if not there or facts.devices.error or facts.devices.platform == "gpu":
        return
    name = facts.gpus[0].name if facts.gpus else "an NVIDIA GPU"
    what = f"{name} is there, and jax computes on the {facts.devices.platform}"
    environment = facts.environment
    # in the order in which jax looks: what it is told, what it may see, what it can load
    if "cuda" not in environment.get("JAX_PLATFORMS", "cuda,gpu"):
        told = environment["JAX_PLATFORMS"]
        yield trouble(f"{what}, as JAX_PLATFORMS is {told!r}", "unset JAX_PLATFORMS")
    elif environment.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        yield trouble(
            f"{what}, as CUDA_VISIBLE_DEVICES hides it",
            "unset CUDA_VISIBLE_DEVICES",
        )
    elif not any("cuda" in plugin for plugin in facts.plugins):
        yield trouble(f"{what}: jax is its CPU build, without a plugin", _plugin_fix(facts))
    elif old := _older_driver(facts):
        yield trouble(f"{what}: {old}", _plugin_fix(facts))
    elif environment.get("LD_LIBRARY_PATH"):
        yield trouble(
            f"{what}: its plugin does not start, and LD_LIBRARY_PATH puts other libraries before its own",
            "unset LD_LIBRARY_PATH",
        )
    else:
        yield trouble(
            f"{what}: its plugin does not start",
            "python -c 'import jax; jax.devices(\"cuda\")' says why",
        )


def _older_driver(facts: Facts) -> str:
    """That the driver is too old for the plugin; "" where it is not, or nothing is known of it."""
    driver = _driver_of(facts)
    for least, extra in DRIVERS:
        if f"jax-{extra}-plugin" in facts.plugins and 0 < driver < least:
            return (
                f"jax-{extra}-plugin needs a driver of {least} or newer, and this one is {driver}"
            )
    return ""


def _driver_of(facts: Facts) -> int:
    """The driver's first number, of which plugins depend; 0 where it is not known."""
    first = facts.gpus[0].driver.partition(".")[0] if facts.gpus else ""
    return int(first) if first.isdigit() else 0


def _plugin_fix(facts: Facts) -> str:
    driver = _driver_of(facts)
    extras = [extra for least, extra in DRIVERS if driver >= least]
    if extras:
        return f"pip install -U 'jax[{extras[0]}]'"
    (newest, best), (least, last) = DRIVERS
    if driver:
        return f"install a driver of {least} or newer (this one is {driver}), then 'jax[{last}]'"
    return f"pip install -U 'jax[{best}]', or 'jax[{last}]' for a driver before {newest}"


def _driver(facts: Facts) -> Iterator[Finding]:
    if "/dev/nvidia0" in facts.device_files and not facts.gpus:
        yield trouble(
            f"/dev/nvidia0 is there, and {facts.smi}",
            "install the driver's tools, or start the container with --gpus all",
        )


def _unused_accelerators(facts: Facts) -> Iterator[Finding]:
    kinds = {"/dev/accel0": ("tpu", "a TPU", "tpu"), "/dev/kfd": ("gpu", "an AMD GPU", "rocm")}
    for path in facts.device_files:
        platform, name, extra = kinds.get(path, ("", "", ""))
        if name and not facts.devices.error and facts.devices.platform == "cpu":
            yield trouble(
                f"{name} is there ({path}), and jax computes on the cpu",
                f"pip install -U 'jax[{extra}]'; jax.devices() then lists a {platform}",
            )


def _busy(facts: Facts) -> Iterator[Finding]:
    for index, gpu in enumerate(facts.gpus):
        if gpu.memory_bytes and gpu.used_bytes > BUSY * gpu.memory_bytes:
            used = f"{in_gib(gpu.used_bytes)} of {in_gib(gpu.memory_bytes)}"
            yield trouble(
                f"{used} of GPU {index} ({gpu.name}) are taken by other processes",
                "end them (nvidia-smi lists them), or choose another by CUDA_VISIBLE_DEVICES",
            )


def _memory_share(facts: Facts) -> Iterator[Finding]:
    for name in ("XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_CLIENT_MEM_FRACTION"):
        value = facts.environment.get(name)
        if value is None:
            continue
        try:
            share = float(value)
        except ValueError:
            share = -1.0
        # XLA ends the process at the first, and takes the second as it is
        if not 0 < share <= 1:
            yield trouble(
                f"{name} is {value!r}, not a share above 0 and at most 1", f"unset {name}"
            )
        elif share < LEAST_SHARE:
            yield trouble(f"{name} leaves a run {share:.0%} of a GPU's memory", f"unset {name}")


# Variables that change how fast or how exactly is computed: their value that does, what it does, and the other way
SURPRISES = (
    ("XLA_PYTHON_CLIENT_ALLOCATOR", "platform", "every array asks the driver for memory", ""),
    ("XLA_PYTHON_CLIENT_PREALLOCATE", "false", "memory of a GPU goes to pieces", ""),
    ("JAX_DISABLE_JIT", "", "nothing is compiled, every operation runs by itself", ""),
    ("JAX_ENABLE_X64", "", "64-bit numbers come in, at half the speed or less", ""),
    ("JAX_DEBUG_NANS", "", "every step waits and runs again without its compiler", "fmjax"),
    ("CUDA_LAUNCH_BLOCKING", "", "every kernel is waited for", ""),
)
OFF = ("", "0", "false", "off", "no")


def _surprises(facts: Facts) -> Iterator[Finding]:
    # what the variable does is said: who has set it may have had a reason, in another place
    for name, wanted, does, instead in SURPRISES:
        value = facts.environment.get(name, "").lower()
        is_set = value == wanted if wanted else value not in OFF
        if name in facts.environment and is_set:
            guard = "; a run looks at its own numbers every step" if instead else ""
            yield trouble(f"{name}={value}: {does}{guard}", f"unset {name}")
    flags = facts.environment.get("XLA_FLAGS", "")
    simulated = SIMULATED.search(flags)
    if simulated and int(simulated[1]) > 1:
        yield trouble(
            f"XLA_FLAGS makes {simulated[1]} devices of one CPU, which is slower than one",
            "take it out of XLA_FLAGS; --simulate-devices does the same for a run",
        )
    elif flags and not facts.devices.error:
        yield note(f"XLA_FLAGS is {flags!r}", "unset it where a run surprises")


def _places(facts: Facts) -> Iterator[Finding]:
    # the compiler's is nowhere where the user has said so; the others are there in any case
    rows: list[tuple[str, Place | None, str]] = [
        ("fmjax's cache", facts.model_cache, "FMJAX_CACHE"),
        ("the hub's cache", facts.hub_cache, "HF_HOME"),
        ("the compiler's cache", facts.compile_cache, "JAX_COMPILATION_CACHE_DIR"),
    ]
    for name, place, variable in rows:
        if place is None:
            yield note(
                "nothing that is compiled is kept for the next start",
                f"unset {variable}, which is empty",
            )
        elif place.wrong:
            yield trouble(f"{name}: {place.wrong}", f"set {variable} to a folder of yours")
        elif place.free_bytes < LEAST_FREE and name != "the compiler's cache":
            yield trouble(
                f"{name} has {in_bytes(place.free_bytes)} free at {place.path}",
                f"free some space, or set {variable} to a folder on another disk",
            )


def _hub(facts: Facts) -> Iterator[Finding]:
    if facts.hub_wrong:
        what, _, fix = facts.hub_wrong.partition(": check ")
        told = f"check {fix}" if fix else "check the network"
        yield trouble(what, f"{told}; files that were fetched elsewhere are taken by --checkpoint")
    elif facts.offline:
        yield note(f"the hub was not asked ({facts.offline})", "leave that out to ask it")


def _host(facts: Facts) -> Iterator[Finding]:
    """Cores, memory and what workers share."""
    usable = facts.cores
    if facts.cpu_quota is not None and facts.cpu_quota < facts.cores:
        usable = max(1, int(facts.cpu_quota))
        yield note(
            f"{facts.cores} cores are seen, and the container may use {facts.cpu_quota:g} at a time",
            f"keep --data.threads and --data.workers at {usable} or less",
        )
    if facts.memory_limit_bytes and facts.memory_limit_bytes < facts.memory_bytes:
        limit, whole = in_gib(facts.memory_limit_bytes), in_gib(facts.memory_bytes)
        yield note(
            f"the container may use {limit} of {whole} of memory, and is ended beyond it",
            "fewer --data.workers take less",
        )
    if facts.open_files is not None and 0 <= facts.open_files < LEAST_FILES:
        yield trouble(f"a process may open {facts.open_files} files", "ulimit -n 4096")
    shared = facts.shared_memory_bytes
    if shared is not None and shared < usable * WORKER:
        # a worker that finds no room is ended by the system in the middle of a write
        fits = shared // WORKER
        yield trouble(
            f"shared memory has {in_bytes(shared)} free, room for {fits} workers' rows at 518 x 518",
            f"docker run --shm-size=2g, or --data.workers {fits} at most",
        )


def _dtype(facts: Facts) -> Iterator[Finding]:
    if facts.devices.dtype == "float16":
        yield note(
            f"{facts.devices.kinds[0]} has no bfloat16: runs compute in float16 and scale their loss",
            "--model.dtype float32 for the slow, plain way",
        )


RULES: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    _packages,
    _start,
    _unused_gpu,
    _driver,
    _unused_accelerators,
    _busy,
    _memory_share,
    _surprises,
    _places,
    _hub,
    _host,
    _dtype,
)
