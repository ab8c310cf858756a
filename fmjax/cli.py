"""The `fmjax` command. Nothing heavy is imported before the sub-command is known."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

from fmjax.commands import COMMANDS, Command, say
from fmjax.commands.parsing import listed
from fmjax.commands.surroundings import prepare
from fmjax.engine.signals import Terminated, terminable
from fmjax.errors import FmjaxError, UsageError, exit_code, nearest, sentence

__all__ = ["COMMANDS", "Command", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a sub-command and returns the exit code: 0, those of fmjax.errors, 130 Ctrl-C, 143 SIGTERM."""
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"]
    # a picture over the cap has its own sentence, which Pillow's warning would only precede
    warnings.filterwarnings(
        "ignore", message="Image size .* exceeds limit", category=RuntimeWarning
    )
    if not args or args[0] in ("-h", "--help"):
        say(_overview())
        return 0
    if args[0] in ("-V", "--version"):
        say(_version())
        return 0
    prepare(os.environ, args[0])
    try:
        with terminable():
            _command(args[0]).run(args[1:])
    except (FmjaxError, ValueError, OSError) as error:
        code = exit_code(error)
        if code is None or debug:
            raise
        say(f"fmjax: {sentence(error)}", sys.stderr)
        return code
    except KeyboardInterrupt:
        say("fmjax: stopped; run the same command to go on from the last checkpoint", sys.stderr)
        return 130
    except Terminated:
        say("fmjax: terminated", sys.stderr)
        return 143
    return 0


def _command(name: str) -> Command:
    if name not in COMMANDS:
        raise UsageError(
            f"unknown command {name!r}{nearest(name, COMMANDS)} (`fmjax --help` lists all)"
        )
    return COMMANDS[name]


def _version() -> str:
    import platform
    from importlib import metadata

    from fmjax import __version__

    others = ", ".join(f"{name} {metadata.version(name)}" for name in ("jax", "flax"))
    return f"fmjax {__version__} ({others}, Python {platform.python_version()})"


def _overview() -> str:
    rows = listed(((name, command.help) for name, command in COMMANDS.items()), 14)
    examples = [f"  {command.example}" for command in COMMANDS.values()]
    title = "fmjax: vision foundation backbones in JAX"
    return "\n".join([title, "", "commands (each has --help):", *rows, "", "examples:", *examples])


if __name__ == "__main__":
    sys.exit(main())
