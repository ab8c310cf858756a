"""The `fmjax` command. Nothing heavy is imported before the sub-command is known."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal

from fmjax.errors import UsageError, nearest


@dataclasses.dataclass(frozen=True)
class Command:
    """One sub-command: what its help says, a line that runs, and the function that takes its arguments."""

    help: str
    example: str
    run: Callable[[list[str]], Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a sub-command and returns the exit code: 0, 2 usage, 3 data, 4 checkpoint."""
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"]
    if not args or args[0] in ("-h", "--help"):
        _say(_overview())
        return 0
    try:
        if args[0] not in COMMANDS:
            raise UsageError(f"unknown command {args[0]!r}{nearest(args[0], COMMANDS)} (`fmjax --help` lists all)")
        COMMANDS[args[0]].run(args[1:])
    except ValueError as error:
        code = getattr(error, "exit_code", None)
        if code is None or debug:
            raise
        _say(f"fmjax: {error}", sys.stderr)
        return code
    except OSError as error:
        if debug:
            raise
        _say(f"fmjax: {error}", sys.stderr)
        return 4
    except KeyboardInterrupt:
        _say("fmjax: stopped; run the same command to go on from the last checkpoint", sys.stderr)
        return 130
    return 0


def _say(text: str, stream: Any = None) -> None:
    (stream or sys.stdout).write(text + "\n")


def _overview() -> str:
    rows = [f"  {name:<10}{command.help}" for name, command in COMMANDS.items()]
    examples = [f"  {command.example}" for command in COMMANDS.values()]
    return "\n".join(
        [
            "fmjax: vision foundation backbones in JAX",
            "",
            "commands (each has --help):",
            *rows,
            "",
            "examples:",
            *examples,
        ]
    )


def _parse(kind: Any, args: list[str], name: str, **options: Any) -> Any:
    import tyro

    command = COMMANDS[name]
    return tyro.cli(
        kind, args=args, prog=f"fmjax {name}", description=f"{command.help}\n\nExample: {command.example}", **options
    )


def _first(args: list[str], name: str, what: str) -> tuple[str, list[str]]:
    """The leading positional argument and the rest; `--help` stands in for a missing one."""
    if args and not args[0].startswith("-"):
        return args[0], args[1:]
    if "-h" in args or "--help" in args:
        return "", args
    raise UsageError(f"fmjax {name} needs {what}; for example: {COMMANDS[name].example}")


def _models(args: list[str]) -> None:
    def run(pattern: str = "*", /, *, pretrained: bool = False, as_json: bool = False) -> None:
        """pattern: shell-style, letter case ignored. pretrained: published weights instead of architectures."""
        from fmjax import specs

        names = specs.list_models(pattern, pretrained=pretrained)
        rows = [_row(name) for name in names]
        if not rows:
            known = specs.list_models(pretrained=pretrained)
            raise UsageError(f"no model matches {pattern!r}{nearest(pattern.strip('*'), known)}")
        if as_json:
            _say(json.dumps(rows, indent=2))
        else:
            _say("\n".join(_line(row) for row in rows))

    _parse(run, ["--as-json" if arg == "--json" else arg for arg in args], "models")


def _row(name: str) -> dict[str, Any]:
    from fmjax import specs

    spec = specs.get_spec(name)
    row = {
        "name": name,
        "parameters": spec.parameters,
        "float32_bytes": 4 * spec.parameters,
        "width": spec.width,
        "depth": spec.depth,
        "patch_size": spec.patch_size,
        "image_size": spec.image_size,
    }
    names = specs.list_models(f"{name}.*", pretrained=True) if name == spec.name else [name]
    rows = [row for row in map(specs.get_weights, names) if row.model == spec.name]
    row |= {
        "licence": " / ".join(dict.fromkeys(weights.licence for weights in rows)),
        "dialects": sorted({source.dialect for weights in rows for source in weights.sources}),
    }
    if name == spec.name:
        row |= {"tags": [weights.tag for weights in rows]}
    else:
        row |= {
            "evaluated_at": rows[0].image_size,
            "num_classes": rows[0].num_classes,
            "sources": [f"{source.kind}:{source.location}:{source.filename}" for source in rows[0].sources],
            "accuracy": dict(rows[0].accuracy),
        }
    doubts = {weights.tag: weights.unverified for weights in rows if weights.unverified}
    return row | {"verified": not doubts, "unverified": doubts if name == spec.name else rows[0].unverified}


def _line(row: dict[str, Any]) -> str:
    shape = f"{row['parameters'] / 1e6:>7,.1f} M, patch {row['patch_size']}, {row['image_size'][0]} px"
    return f"{row['name']:<48}{shape}, {row['licence']}{'' if row['verified'] else ' (not all verified)'}"


def _info(args: list[str]) -> None:
    def run(name: str, /) -> None:
        """name: "arch", "arch.tag", or an alias."""
        from fmjax import specs

        resolved = specs.resolve(name)
        spec = specs.get_spec(resolved)
        facts = _row(resolved)
        facts |= {"spec": {k: v for k, v in dataclasses.asdict(spec).items() if k != "aliases"}}
        if resolved in specs.list_models(pretrained=True):
            facts |= {"weights": dataclasses.asdict(specs.get_weights(resolved))}
        else:
            facts |= {"tags": [specs.split_name(n)[1] for n in specs.list_models(f"{resolved}.*", pretrained=True)]}
        _say(json.dumps(facts, indent=2))

    _parse(run, args, "info")


def _convert(args: list[str]) -> None:
    def run(name: str, source: str, target: str, /, *, dialect: str = "") -> None:
        """name: "arch.tag". source: a file or folder of any dialect. dialect: "" tells by the keys."""
        from fmjax.convert import convert

        convert(name, source, target, dialect=dialect)

    _parse(run, args, "convert")


def _export(args: list[str]) -> None:
    def run(
        source: str,
        target: str,
        /,
        *,
        dialect: str = "",
        base: str = "",
        model: str = "",
        classifier: bool = True,
    ) -> None:
        """source: a run's folder or a converted file. base: the original, for its other tensors."""
        from fmjax.convert import export_file

        export_file(source, target, dialect=dialect, base=base, model=model, classifier=classifier)

    _parse(run, args, "export")


def _verify(args: list[str]) -> None:
    def run(name: str, /, *, checkpoint: str = "", dialect: str = "", offline: bool = False) -> None:
        """name: "arch.tag". checkpoint: a file instead of the published one."""
        from fmjax.convert import verify

        verify(name, checkpoint=checkpoint, dialect=dialect, offline=offline)

    _parse(run, args, "verify")


def _download(args: list[str]) -> None:
    def run(
        names: tuple[str, ...],
        /,
        *,
        dry_run: bool = False,
        source: Literal["", "hf", "url"] = "",
        dialect: str = "",
        accept_new: bool = False,
        offline: bool = False,
    ) -> None:
        """names: "arch.tag", aliases, or patterns in quotes. dry_run: list only. source, dialect: "" takes any.
        accept_new: take what is published now in the place of what was recorded. offline: check what is here."""
        from fmjax.download import main as program

        program(names, dry_run=dry_run, source=source, dialect=dialect, accept_new=accept_new, offline=offline)

    _parse(run, args, "download")


def _finetune(args: list[str]) -> None:
    from fmjax.config import FinetuneConfig, load_preset

    preset, rest = _first(args, "finetune", "a preset")
    config = _parse(FinetuneConfig, rest, "finetune", default=load_preset(preset) if preset else None)
    from fmjax.train import main as program

    program(config)


def _on_features(name: str, kind: str, program: str) -> Callable[[list[str]], None]:
    def run(args: list[str]) -> None:
        import importlib

        from fmjax import config

        model, rest = _first(args, name, "a model")
        default = getattr(config, kind)(model=config.ModelConfig(name=model)) if model else None
        parsed = _parse(getattr(config, kind), rest, name, default=default)
        getattr(importlib.import_module("fmjax.embed"), program)(parsed)

    return run


def _eval(args: list[str]) -> None:
    from fmjax.config import EvalConfig

    folder, rest = _first(args, "eval", "a run's folder")
    config = _parse(EvalConfig, rest, "eval")
    from fmjax.evaluate import main as program

    program(folder, config)


COMMANDS: dict[str, Command] = {
    "models": Command("list architectures or published weights", "fmjax models '*dinov2*' --pretrained", _models),
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
        "fine-tune on labelled images", "fmjax finetune configs/quickstart.py --optim.lr 3e-4", _finetune
    ),
    "eval": Command("scores of a fine-tuned run", "fmjax eval runs/quickstart", _eval),
    "export": Command(
        "a run or converted file -> a PyTorch dialect",
        "fmjax export runs/quickstart model.safetensors --dialect timm",
        _export,
    ),
}

if __name__ == "__main__":
    sys.exit(main())
