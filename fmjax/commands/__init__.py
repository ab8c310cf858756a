"""The sub-commands of `fmjax`: what each is for, an example, and the function that takes its arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fmjax.commands import checkpoints, data, files, machine, runs
from fmjax.commands.parsing import Command, say
from fmjax.commands.texts import TEXTS

__all__ = ["COMMANDS", "Command", "say"]


def _completion(args: list[str]) -> None:
    machine.completion(args, COMMANDS)


RUNS: dict[str, Callable[[list[str]], Any]] = {
    "models": files.models,
    "info": files.info,
    "download": files.download,
    "convert": files.convert,
    "verify": files.verify,
    "embed": runs.on_features("embed", "EmbedConfig", "embed:main"),
    "knn": runs.on_features("knn", "KnnConfig", "features:knn_main"),
    "probe": runs.on_features("probe", "ProbeConfig", "features:probe_main"),
    "finetune": runs.finetune,
    "eval": runs.evaluate,
    "predict": runs.predict,
    "average": runs.average,
    "export": files.export,
    "report": runs.report,
    "push": files.push,
    "data": data.data,
    "from-tao": data.from_tao,
    "ckpt": checkpoints.ckpt,
    "doctor": machine.doctor,
    "bench": machine.bench,
    "completion": _completion,
}
VERBS = {"data": tuple(data.VERBS), "ckpt": tuple(checkpoints.VERBS)}
# in the order of the help
# what has a text and no function of its own is another form of a command
COMMANDS = {
    name: Command(*texts, RUNS[name], VERBS.get(name, ()))
    for name, texts in TEXTS.items()
    if name in RUNS
}
