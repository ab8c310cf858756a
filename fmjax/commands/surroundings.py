"""What jax reads of the environment when it starts, where the user has said nothing else."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

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


def prepare(environment: MutableMapping[str, str]) -> None:
    """Sets what is not set. Before jax is imported: a program that imports fmjax itself is left alone."""
    if not any(name in environment for name in SAID):
        environment.update([MEMORY, (OWN, MEMORY[0])])


def set_here(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The names of the variables that a command has set, and no user."""
    return tuple(environment.get(OWN, "").split())
