"""The sub-commands for a machine and its shell: doctor, bench, completion."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated

import tyro

from fmjax.commands.parsing import Command, Json, first, parse, say
from fmjax.commands.surroundings import set_here
from fmjax.errors import UsageError, nearest


def doctor(args: list[str]) -> None:
    # what is looked at has no flags: a machine is as it is
    def run(*, offline: bool = False, as_json: Json = False) -> None:
        """What there is to compute with. Ends with code 7 where something is to be mended.

        Args:
            offline: do not ask whether the hub can be reached
            as_json: print facts and findings for machines
        """
        from fmjax.programs.doctor import main

        main(offline=offline, as_json=as_json, own=set_here(os.environ))

    parse(run, args, "doctor")


def bench(args: list[str]) -> None:
    from fmjax.config import BenchConfig, ModelConfig

    # the program, and jax with it, is imported once the flags are known to be right
    model, rest = first(args, "bench", "a model")
    default = BenchConfig(model=ModelConfig(name=model)) if model else None
    config = parse(BenchConfig, rest, "bench", default=default)
    from fmjax.programs.bench import main

    main(config)


def completion(args: list[str], commands: Mapping[str, Command]) -> None:
    # `words` is what the scripts themselves call, at every tab
    if args[:1] == ["words"]:
        from fmjax.commands.completing import candidates

        say("\n".join(candidates(args[1:], commands)))
        return

    def run(shell: Annotated[str, tyro.conf.arg(metavar="bash|zsh|fish")], /) -> None:
        """A script for a shell: `eval "$(fmjax completion bash)"` in ~/.bashrc, the same with zsh in ~/.zshrc, or
        `fmjax completion fish > ~/.config/fish/completions/fmjax.fish`.

        Args:
            shell: whose script
        """
        from fmjax.commands.completing import SCRIPTS

        if shell not in SCRIPTS:
            hint = nearest(shell, SCRIPTS) or f"; there are {', '.join(SCRIPTS)}"
            raise UsageError(f"no completion for {shell!r}{hint}")
        say(SCRIPTS[shell])

    parse(run, args, "completion")
