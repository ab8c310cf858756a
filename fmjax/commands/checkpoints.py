"""`fmjax ckpt` and its verbs."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path

from fmjax.commands.parsing import Folder, Json, Target, say, verb
from fmjax.programs.flags import parsed


def ckpt(args: list[str]) -> None:
    name = verb(args, "ckpt", VERBS, "RUN")
    parsed(VERBS[name], args=args[1:], prog=f"fmjax ckpt {name}", description=_described(name))


def _described(name: str) -> str:
    """What a verb's help begins with: the first line of its docstring, and a line that runs."""
    says = (inspect.getdoc(VERBS[name]) or "").partition("\n")[0]
    return f"{says}\n\nExample: fmjax ckpt {name} {EXAMPLES[name]}"


# A verb's flags and their help are its arguments and its docstring, as with every other command
def _ls(run: Folder, /, *, preset: str = "", as_json: Json = False) -> None:
    """Lists the checkpoints of a run.

    Args:
        run: its folder
        preset: the .py file of a task of one's own; it is run
        as_json: print records for machines
    """
    from fmjax.programs import checkpoints

    found = checkpoints.ls(Path(run), preset)
    if as_json:
        say(json.dumps([dataclasses.asdict(step) for step in found], indent=2))
    else:
        checkpoints.show(found)


def _verify(run: Folder, /, *, step: int = -1, as_json: Json = False) -> None:
    """Compares the files and arrays of its checkpoints with their digests.

    Args:
        run: its folder
        step: only this one; -1 is all of them
        as_json: print records for machines
    """
    from fmjax.programs import checkpoints

    checkpoints.verify(Path(run), None if step < 0 else step, as_json=as_json)


def _prune(run: Folder, /, *, keep: int = 1, params_only: bool = False, preset: str = "") -> None:
    """Deletes all but the newest and the best of them.

    Args:
        run: its folder
        keep: how many of the newest stay
        params_only: also drop what only training needs, two thirds of a checkpoint
        preset: the .py file of a task of one's own; it is run
    """
    from fmjax.programs import checkpoints

    checkpoints.prune(Path(run), keep=keep, params_only=params_only, preset=preset)


def _export(
    run: Folder,
    target: Target,
    /,
    *,
    step: int = -1,
    dialect: str = "timm",
    preset: str = "",
    force: bool = False,
) -> None:
    """Writes the model of one of them in the names of a PyTorch library.

    Args:
        run: its folder
        target: the file to write
        step: of the checkpoint; -1 is the best of those that are kept
        dialect: whose names the file gets
        preset: the .py file of a task of one's own; it is run
        force: replace the target if it is there
    """
    from fmjax.programs import checkpoints

    chosen = None if step < 0 else step
    checkpoints.export_step(
        Path(run), target, step=chosen, dialect=dialect, preset=preset, force=force
    )


VERBS = {"ls": _ls, "verify": _verify, "prune": _prune, "export": _export}
EXAMPLES = {
    "ls": "runs/quickstart",
    "verify": "runs/quickstart",
    "prune": "runs/quickstart --keep 2",
    "export": "runs/quickstart model.safetensors --dialect timm",
}
