"""The sub-commands for published weights and files: models, info, download, convert, verify, export, push."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import tyro

from fmjax.commands.parsing import Given, Json, Name, Target, first, parse, say

# the columns of the list that it can be sorted by
Sort = Literal[
    "family", "name", "parameters", "gflops", "size", "parity", "zero-shot", "knn", "probe", "top-1"
]
Feature = Literal["logits", "pooled", "cls", "registers", "summary", "patches"]

# A command's flags and their help are the arguments and the docstring of its `run`; what it needs is imported inside,
# so that --help and the other commands do not pay for it.


def models(args: list[str]) -> None:
    # positional for tyro, so that the name needs no flag
    def run(
        pattern: Annotated[str, tyro.conf.arg(metavar="[PATTERN]")] = "*",
        /,
        *,
        pretrained: bool = False,
        sort: Sort = "family",
        reverse: bool = False,
        max_params: str = "",
        licence: str = "",
        as_json: Json = False,
    ) -> None:
        """Names that a search finds.

        Args:
            pattern: a part of a name, tag, alias, timm or hub name or family ("clip", "openai"), or shell-style
            pretrained: list published weights instead of architectures
            sort: by this column, the smallest first, and of scores the best; family: as they belong together
            reverse: the other way round
            max_params: leave out what has more parameters, as in 90M or 1.1B
            licence: only those whose licence has this in it, as in mit
            as_json: print records for machines
        """
        # the program is imported once the flags are known to be right
        from fmjax.programs import listing

        rows = listing.found(
            pattern,
            pretrained=pretrained,
            max_params=max_params,
            licence=licence,
            sort=sort,
            reverse=reverse,
        )
        if as_json:
            say(json.dumps(rows, indent=2))
        else:
            listing.show(rows, pretrained=pretrained)

    parse(run, args, "models")


def info(args: list[str]) -> None:
    # a page for people, and the whole rows for machines
    def run(name: Name, /, *, as_json: Json = False) -> None:
        """All that is known of one model.

        Args:
            name: "arch", "arch.tag", timm's or the hub's name
            as_json: print all facts, the whole rows, for machines
        """
        from fmjax import names
        from fmjax.console import show_page
        from fmjax.programs import catalogue

        resolved = names.resolve(name)
        if as_json:
            say(json.dumps(catalogue.full_record(resolved), indent=2))
        else:
            show_page(resolved, catalogue.page(resolved))

    parse(run, args, "info")


def convert(args: list[str]) -> None:
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

    parse(run, args, "convert")


def export(args: list[str]) -> None:
    # what is written is told by the end of the target, and what is read by the program
    def run(
        source: Annotated[str, tyro.conf.arg(metavar="RUN|FILE|NAME")],
        target: Annotated[str, tyro.conf.arg(metavar="TARGET")],
        /,
        *,
        dialect: str = "",
        base: str = "",
        model: str = "",
        classifier: bool = True,
        adapters: bool = False,
        images: Literal["uint8", "normalised"] = "uint8",
        outputs: tuple[Feature, ...] = (),
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        force: bool = False,
    ) -> None:
        """Tensors in the names of a PyTorch library (TARGET.safetensors), a folder that it loads as it is (TARGET/), a
        program of StableHLO, ONNX or TFLite (TARGET.stablehlo, .onnx, .tflite), or the adapters of a run alone.

        Args:
            source: a run's folder, a converted file, or a model's name
            target: the file or folder to write, whose end says what is written
            dialect: whose names it gets; "" is timm for a run, and the original's own for a converted file
            base: the original file, for the tensors that fmjax does not model
            model: "arch.tag", for a file that does not say it
            classifier: write the run's classifier; without it the projection is kept
            adapters: write only what a run with --recipe.lora-rank has trained, for `fmjax.load(NAME, adapters=FILE)`
            images: what a program takes: pictures, or what fmjax.preprocess returns
            outputs: what a program gives; without it logits, where there are some, and pooled
            dtype: what a program computes in
            force: replace the target if it is there
        """
        # adapters alone are in no library's names
        if adapters:
            from fmjax.programs.adapters import export_adapters

            given = {"dialect": dialect, "base": base, "model": model}
            export_adapters(source, target, given=given, classifier=classifier, force=force)
            return
        from fmjax.programs.deploy import export

        # the program says which of them such a target reads
        flags = {
            "dialect": dialect,
            "base": base,
            "model": model,
            "classifier": classifier,
            "images": images,
            "outputs": outputs,
            "dtype": dtype,
        }
        export(source, target, flags=flags, force=force)

    parse(run, args, "export")


def push(args: list[str]) -> None:
    # what it writes depends on the run and the target: both are told before any flag is read
    from fmjax.config.push import PushConfig

    run, rest = first(args, "push", "a run's folder")
    target, rest = first(rest, "push", "a folder or a repository of the hub behind the run")
    config = parse(PushConfig, rest, "push")
    from fmjax.programs.push import main as program

    program(run, target, config)


def verify(args: list[str]) -> None:
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

    parse(run, args, "verify")


def download(args: list[str]) -> None:
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
        as_json: Json = False,
    ) -> None:
        """Published weights in the cache.

        Args:
            names: "arch.tag", aliases, or patterns in quotes
            dry_run: list what would be fetched, and ask nobody
            source: take only this kind of source; "" takes any
            dialect: take only files of this dialect; "" takes any
            accept_new: take what is published now in the place of what was recorded
            offline: check what is here, and fetch nothing
            as_json: print records for machines
        """
        from fmjax.programs.download import main as program

        program(
            names,
            dry_run=dry_run,
            source=source,
            dialect=dialect,
            accept_new=accept_new,
            offline=offline,
            as_json=as_json,
        )

    parse(run, args, "download")
