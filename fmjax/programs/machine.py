"""The facts of this machine that decide how a run goes. Imports no jax: what it says is asked of another process."""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from fmjax import __version__
from fmjax.errors import FmjaxError, safe
from fmjax.store import addresses, locate, network, record
from fmjax.targets import check_writable

JAX_S = 120.0  # for jax to start: a driver that hangs does so for ever
SMI_S = 15.0
SMI = "name,driver_version,memory.total,memory.used"
MIB = 1 << 20
# Variables that steer what is looked at; tokens are in none of them
STEERING = ("JAX_", "XLA_", "FMJAX_", "CUDA_", "TPU_", "LD_LIBRARY_PATH", "NO_COLOR")
NETWORK = ("HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_HOME", "HF_HUB_CACHE", "HTTPS_PROXY", "https_proxy")
SECRET = ("TOKEN", "SECRET", "PASSWORD", "KEY")
CGROUP = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")
SHARED = Path("/dev/shm")  # noqa: S108  what multiprocessing's shared memory lies in


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A card, as nvidia-smi tells it."""

    name: str
    driver: str
    memory_bytes: int
    used_bytes: int


@dataclass(frozen=True, kw_only=True)
class Devices:
    """What jax has to compute on; `error` says why it has nothing."""

    platform: str = ""
    kinds: tuple[str, ...] = ()
    memory_bytes: int | None = None  # of the first device, where it tells
    dtype: str = ""
    # the kernels that compute these parts of a block, and why none of the device's own does
    attention: str = ""
    norms: str = ""
    activations: str = ""
    compile_cache: str = ""
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A folder that fmjax writes into."""

    path: str
    free_bytes: int = 0
    used_bytes: int = 0  # by what fmjax keeps there, where that is counted
    wrong: str = ""  # why nothing can be written there


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that `fmjax doctor` judges by."""

    fmjax: str
    python: str
    system: str
    packages: Mapping[str, str]  # what fmjax needs: name -> version, "" where it is not installed
    unmet: tuple[str, ...] = ()  # the requirements that these do not meet
    extras: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # -> what it lacks
    plugins: Mapping[str, str] = field(default_factory=dict)  # jax's for GPUs, with their versions
    gpus: tuple[Gpu, ...] = ()
    smi: str = ""  # why nvidia-smi says nothing
    device_files: tuple[str, ...] = ()  # of accelerators, in /dev
    devices: Devices
    environment: Mapping[str, str] = field(default_factory=dict)
    own: tuple[str, ...] = ()  # of them, what the command has set itself
    model_cache: Place
    hub_cache: Place
    compile_cache: Place | None = None
    hub: str = ""  # the host of the hub
    hub_wrong: str = ""  # why it cannot be reached
    offline: str = ""  # what keeps it from being asked
    cores: int
    cpu_quota: float | None = None  # cores that the container's quota is worth
    memory_bytes: int = 0
    memory_limit_bytes: int | None = None
    open_files: int | None = None
    shared_memory_bytes: int | None = None


def gathered(*, offline: bool = False) -> Facts:
    """The facts of this machine, now. offline: the hub is not asked."""
    # the card first: jax takes most of its memory once it has started
    gpus, smi = nvidia()
    devices = looked()
    why = _why_offline(offline=offline)
    hub, hub_wrong = _hub(ask=not why)
    needed = list(_needed("fmjax"))
    compiled = devices.compile_cache
    shared = _free(SHARED) if SHARED.is_dir() else None
    return Facts(
        fmjax=__version__,
        python=platform.python_version(),
        system=platform.platform(),
        packages={name: version(name) for name in ("jaxlib", *(need.name for need in needed))},
        unmet=tuple(str(need) for need in needed if not _is_met(need)),
        extras=lacking_extras(),
        plugins=plugins(),
        gpus=gpus,
        smi=smi,
        device_files=_device_files(Path("/dev")),
        devices=devices,
        environment=steering(os.environ),
        model_cache=place(record.cache_folder()),
        hub_cache=place(_hub_cache()),
        compile_cache=_compiled(Path(compiled)) if compiled else None,
        hub=hub,
        hub_wrong=hub_wrong,
        offline=why,
        cores=cores(),
        cpu_quota=cpu_quota(),
        memory_bytes=_memory(),
        memory_limit_bytes=memory_limit(),
        open_files=_open_files(),
        shared_memory_bytes=shared,
    )


def looked() -> Devices:
    """The devices, by jax in a process of its own."""
    command = [sys.executable, "-m", "fmjax.programs.device_look"]
    try:
        done = subprocess.run(  # noqa: S603  the same Python, and a module of this package
            command, capture_output=True, text=True, timeout=JAX_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Devices(error=f"no answer within {JAX_S:.0f} s")
    if done.returncode:
        # what was raised stands in the last line; a process that was ended says how
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        return Devices(error=safe([f"code {done.returncode}", *lines][-1])[:300])
    said: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    kinds = tuple(said.pop("kinds"))
    return Devices(kinds=kinds, **said)


def nvidia() -> tuple[tuple[Gpu, ...], str]:
    """The cards that nvidia-smi lists, and why it lists none."""
    # asked of the driver's own program: it answers where no library of a GPU is installed
    program = shutil.which("nvidia-smi")
    if program is None:
        return (), "nvidia-smi is not installed"
    command = [program, f"--query-gpu={SMI}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(  # noqa: S603  a program of the driver, found by its name
            command, capture_output=True, text=True, timeout=SMI_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return (), f"nvidia-smi fails ({type(error).__name__})"
    if done.returncode:
        told = (done.stdout + done.stderr).strip().splitlines() or [f"code {done.returncode}"]
        return (), f"nvidia-smi fails ({safe(told[0])})"
    return tuple(map(_gpu, done.stdout.strip().splitlines())), ""


def _gpu(line: str) -> Gpu:
    name, driver, total, used = (part.strip() for part in line.rsplit(",", 3))
    return Gpu(name=name, driver=driver, memory_bytes=_bytes(total), used_bytes=_bytes(used))


def _bytes(mib: str) -> int:
    # a card that is split into instances tells no figures of its own
    return int(mib) * MIB if mib.isdigit() else 0


def _device_files(folder: Path) -> tuple[str, ...]:
    names = ("nvidia0", "nvidiactl", "kfd", "accel0")
    return tuple(str(folder / name) for name in names if (folder / name).exists())


def _needed(name: str, extra: str = "") -> Iterator[Requirement]:
    """What an installed package requires, or what an extra of it requires beside that."""
    for text in metadata.requires(name) or ():
        need = Requirement(text)
        plain = need.marker is None or need.marker.evaluate({"extra": ""})
        if not extra and plain:
            yield need
        if extra and not plain and need.marker.evaluate({"extra": extra}):  # pyright: ignore
            yield need


def version(name: str) -> str:
    """Of an installed package; "" where it is not here."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _is_met(need: Requirement) -> bool:
    found = version(need.name)
    return bool(found) and need.specifier.contains(found, prereleases=True)


def lacking_extras() -> dict[str, tuple[str, ...]]:
    """Each extra of fmjax -> the packages of it that are not installed; those for its developers are left out."""
    extras = metadata.metadata("fmjax").get_all("Provides-Extra") or ()
    return {
        extra: tuple(sorted(set(_lacking("fmjax", extra))))
        for extra in extras
        if extra not in ("test", "dev")
    }


def _lacking(name: str, extra: str) -> Iterator[str]:
    for need in _needed(name, extra):
        if not version(need.name):
            yield need.name
            continue
        # jax[cuda12] is jax, which is here, and what its own extra brings
        for inner in need.extras:
            yield from _lacking(need.name, inner)


def plugins() -> dict[str, str]:
    """jax's for accelerators, those that are installed, with their versions."""
    names = [f"jax-cuda{number}-plugin" for number in (12, 13)] + ["jax-rocm60-plugin", "libtpu"]
    return {name: found for name in names if (found := version(name))}


def steering(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that change what jax, XLA and fmjax do; addresses without their passwords."""
    chosen = {
        name: addresses.scrubbed(value)
        for name, value in environment.items()
        if (name.startswith(STEERING) or name in NETWORK) and not any(x in name for x in SECRET)
    }
    return dict(sorted(chosen.items()))


def place(folder: Path) -> Place:
    """A folder, which need not be there yet."""
    try:
        check_writable(folder)
    except (FmjaxError, OSError) as error:
        return Place(path=str(folder), wrong=safe(str(error)))
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return Place(path=str(folder), free_bytes=_free(there))


def _compiled(folder: Path) -> Place:
    # another process may take its oldest programs away meanwhile
    used = 0
    for path in folder.glob("*"):
        with suppress(OSError):
            used += path.stat().st_size
    return replace(place(folder), used_bytes=used)


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _why_offline(*, offline: bool) -> str:
    """The flag or variable that keeps the hub from being asked."""
    set_ones = [name for name in locate.OFFLINE if os.environ.get(name, "").upper() in locate.TRUE]
    return "--offline" if offline else next(iter(set_ones), "")


def _hub(*, ask: bool) -> tuple[str, str]:
    """The hub's host, and why it cannot be reached."""
    from huggingface_hub import constants

    if not ask:
        return "", ""
    try:
        network.contact(constants.ENDPOINT)
    except FmjaxError as error:
        return addresses.place(constants.ENDPOINT), str(error)
    return addresses.place(constants.ENDPOINT), ""


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _groups(root: Path, own: Path) -> Iterator[Path]:
    """The folders of this process's control group and of those around it."""
    lines = own.read_text().splitlines() if own.is_file() else []
    path = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    folder = root / path
    yield from (each for each in (folder, *folder.parents) if each.is_relative_to(root))


def cpu_quota(root: Path = CGROUP, own: Path = OWN_GROUP) -> float | None:
    """The cores' time that a container may use, in cores; None where it is not bounded.

    Both versions of the kernel's control groups are read (Documentation/admin-guide/cgroup-v2.rst, cpu.max).
    """
    found = []
    for folder in _groups(root, own):
        words = _words(folder / "cpu.max")
        if len(words) == 2 and words[0].isdigit():
            found.append(int(words[0]) / int(words[1]))
    old = [_words(root / "cpu" / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
    if all(old) and old[0][0].isdigit():
        found.append(int(old[0][0]) / int(old[1][0]))
    return min(found, default=None)


def memory_limit(root: Path = CGROUP, own: Path = OWN_GROUP) -> int | None:
    """The bytes of memory that a container may use; None where it is not bounded."""
    files = [folder / "memory.max" for folder in _groups(root, own)]
    words = [_words(path) for path in (*files, root / "memory" / "memory.limit_in_bytes")]
    # the first version writes a number beyond all memory where there is no limit
    bounds = [int(word[0]) for word in words if word and word[0].isdigit()]
    return min((bound for bound in bounds if bound < 1 << 60), default=None)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def _open_files() -> int | None:
    try:
        resource = importlib.import_module("resource")
    except ImportError:  # not on every system
        return None
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
