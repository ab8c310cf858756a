"""`fmjax data` and its verbs, and `fmjax from-tao`."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import tyro

from fmjax.commands.parsing import called, parse, say, verb
from fmjax.commands.texts import TEXTS
from fmjax.errors import UsageError
from fmjax.programs.flags import parsed


def data(args: list[str]) -> None:
    name = verb(args, "data", VERBS, "SOURCE")
    VERBS[name](args[1:])


def _check(args: list[str]) -> None:
    """Says what would stop a run on a set, and which scores not to believe."""
    from fmjax.config.sets import DataCheckConfig

    config = _config(args, "check", DataCheckConfig)
    # the program is imported once the flags are known to be right
    from fmjax.programs.data_check import main

    main(config)


def _pack(args: list[str]) -> None:
    """Writes the images as a few files, for --data.source arrayrecord:DIR."""
    from fmjax.config.sets import DataPackConfig

    config = _config(args, "pack", DataPackConfig)
    from fmjax.programs.data_pack import main

    main(config)


def _config(args: list[str], name: str, kind: Any) -> Any:
    """The config of a verb, whose source comes before all flags."""
    example = TEXTS["data"][1] if name == "check" else "fmjax data pack folder:images --out packed"
    default, rest = kind(), args
    if args and not args[0].startswith("-"):
        default = replace(default, data=replace(default.data, source=args[0]))
        rest = args[1:]
    # --data.source does as well, as with all other programs
    elif not any(arg in ("-h", "--help") or "source" in arg for arg in args):
        raise UsageError(f"fmjax data {name} needs a source; for example: {example}")
    return parsed(
        kind,
        args=rest,
        prog=called(f"data {name}", args),
        description=f"{kind.__doc__}\n\nExample: {example}",
        default=default,
    )


VERBS = {"check": _check, "pack": _pack}


def from_tao(args: list[str]) -> None:
    # what TAO called things is a matter of the program, so that these flags stay few
    def run(
        spec: Annotated[str, tyro.conf.arg(metavar="SPEC.yaml")],
        /,
        *,
        images: int = 0,
        model: str = "",
        data: str = "",
    ) -> None:
        """A spec of TAO's classification as a preset, on standard output.

        Args:
            spec: the YAML file that `tao model classification_pyt train -e` takes
            images: to train on, which tells how many steps an epoch has; 0 counts those in the spec's folder
            model: "arch.tag", for a backbone that is not the spec's
            data: as --data.source of a run, for images that lie elsewhere than the spec says
        """
        from fmjax.programs.from_tao import main

        say(main(spec, images=images, model=model, data=data))

    parse(run, args, "from-tao")
