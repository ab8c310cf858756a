"""How the flags of a sub-command are read, and how it speaks."""

from __future__ import annotations

import inspect
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import tyro

from fmjax.commands.texts import PLACES, TEXTS
from fmjax.errors import UsageError, nearest, safe
from fmjax.programs.flags import parsed


# The files of this room import nothing heavy: `fmjax --help` reads them all
@dataclass(frozen=True)
class Command:
    """One sub-command: what its help says, a line that runs, and the function that takes its arguments."""

    help: str
    example: str
    run: Callable[[list[str]], Any]
    verbs: tuple[str, ...] = ()  # words of which the first argument is one


def say(text: str, stream: Any = None) -> None:
    # names in it can be anybody's, so that it goes safe
    (stream or sys.stdout).write(safe(text) + "\n")


def parse(kind: Any, args: list[str], name: str, *, note: str = "", **options: Any) -> Any:
    """The config or the call that a command's flags make. note: what its help says beside them."""
    help, example = TEXTS[name]
    # tyro folds what flags say, and joins lines of what stands above them unless they are indented; an example stays a
    # line to be copied
    width = shutil.get_terminal_size().columns
    parts = [textwrap.fill(part, width, subsequent_indent="  ") for part in (help, note) if part]
    return parsed(
        kind,
        args=args,
        prog=called(name, args),
        description="\n\n".join([*parts, f"Example: {example}"]),
        **options,
    )


def listed(rows: Iterable[tuple[str, str]], indent: int) -> list[str]:
    """Lines of (name, what it is for), the text from so many letters on and folded there at the terminal's edge."""
    width = max(shutil.get_terminal_size().columns, 2 * indent)
    fold = partial(textwrap.fill, width=width, subsequent_indent=" " * indent)
    return [fold(text, initial_indent=f"  {name}".ljust(indent)) for name, text in rows]


def called(name: str, args: list[str]) -> str:
    """A command as its usage shows it: with what stands before its flags, which is taken off by hand."""
    # only there: what an error tells to run is the command alone
    helps = "-h" in args or "--help" in args
    place = PLACES.get(name, "") if helps else ""
    return f"fmjax {name} {place}".rstrip()


def first(args: list[str], name: str, what: str) -> tuple[str, list[str]]:
    """The leading positional argument and the rest; `--help` stands in for a missing one."""
    # taken off by hand: what it is decides which defaults the flags have
    if args and not args[0].startswith("-"):
        return args[0], args[1:]
    if "-h" in args or "--help" in args:
        return "", args
    raise UsageError(f"fmjax {name} needs {what}; for example: {TEXTS[name][1]}")


def taken(args: list[str], flag: str) -> tuple[str, list[str]]:
    """The value of a flag that decides which defaults the others have, and the rest; "" where it is not there. Raises
    UsageError for a flag without a value."""
    for index, arg in enumerate(args):
        name, given, value = arg.partition("=")
        if name != flag:
            continue
        if given and value:
            return value, [*args[:index], *args[index + 1 :]]
        following = args[index + 1 : index + 2]
        if given or not following or following[0].startswith("--"):
            raise UsageError(f"{flag} needs a name behind it")
        return following[0], [*args[:index], *args[index + 2 :]]
    return "", args


def verb(args: list[str], name: str, verbs: Mapping[str, Callable], what: str) -> str:
    """The first argument of a command with verbs, whose help is the first line of each one's docstring."""
    # tyro has sub-commands of its own, which would import the program of each to say what it is for
    if not args or args[0] in ("-h", "--help"):
        says = {each: (inspect.getdoc(run) or "").partition("\n")[0] for each, run in verbs.items()}
        lines = listed(says.items(), 10)
        example = f"Example: {TEXTS[name][1]}"
        say("\n".join([f"fmjax {name} VERB {what} (each has --help):", "", *lines, "", example]))
        raise SystemExit(0)
    if args[0] not in verbs:
        hint = nearest(args[0], verbs) or f"; it has {', '.join(verbs)}"
        raise UsageError(f"fmjax {name} has no {args[0]!r}{hint}")
    return args[0]


# arguments that several commands have; a word in capitals is what the help calls it
Name = Annotated[str, tyro.conf.arg(metavar="NAME")]
Json = Annotated[bool, tyro.conf.arg(name="json")]
# under its name in a config too, as knn and finetune have it
Given = Annotated[str, tyro.conf.arg(aliases=("--model.checkpoint",))]
Target = Annotated[str, tyro.conf.arg(metavar="TARGET.safetensors")]
Folder = Annotated[str, tyro.conf.arg(metavar="RUN")]
