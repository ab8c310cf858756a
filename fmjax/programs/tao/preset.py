"""A preset as it is being put together: values by config and field, what has to be said of them, and its text."""

from __future__ import annotations

import dataclasses
import textwrap
from dataclasses import dataclass, field
from typing import Any

from fmjax.config import ClassifyConfig, DataConfig, ModelConfig, Recipe, RunConfig
from fmjax.errors import printable

PARTS: dict[str, type] = {
    "model": ModelConfig,
    "data": DataConfig,
    "task": ClassifyConfig,
    "recipe": Recipe,
}
WIDTH = 100


@dataclass
class Preset:
    """values: "part.field" or, of the run itself, "field" -> value. The rest becomes comments, each a line or more."""

    values: dict[str, Any] = field(default_factory=dict)
    differs: list[str] = field(default_factory=list)  # what is the same in name, and not in effect
    absent: list[str] = field(default_factory=list)  # what has no counterpart
    ignored: list[str] = field(default_factory=list)  # what TAO accepts and does not read
    unknown: list[str] = field(default_factory=list)  # what TAO does not know either

    def set(self, path: str, value: Any) -> None:
        """Gives a field its value."""
        self.values[path] = value

    def config(self) -> RunConfig:
        """The config that the text stands for. Raises UsageError for a value that is out of its field's range."""
        parts = {name: kind(**self._of(name)) for name, kind in PARTS.items()}
        return RunConfig(**parts, **self._of(""))

    def _of(self, part: str) -> dict[str, Any]:
        """The values of one config, in the order of its fields."""
        kind = PARTS.get(part, RunConfig)
        head = f"{part}." if part else ""
        # in the order of the config, not in that of the spec
        names = [row.name for row in dataclasses.fields(kind)]
        return {name: self.values[head + name] for name in names if head + name in self.values}

    def text(self, title: str, command: str) -> str:
        """Python source that defines `config`. title and command: of its docstring, free of quotes."""
        # whatever a spec says goes through repr() or into a comment of printable letters: it cannot be code
        used = [name for name in PARTS if self._of(name)]
        kinds = sorted(PARTS[name].__name__ for name in used)
        lines = [
            *textwrap.wrap(f'"""{title}', WIDTH),
            "",
            f"Command: {command}",
            '"""',
            "",
            f"from fmjax.config import {', '.join([*kinds, 'RunConfig'])}",
            "",
            "config = RunConfig(",
            *self._arguments("", indent=4),
        ]
        for name in used:
            lines.append(f"    {name}={PARTS[name].__name__}(")
            lines += [*self._arguments(name, indent=8), "    ),"]
        return "\n".join([*lines, ")", *self._comments(), ""])

    def _arguments(self, part: str, indent: int) -> list[str]:
        return [f"{' ' * indent}{name}={value!r}," for name, value in self._of(part).items()]

    def _comments(self) -> list[str]:
        # what a person has to decide on comes first, what can be forgotten next, and mistakes at the very end
        groups = (
            ("What is not as TAO does it:", self.differs),
            ("What the spec says and fmjax has no field for:", self.absent),
            ("What TAO accepts and never reads, so that nothing is lost:", self.ignored),
            ("What neither knows, most likely misspelt:", self.unknown),
        )
        lines = []
        for title, rows in groups:
            lines += ["", f"# {title}"] if rows else []
            for row in rows:
                lines += textwrap.wrap(
                    printable(row),
                    WIDTH,
                    initial_indent="# - ",
                    subsequent_indent="#   ",
                    break_long_words=False,
                    break_on_hyphens=False,
                )
        return lines
