"""What can come next on a command's line: asked by the shell's own script at every tab. Imports no jax."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fmjax.commands.parsing import Command

# Each asks `fmjax completion words`, with the words up to the cursor; what has no answer is a file's name
BASH = """\
_fmjax() {
    local IFS=$'\\n' cur="${COMP_LINE:0:COMP_POINT}" words
    COMPREPLY=()
    # the shell splits at = and :, which model names and sources have: the line is split at blanks instead
    IFS=$' \\t' read -r -a words <<< "$cur"
    [[ "$cur" == *[[:blank:]] ]] && words+=("")
    local last="${words[${#words[@]}-1]}" word
    local skip="${last%"${last##*[:=]}"}"
    while read -r word; do
        [[ -n "$word" ]] && COMPREPLY+=("${word#"$skip"}")
    done < <("${words[0]}" completion words "${words[@]:1}" 2>/dev/null)
}
complete -o default -F _fmjax fmjax"""
ZSH = """\
#compdef fmjax
_fmjax() {
    local -a found
    found=("${(@f)$("${words[1]}" completion words "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "${found[*]}" ]]; then
        compadd -- "${found[@]}"
    else
        _files
    fi
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _fmjax fmjax"""
FISH = """\
function __fmjax_words
    set -l words (commandline -opc) (commandline -ct)
    set -l found ($words[1] completion words $words[2..-1] 2>/dev/null)
    if test -n "$found"
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c fmjax -f -a '(__fmjax_words)'"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}

WIDTH = 100  # letters of the helps that are read here: at 160 boxes stand side by side
ENTRY = re.compile(r"--?[a-zA-Z]")
CHOICES = re.compile(r"\{([^}]*)\}")


@dataclass(frozen=True)
class Flag:
    """One flag as the help has it."""

    names: tuple[str, ...]
    choices: tuple[str, ...]
    takes: bool  # a value
    says: str


def candidates(words: Sequence[str], commands: Mapping[str, Command]) -> list[str]:
    """What can stand in the place of the last word, behind the others; none where that is a file's name.

    words: those behind `fmjax`, the last up to the cursor and maybe empty.
    """
    # a command, then its verb where it has some, then flags, their values, and what it takes before all flags
    *before, last = words or [""]
    if not before:
        return _starting(last, [*commands, "--help", "--version"])
    name, *rest = before
    if name not in commands:
        return []
    command = commands[name]
    if command.verbs and not rest:
        return _starting(last, [*command.verbs, "--help"])
    flags = list(flags_of(command, *rest[: bool(command.verbs)]))
    if last.startswith("-"):
        return _starting(last, _unused(flags, rest))
    previous = rest[-1] if rest else ""
    of_value = [flag for flag in flags if previous in flag.names and flag.takes]
    if of_value:
        return _starting(last, of_value[0].choices)
    return _starting(last, _positionals(name, rest))


def _starting(word: str, known: Sequence[str]) -> list[str]:
    return [each for each in known if each.startswith(word)]


def _unused(flags: Sequence[Flag], rest: Sequence[str]) -> list[str]:
    """The names of flags that are not on the line yet."""
    given = {word.partition("=")[0] for word in rest}
    return [name for flag in flags if not given & set(flag.names) for name in flag.names]


def flags_of(command: Command, *verb: str) -> Iterator[Flag]:
    """The flags of a command, or of a verb of it, read from its help: the one place in which all of them stand."""
    entry: list[str] = []
    text: list[str] = []
    # a box's lines: an entry at its edge, what it says behind or below it, both maybe on several lines
    for line in _lines(help_of(command, *verb)):
        at_edge = not line.startswith(" ")
        if not line:
            # the end of a box; the next may begin with what its flags are for
            yield from _flag(entry, text)
            entry, text = [], []
        elif at_edge and ENTRY.match(line):
            yield from _flag(entry, text)
            name, _, says = line.partition("  ")
            entry, text = [name], [says]
        elif at_edge and entry and not any(text):
            entry.append(line.strip())
        elif entry:
            text.append(line.strip())
    yield from _flag(entry, text)


def _lines(help: str) -> Iterator[str]:
    """The lines in the boxes of a help, those above a rule left out."""
    for line in help.splitlines():
        yield line[2:].rstrip(" │") if line.startswith("│ ") else ""


def _flag(entry: Sequence[str], text: Sequence[str]) -> Iterator[Flag]:
    if not entry:
        return
    # a list of choices may go on where a line ends
    whole = "".join(entry)
    found = CHOICES.search(whole)
    choices = tuple(found[1].split(",")) if found else ()
    shown = [part.strip() for part in CHOICES.sub("{}", whole).split(", ")]
    names = tuple(part.split()[0] for part in shown)
    takes = any(len(part.split()) > 1 for part in shown)
    yield Flag(names, choices, takes, " ".join(filter(None, text)))


def help_of(command: Command, *verb: str, width: int = WIDTH) -> str:
    """What --help prints on a terminal of so many letters."""
    # boxes are drawn where the output can take them
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(width)
    try:
        # --help ends the process that asks for it
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            command.run([*verb, "--help"])
    finally:
        del os.environ["COLUMNS"]
        os.environ |= {} if before is None else {"COLUMNS": before}
    out.seek(0)
    return out.read()


def _positionals(command: str, rest: Sequence[str]) -> list[str]:
    """What a command takes before its flags: names of models, or files, for which nothing is said."""
    row = POSITIONALS.get(command)
    if row is None or any(word.startswith("-") for word in rest):
        return []
    most, known = row
    return known() if len(rest) < most else []


def _models() -> list[str]:
    from fmjax.names import list_models

    return [*list_models(), *list_models(pretrained=True)]


def _weights() -> list[str]:
    from fmjax.names import list_models

    return list_models(pretrained=True)


def _starts() -> list[str]:
    from fmjax.config.presets import presets

    return [*presets(), *_models()]


def _shells() -> list[str]:
    return list(SCRIPTS)


# Command -> how many such words it takes, and which; others take files
POSITIONALS: dict[str, tuple[int, Callable[[], list[str]]]] = {
    "models": (1, _models),
    "info": (1, _models),
    "download": (99, _weights),
    "convert": (1, _models),
    "verify": (1, _models),
    "embed": (1, _models),
    "knn": (1, _models),
    "probe": (1, _models),
    "finetune": (1, _starts),
    "bench": (1, _models),
    "completion": (1, _shells),
}
