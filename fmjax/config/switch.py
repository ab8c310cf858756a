"""A flag that is on, off, or left to the device."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from tyro.constructors import PrimitiveConstructorSpec

SPELLED: dict[str, Any] = {"auto": "auto", "true": True, "false": False}


def _of_words(words: list[str]) -> Any:
    return SPELLED[words[0]]


def _words(value: Any) -> list[str]:
    return [next(word for word, meant in SPELLED.items() if meant == value)]


def _is_one(value: Any) -> bool:
    return any(meant == value for meant in SPELLED.values())


# in records the words are JSON's own: "auto", true, false
Switch = Annotated[
    Literal["auto"] | bool,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="{auto,true,false}",
        instance_from_str=_of_words,
        is_instance=_is_one,
        str_from_instance=_words,
        choices=tuple(SPELLED),
    ),
]
