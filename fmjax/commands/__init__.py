"""The sub-commands of `fmjax`: what each is for, an example, and the function that takes its arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fmjax.commands import checkpoints, data, files, runs
from fmjax.commands.parsing import say
from fmjax.commands.texts import TEXTS

__all__ = ["COMMANDS", "Command", "say"]


# The files of this room import nothing heavy: `fmjax --help` reads them all
@dataclass(frozen=True)
class Command:
    """One sub-command: what its help says, a line that runs, and the function that takes its arguments."""

    help: str
    example: str
    run: Callable[[list[str]], Any]


RUNS: dict[str, Callable[[list[str]], Any]] = {
    "models": files.models,
    "info": files.info,
    "download": files.download,
    "convert": files.convert,
    "verify": files.verify,
    "embed": runs.on_features("embed", "EmbedConfig", "embed_main"),
    "knn": runs.on_features("knn", "KnnConfig", "knn_main"),
    "probe": runs.on_features("probe", "ProbeConfig", "probe_main"),
    "finetune": runs.finetune,
    "eval": runs.evaluate,
    "average": runs.average,
    "export": files.export,
    "push": files.push,
    "data": data.data,
    "from-tao": data.from_tao,
    "ckpt": checkpoints.ckpt,
}
# in the order of the help
COMMANDS = {name: Command(*texts, RUNS[name]) for name, texts in TEXTS.items()}
