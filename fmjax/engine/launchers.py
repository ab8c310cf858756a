"""What a launcher tells a process of the others, by its environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from fmjax.config.hosts import AUTO, HostsConfig
from fmjax.errors import UsageError


@dataclass(frozen=True)
class Launcher:
    """The names of the environment variables that a launcher sets for each process that it starts."""

    name: str
    count: str  # of all processes
    index: str  # of this one
    local_index: str  # of this one, among those of its machine
    local_count: str  # of this machine: "8", or Slurm's "8(x2),4"


# Slurm's are those of a job step: without `srun`, a batch script has the job's and is one process all the same
LAUNCHERS = (
    Launcher(
        "srun",
        "SLURM_STEP_NUM_TASKS",
        "SLURM_PROCID",
        "SLURM_LOCALID",
        "SLURM_STEP_TASKS_PER_NODE",
    ),
    Launcher(
        "mpirun",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
)
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Place:
    """One of several processes, as `jax.distributed.initialize` takes it; None is what JAX finds out itself."""

    coordinator: str | None
    count: int | None
    index: int | None
    local_devices: list[int] | None  # [] is all that are visible


def place(config: HostsConfig, environment: Mapping[str, str]) -> Place | None:
    """Where a process stands among the others; None where it is alone.

    Raises UsageError for flags that say half of it, or something else than the launcher does.
    """
    if config.count == 1:
        return None
    # the table's first row that the environment knows: a launcher within another one's job is not looked for
    told = next((one for one in LAUNCHERS if one.count in environment), None)
    if told is None and config.coordinator == AUTO:
        # JAX asks the cluster, and is told what the flags say
        return Place(None, config.count or None, _or_none(config.index), None)
    count, index = _launched(config, told, environment)
    _check_whole(config, count, index, launched=told is not None)
    if count < 2:
        return None
    # an address that nobody has told is Slurm's or Open MPI's, which JAX knows how to find
    address = None if config.coordinator in ("", AUTO) else config.coordinator
    return Place(address, count, index, _local_devices(told, environment))


def _or_none(index: int) -> int | None:
    return None if index < 0 else index


def _launched(
    config: HostsConfig, told: Launcher | None, environment: Mapping[str, str]
) -> tuple[int, int]:
    """Count and index, of the flags or the launcher, which must not say otherwise."""
    if told is None:
        return config.count, config.index
    # both may say it: the same
    count, index = int(environment[told.count]), int(environment[told.index])
    if config.count not in (0, count):
        raise UsageError(
            f"--hosts.count is {config.count}, and {told.name} has started {count} processes; leave the flag out, or "
            f"pass --hosts.count 1 for processes that do not work together"
        )
    if config.index not in (-1, index):
        raise UsageError(
            f"--hosts.index is {config.index}, and {told.name} says that this is process {index}; leave the flag out"
        )
    return count, index


def _check_whole(config: HostsConfig, count: int, index: int, *, launched: bool) -> None:
    """Raises UsageError where the flags say some of what is needed, and no launcher the rest."""
    given = {
        "--hosts.coordinator": bool(config.coordinator) or launched,
        "--hosts.count": count > 0,
        "--hosts.index": index >= 0,
    }
    lacking = [flag for flag, there in given.items() if not there]
    if lacking and len(lacking) < len(given):
        raise UsageError(
            f"{' and '.join(lacking)} must be passed too: without srun or mpirun, several processes need "
            f"--hosts.coordinator HOST:PORT (the same for all), --hosts.count and --hosts.index (from 0)"
        )


def _local_devices(told: Launcher | None, environment: Mapping[str, str]) -> list[int] | None:
    """The GPUs of a process among those that its environment lets it see: each of a machine's processes takes its part.

    None where the number of GPUs is not said: JAX then gives one to each process.
    """
    if told is None:
        return []
    processes = _leading_number(environment.get(told.local_count, ""))
    visible = [name for name in environment.get(VISIBLE, "").split(",") if name]
    # one for all, or one that was given to this process alone
    if processes == 1 or len(visible) == 1:
        return []
    if not processes or len(visible) < processes:
        return None
    each = len(visible) // processes
    first = int(environment[told.local_index]) * each
    return list(range(first, first + each))


def _leading_number(text: str) -> int:
    found = re.match(r"\d+", text)
    return int(found[0]) if found else 0
