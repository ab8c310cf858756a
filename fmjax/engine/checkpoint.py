"""A run's state on disk, by Orbax: parameters, optimiser, random key and data position, committed together or not at
all."""

from __future__ import annotations

import functools
import gc
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from fmjax.engine.state import State
from fmjax.errors import CheckpointError
from fmjax.trees import Params


def has_steps(run: Path) -> bool:
    """Whether a run has checkpoints to go on from."""
    return bool(_steps(run / "checkpoints"))


def _steps(folder: Path) -> list[int]:
    """The committed steps, in order. A folder without any file in it was made by no save, and is none."""
    found = [path for path in folder.glob("*") if path.name.isdecimal() and path.is_dir()]
    return sorted(
        int(path.name) for path in found if any(inner.is_file() for inner in path.rglob("*"))
    )


def _remove_empty_steps(folder: Path) -> None:
    """Orbax would take them for steps: the newest one, and one of those that are kept in the place of a real one."""
    steps = _steps(folder)
    for path in folder.glob("*"):
        if path.name.isdecimal() and int(path.name) not in steps:
            for inner, _, _ in os.walk(path, topdown=False):
                with suppress(OSError):
                    # a folder that can only be read, or is not empty after all, stays
                    os.rmdir(inner)


class Checkpoints:
    """The checkpoints of one run, in its folder `checkpoints/<step>`."""

    def __init__(self, run: Path, *, keep: int = 2) -> None:
        self.folder = (run / "checkpoints").absolute()
        _remove_empty_steps(self.folder)
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def latest(self) -> int | None:
        """The newest committed step."""
        return max(_steps(self.folder), default=None)

    def save(self, step: int, state: State, data: dict[str, Any]) -> None:
        """Starts to save; the step counts once all of it is on disk. data: the place in the data, as JSON."""
        items = {name: ocp.args.StandardSave(value) for name, value in _items(state).items()}
        self._manager.save(
            step, args=ocp.args.Composite(**items, data=ocp.args.JsonSave(data)), force=True
        )

    def restore(self, step: int, like: State) -> tuple[State, dict[str, Any]]:
        """The state of a step, on the devices and with the layout of `like` (arrays or shapes), and the place in the
        data."""
        items = _items(like)
        found = self._restore(step, data=ocp.args.JsonRestore(), **_targets(items))
        return State(
            ema=found.get("ema", {}), **{k: found[k] for k in ("params", "opt")}, **found["random"]
        ), found["data"]

    def restore_params(self, step: int, like: Params) -> Params:
        """Only the parameters of a step."""
        if step not in _steps(self.folder):
            raise CheckpointError(f"{self.folder} has no step {step}; it has {_steps(self.folder)}")
        return self._restore(step, **_targets({"params": like}))["params"]

    def _restore(self, step: int, **items: Any) -> Any:
        try:
            with _orphans_are_silent():
                return self._manager.restore(step, args=ocp.args.Composite(**items))
        except Exception as error:  # orbax and tensorstore raise many kinds
            reason = _flaw(self.folder / str(step), list(items), error)
        # raised out here, as the error of orbax keeps its half-read arrays and its closed event loop alive
        raise CheckpointError(
            f"step {step} in {self.folder} cannot be restored: {reason}; delete that step's folder to go on from an "
            f"older one, or start over with --fresh"
        )

    def wait(self) -> None:
        """Until everything is committed."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


def _flaw(step: Path, items: list[str], error: Exception) -> str:
    """What is wrong with a step, in words of its files; orbax and tensorstore answer in words of their insides."""
    for record in _records(step, items):
        name = record.relative_to(step)
        if not record.is_file():
            return f"{name} is missing"
        try:
            json.loads(record.read_bytes())
        except ValueError:
            return f"{name} is damaged"
    if isinstance(error, KeyError):
        return f"its records lack {error}"

    # tensorstore names the folder that it read
    text = str(error)
    damaged = [item for item in items if f"{step / item}/" in text]
    if damaged:
        return f"the arrays in {damaged[0]} are damaged or missing"
    return "its arrays are not those of this run's model and optimiser"


def _records(step: Path, items: list[str]) -> list[Path]:
    """The files of a step that orbax reads as JSON."""
    trees = [item for item in items if item != "data"]
    shapes = [path for item in trees for path in sorted((step / item).glob("array_metadatas/*"))]
    place = [step / "data" / "metadata"] if "data" in items else []
    return [*place, *(step / item / "_METADATA" for item in trees), *shapes]


# What the other reads of a step say when one of them has failed: they end later, in a closed event loop
ORPHANS = ("Event loop is closed", "Encountered error while reading array index")


def _pass_on(previous: Callable[[Any], Any], unraisable: Any) -> None:
    if not any(text in str(unraisable.exc_value) for text in ORPHANS):
        previous(unraisable)


@contextmanager
def _orphans_are_silent() -> Iterator[None]:
    """While arrays are read, and on after a read that failed: Python would print each orphan as a traceback of its own,
    when it comes. What went wrong is raised besides."""
    hook = sys.unraisablehook
    if getattr(hook, "func", None) is not _pass_on:
        sys.unraisablehook = functools.partial(_pass_on, hook)
    loggers = [logging.getLogger(name) for name in ("asyncio", "absl")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
        sys.unraisablehook = hook
    finally:
        gc.collect()  # tasks that nobody asked are logged where they are freed
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _items(state: State) -> dict[str, Any]:
    """What of a state lies in a folder of its own. An empty tree has none."""
    items = {
        "params": state.params,
        "opt": state.opt,
        "random": {"step": state.step, "key": state.key},
    }
    return items | ({"ema": state.ema} if state.ema else {})


def _targets(items: dict[str, Any]) -> dict[str, Any]:
    return {name: ocp.args.StandardRestore(value) for name, value in items.items()}
