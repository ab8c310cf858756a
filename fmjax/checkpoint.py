"""A run's state on disk, by Orbax: parameters, optimiser, random key and data position, committed together or not at
all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from fmjax.errors import CheckpointError

State = dict[str, Any]


def has_steps(run: Path) -> bool:
    """Whether a run has checkpoints to go on from."""
    return bool(_steps(run / "checkpoints"))


def _steps(folder: Path) -> list[int]:
    """The committed steps, in order. A folder without any file in it was made by no save, and is none."""
    found = [path for path in folder.glob("*") if path.name.isdecimal() and path.is_dir()]
    return sorted(int(path.name) for path in found if any(inner.is_file() for inner in path.rglob("*")))


def _remove_empty_steps(folder: Path) -> None:
    """Orbax would take them for steps: the newest one, and one of those that are kept in the place of a real one."""
    steps = _steps(folder)
    for path in folder.glob("*"):
        if path.name.isdecimal() and int(path.name) not in steps:
            for inner, _, _ in os.walk(path, topdown=False):
                with suppress(OSError):  # a folder that can only be read, or is not empty after all, stays
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
        """Starts to save; the step counts once all of it is on disk. `state` has params, optimiser, random."""
        items = {name: ocp.args.StandardSave(value) for name, value in state.items()}
        self._manager.save(step, args=ocp.args.Composite(**items, data=ocp.args.JsonSave(data)), force=True)

    def restore(self, step: int, like: State) -> tuple[State, dict[str, Any]]:
        """The state of a step, on the devices and with the layout of `like` (arrays or shapes), and the data
        position."""
        found = self._restore(step, data=ocp.args.JsonRestore(), **_targets(like))
        return {name: found[name] for name in like}, found["data"]

    def restore_params(self, step: int, like: Any) -> Any:
        """Only the parameters of a step."""
        if step not in _steps(self.folder):
            raise CheckpointError(f"{self.folder} has no step {step}; it has {_steps(self.folder)}")
        return self._restore(step, **_targets({"params": like}))["params"]

    def _restore(self, step: int, **items: Any) -> Any:
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except Exception as error:  # orbax and tensorstore raise many kinds
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise CheckpointError(
                f"step {step} in {self.folder} cannot be restored: {reason}; delete that step's folder to go on "
                f"from an "
                f"older one, or start over with --fresh"
            ) from error

    def wait(self) -> None:
        """Until everything is committed."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


def _targets(like: State) -> dict[str, Any]:
    return {name: ocp.args.StandardRestore(value) for name, value in like.items()}
