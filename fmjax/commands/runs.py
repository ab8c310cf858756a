"""The sub-commands for images: embed, knn, probe, finetune, eval, predict, report, average."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fmjax.commands.parsing import first, parse, taken
from fmjax.commands.texts import TEXTS
from fmjax.errors import UsageError

WITH_RECIPE = "--with-recipe"
BACKBONES_NOTE = (
    "In the place of a run, --backbones MODEL MODEL --data DIR compares frozen backbones on a folder of your images; "
    "--backbones --help shows the flags of that"
)


def finetune(args: list[str]) -> None:
    from fmjax.config.run import RunConfig

    # the program, and jax with it, is imported once the flags are known to be right
    recipe, args = taken(args, WITH_RECIPE)
    preset, rest = first(args, "finetune", "a preset, or a model")
    default = _with_recipe(_started(preset) if preset else RunConfig(), recipe)
    config = parse(RunConfig, rest, "finetune", default=default, note=_recipes_note())
    if config.dry_run:
        from fmjax.programs.dry_run import dry_run as program
    else:
        from fmjax.programs.finetune import main as program

    program(config)


def _with_recipe(config: Any, name: str) -> Any:
    """The config with a named recipe in the place of its own, which the other flags then change."""
    from fmjax.recipes import named

    return replace(config, recipe=named(name)) if name else config


def _recipes_note() -> str:
    from fmjax.recipes import RECIPES

    return (
        f"{WITH_RECIPE} NAME takes a named recipe in the place of the preset's, and the other flags change it: "
        f"{', '.join(RECIPES)}"
    )


def _started(name: str) -> Any:
    """The config of a preset, or the defaults for a model: every other command takes a model in this place."""
    from fmjax import names
    from fmjax.config.model import ModelConfig
    from fmjax.config.presets import load_preset, presets
    from fmjax.config.run import RunConfig

    if name in presets() or name.endswith(".py"):
        return load_preset(name)
    # what is neither a preset nor a model is most likely a misspelt preset
    try:
        resolved = names.resolve(name)
    except UsageError:
        return load_preset(name)  # whose error names the presets
    return RunConfig(out=f"runs/{resolved}", model=ModelConfig(name=name))


def on_features(name: str, kind: str, program: str) -> Callable[[list[str]], None]:
    # embed, knn and probe differ in nothing but their config and their program
    def run(args: list[str]) -> None:
        import importlib

        from fmjax import config

        model, rest = first(args, name, "a model")
        default = getattr(config, kind)(model=config.ModelConfig(name=model)) if model else None
        # pictures alone need no word for what they are: nothing is asked of their labels
        if default and name == "embed" and rest and not rest[0].startswith("-"):
            pictures = config.ImagesConfig(source=f"images:{rest[0]}")
            default, rest = replace(default, data=pictures), rest[1:]
        parsed = parse(getattr(config, kind), rest, name, default=default)
        module, _, function = program.partition(":")
        getattr(importlib.import_module(f"fmjax.programs.{module}"), function)(parsed)

    return run


def evaluate(args: list[str]) -> None:
    from fmjax.config.run import EvalConfig

    # a run knows its own model and data: only what is to be scored can be asked for
    folder, rest = first(args, "eval", "a run's folder")
    config = parse(EvalConfig, rest, "eval")
    from fmjax.programs.evaluate import main as program

    program(folder, config)


def predict(args: list[str]) -> None:
    from fmjax.config.predict import PredictConfig

    folder, rest = first(args, "predict", "a run's folder, and pictures")
    config = parse(PredictConfig, rest, "predict")
    from fmjax.programs.predict import main as program

    program(folder, config)


def report(args: list[str]) -> None:
    # backbones stand in the place of a run
    several = any(arg.partition("=")[0] == "--backbones" for arg in args)
    (_backbones if several else _of_run)(args)


def _of_run(args: list[str]) -> None:
    from fmjax.config.report import ReportConfig

    folder, rest = first(args, "report", "a run's folder")
    config = parse(ReportConfig, rest, "report", note=BACKBONES_NOTE)
    from fmjax.programs.report import main as program

    program(folder, config)


def _backbones(args: list[str]) -> None:
    from fmjax.config.backbones import BackbonesConfig

    # a folder needs no word for what it is
    folder, rest = taken(args, "--data")
    source = ["--data.source", f"folder:{folder}"] if folder else []
    config = parse(BackbonesConfig, [*rest, *source], "report --backbones")
    from fmjax.programs.backbones import main as program

    program(config)


def average(args: list[str]) -> None:
    from fmjax.config.average import AverageConfig

    # the sources are what stands before the first flag, so that a list of weights can follow them
    count = next((i for i, arg in enumerate(args) if arg.startswith("-")), len(args))
    sources = args[:count]
    config = parse(AverageConfig, args[count:], "average")
    if len(sources) < 2:
        example = TEXTS["average"][1]
        raise UsageError(f"fmjax average needs two runs or more; for example: {example}")
    from fmjax.programs.average import main as program

    program(sources, config)
