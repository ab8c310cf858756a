"""What XLA's compiler is told of a program, beside the program itself."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import jax

from fmjax.errors import escaped, safe

Options = dict[str, Any]
TRUTH = {"true": True, "false": False}


def asked(told: tuple[str, ...]) -> Options:
    """Options NAME=VALUE as jax.jit is given them. One that XLA does not take is left out, with a line on stderr."""
    found: Options = {}
    for option in told:
        name, _, text = option.partition("=")
        # XLA reads numbers out of a text, and of what is true only its own spelling
        value = TRUTH.get(text.lower(), text)
        why = refusal(((name, value),))
        if why:
            _left_out(option, why)
        else:
            found[name] = value
    return found


@cache
def refusal(options: tuple[tuple[str, Any], ...]) -> str:
    """What XLA says against them; "" where it takes them. They are tried on a program of one number: XLA_FLAGS, the
    other way to pass them, would end the process."""
    try:
        jax.jit(lambda x: x + 1, compiler_options=dict(options)).lower(1.0).compile()
    except RuntimeError as error:
        return escaped(str(error)).removeprefix("INVALID_ARGUMENT: ")
    return ""


@cache
def _left_out(option: str, why: str) -> None:
    # several programs of a run are told the same
    line = f"note    --compiler-options {option!a} is left out: {why}"
    sys.stderr.write(safe(line) + "\n")
