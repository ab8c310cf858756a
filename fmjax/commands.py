"""The sub-commands of `fmjax`: what each is for, its flags, and the program behind it."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal

import tyro

from fmjax.errors import UsageError, nearest, safe
from fmjax.programs.flags import parsed


@dataclasses.dataclass(frozen=True)
class Command:
    """One sub-command: what its help says, a line that runs, and the function that takes its arguments."""

    help: str
    example: str
    run: Callable[[list[str]], Any]


def say(text: str, stream: Any = None) -> None:
    (stream or sys.stdout).write(safe(text) + "\n")


def _parse(kind: Any, args: list[str], name: str, **options: Any) -> Any:
    command = COMMANDS[name]
    return parsed(
        kind,
        args=args,
        prog=f"fmjax {name}",
        description=f"{command.help}\n\nExample: {command.example}",
        **options,
    )


def _first(args: list[str], name: str, what: str) -> tuple[str, list[str]]:
    """The leading positional argument and the rest; `--help` stands in for a missing one."""
    if args and not args[0].startswith("-"):
        return args[0], args[1:]
    if "-h" in args or "--help" in args:
        return "", args
    raise UsageError(f"fmjax {name} needs {what}; for example: {COMMANDS[name].example}")


Name = Annotated[str, tyro.conf.arg(metavar="NAME")]
Json = Annotated[bool, tyro.conf.arg(name="json")]
Given = Annotated[str, tyro.conf.arg(aliases=("--model.checkpoint",))]
Target = Annotated[str, tyro.conf.arg(metavar="TARGET.safetensors")]


# A command's flags and their help are the arguments and the docstring of its `run`; what it needs is imported inside,
# so that --help and the other commands do not pay for it.
def _models(args: list[str]) -> None:
    # positional for tyro, so that the name needs no flag
    def run(
        pattern: Annotated[str, tyro.conf.arg(metavar="[PATTERN]")] = "*",
        /,
        *,
        pretrained: bool = False,
        as_json: Json = False,
    ) -> None:
        """Names that a search finds.

        Args:
            pattern: a part of a name, tag, alias, timm or hub name or family ("clip", "openai"), or shell-style
            pretrained: list published weights instead of architectures
            as_json: print records for machines
        """
        from fmjax import names
        from fmjax.programs import catalogue

        found = names.list_models(pattern, pretrained=pretrained)
        if not found:
            # only now, as it is for a hint alone
            known = names.list_models(pretrained=pretrained)
            hint = nearest(pattern.strip("*"), known, cutoff=0.6)
            raise UsageError(f"no model matches {pattern!r}{hint} (`fmjax models` lists all)")
        rows = [catalogue.record(name) for name in found]
        say(
            json.dumps(rows, indent=2)
            if as_json
            else "\n".join(catalogue.line(row) for row in rows)
        )

    _parse(run, args, "models")


def _info(args: list[str]) -> None:
    def run(name: Name, /, *, as_json: Json = False) -> None:
        """All that is known of one model.

        Args:
            name: "arch", "arch.tag", timm's or the hub's name
            as_json: print all facts, the whole rows, for machines
        """
        from fmjax import names
        from fmjax.programs import catalogue

        resolved = names.resolve(name)
        say(
            json.dumps(catalogue.full_record(resolved), indent=2)
            if as_json
            else catalogue.page(resolved)
        )

    _parse(run, args, "info")


def _convert(args: list[str]) -> None:
    def run(
        name: Name,
        source: Annotated[str, tyro.conf.arg(metavar="SOURCE")],
        target: Target,
        /,
        *,
        dialect: str = "",
        force: bool = False,
    ) -> None:
        """A checkpoint in fmjax's own names.

        Args:
            name: "arch.tag"
            source: a file or folder of any dialect
            target: the file to write
            dialect: how the source's tensors are named; "" tells by the keys
            force: replace the target if it is there
        """
        from fmjax.programs.convert import convert

        convert(name, source, target, dialect=dialect, force=force)

    _parse(run, args, "convert")


def _export(args: list[str]) -> None:
    # a run and a converted file are told apart by the program
    def run(
        source: Annotated[str, tyro.conf.arg(metavar="RUN|FILE")],
        target: Target,
        /,
        *,
        dialect: str = "",
        base: str = "",
        model: str = "",
        classifier: bool = True,
        force: bool = False,
    ) -> None:
        """A file in the names of a PyTorch library.

        Args:
            source: a run's folder or a converted file
            target: the file to write
            dialect: whose names it gets; "" is timm for a run, and the original's own for a converted file
            base: the original file, for the tensors that fmjax does not model
            model: "arch.tag", for a file that does not say it
            classifier: write the run's classifier; without it the projection is kept
            force: replace the target if it is there
        """
        from fmjax.programs.convert import export_file

        export_file(
            source,
            target,
            dialect=dialect,
            base=base,
            model=model,
            classifier=classifier,
            force=force,
        )

    _parse(run, args, "export")


def _verify(args: list[str]) -> None:
    def run(
        name: Name, /, *, checkpoint: Given = "", dialect: str = "", offline: bool = False
    ) -> None:
        """A checkpoint, there and back.

        Args:
            name: "arch.tag"
            checkpoint: a file or folder instead of the published one
            dialect: how its tensors are named; "" tells by the keys
            offline: use only what is on this machine
        """
        from fmjax.programs.convert import verify

        verify(name, checkpoint=checkpoint, dialect=dialect, offline=offline)

    _parse(run, args, "verify")


def _download(args: list[str]) -> None:
    # the flags narrow the sources of what the names match
    def run(
        names: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")],
        /,
        *,
        dry_run: bool = False,
        source: Literal["", "hf", "url"] = "",
        dialect: str = "",
        accept_new: bool = False,
        offline: bool = False,
    ) -> None:
        """Published weights in the cache.

        Args:
            names: "arch.tag", aliases, or patterns in quotes
            dry_run: list what would be fetched, and ask nobody
            source: take only this kind of source; "" takes any
            dialect: take only files of this dialect; "" takes any
            accept_new: take what is published now in the place of what was recorded
            offline: check what is here, and fetch nothing
        """
        from fmjax.programs.download import main as program

        program(
            names,
            dry_run=dry_run,
            source=source,
            dialect=dialect,
            accept_new=accept_new,
            offline=offline,
        )

    _parse(run, args, "download")


def _finetune(args: list[str]) -> None:
    from fmjax.config.run import RunConfig

    preset, rest = _first(args, "finetune", "a preset, or a model")
    config = _parse(RunConfig, rest, "finetune", default=_started(preset) if preset else None)
    from fmjax.programs.finetune import main as program

    program(config)


def _started(name: str) -> Any:
    """The config of a preset, or the defaults for a model: every other command takes a model in this place."""
    from fmjax import names
    from fmjax.config.model import ModelConfig
    from fmjax.config.presets import load_preset, presets
    from fmjax.config.run import RunConfig

    if name in presets() or name.endswith(".py"):
        return load_preset(name)
    try:
        resolved = names.resolve(name)
    except UsageError:
        return load_preset(name)  # whose error names the presets
    return RunConfig(out=f"runs/{resolved}", model=ModelConfig(name=name))


def _on_features(name: str, kind: str, program: str) -> Callable[[list[str]], None]:
    def run(args: list[str]) -> None:
        import importlib

        from fmjax import config

        model, rest = _first(args, name, "a model")
        default = getattr(config, kind)(model=config.ModelConfig(name=model)) if model else None
        parsed = _parse(getattr(config, kind), rest, name, default=default)
        getattr(importlib.import_module("fmjax.programs.features"), program)(parsed)

    return run


def _eval(args: list[str]) -> None:
    from fmjax.config.run import EvalConfig

    folder, rest = _first(args, "eval", "a run's folder")
    config = _parse(EvalConfig, rest, "eval")
    from fmjax.programs.evaluate import main as program

    program(folder, config)


COMMANDS: dict[str, Command] = {
    "models": Command(
        "search architectures or published weights", "fmjax models dinov2 --pretrained", _models
    ),
    "info": Command("all that is known of one model", "fmjax info ViT-B-16.openai", _info),
    "download": Command(
        "published weights -> checked files in the cache",
        "fmjax download 'ViT-B-16.*' dinov2_vits14 --dry-run",
        _download,
    ),
    "convert": Command(
        "a PyTorch checkpoint -> fmjax's own names",
        "fmjax convert ViT-B-16.openai clip.safetensors out.safetensors",
        _convert,
    ),
    "verify": Command(
        "check a checkpoint, and its way there and back, bit by bit",
        "fmjax verify ViT-B-16.openai --checkpoint clip.safetensors",
        _verify,
    ),
    "embed": Command(
        "images -> embeddings",
        "fmjax embed demo_vit_ti4.fashion_mnist --data.source digits",
        _on_features("embed", "EmbedConfig", "embed_main"),
    ),
    "knn": Command(
        "nearest-neighbour accuracy of frozen embeddings",
        "fmjax knn demo_vit_ti4.fashion_mnist --data.source digits",
        _on_features("knn", "KnnConfig", "knn_main"),
    ),
    "probe": Command(
        "linear-probe accuracy of frozen embeddings",
        "fmjax probe demo_vit_ti4.fashion_mnist --data.source digits",
        _on_features("probe", "ProbeConfig", "probe_main"),
    ),
    "finetune": Command(
        "fine-tune on labelled images by a preset (a .py file is run), or a model's name",
        "fmjax finetune quickstart --recipe.lr 3e-4",
        _finetune,
    ),
    "eval": Command("scores of a fine-tuned run", "fmjax eval runs/quickstart", _eval),
    "export": Command(
        "a run or converted file -> a PyTorch dialect",
        "fmjax export runs/quickstart model.safetensors --dialect timm",
        _export,
    ),
}
