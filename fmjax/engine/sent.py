"""trackers.jsonl: which numbers of a run have reached which tool, in lines that outlive a crash."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fmjax.serial import write_atomically

Steps = dict[str, int]  # name of a number -> the last step of which a tool has it


class Sent:
    """What each tool has of a run, and by which id it knows it.

    Opened, the file has a line for each tool; each row that has reached one is a line behind them. A line that cannot
    be read is as good as none: `damaged` says how many there were, but for a last one that a crash has cut short.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ids: dict[str, str] = {}
        self.steps: dict[str, Steps] = {}
        self.damaged = 0
        lines = path.read_bytes().split(b"\n") if path.is_file() else []
        for place, line in enumerate(lines, start=1):
            whole = self._take(line)
            self.damaged += bool(line) and not whole and place < len(lines)

    def begin(self, tool: str) -> bool:
        """Makes sure that a tool has an id, and returns whether it had none."""
        new = tool not in self.ids
        if new:
            self.ids[tool], self.steps[tool] = uuid.uuid4().hex[:12], {}
        rows = [
            {"tool": name, "id": self.ids[name], "steps": self.steps[name]} for name in self.ids
        ]
        write_atomically(self.path, "".join(f"{json.dumps(row)}\n" for row in rows))
        return new

    def last(self, tool: str) -> int:
        """The last step of which a tool has anything; 0 for none."""
        return max(self.steps[tool].values(), default=0)

    def reached(self, tool: str, step: int, names: Iterable[str]) -> None:
        """A row that a tool has for good."""
        row = {"tool": tool, "step": step, "names": list(names)}
        self.steps[tool].update(dict.fromkeys(row["names"], step))
        # in one piece and past all buffers: what ends this process cannot end half of it
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, f"{json.dumps(row)}\n".encode())
        finally:
            os.close(descriptor)

    def _take(self, line: bytes) -> bool:
        """Adds what a line says; False where it says nothing that can be used."""
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            return False
        row: dict[str, Any] = found if isinstance(found, dict) else {}
        tool, name, steps = (row.get(key, "") for key in ("tool", "id", "steps"))
        if isinstance(tool, str) and _is_id(name) and _are_steps(steps):
            self.ids[tool], self.steps[tool] = name, dict(steps)
            return True
        # a row counts for a tool whose line stands above
        names, step = row.get("names", ""), row.get("step")
        if tool not in self.ids or type(step) is not int or not isinstance(names, list):
            return False
        self.steps[tool].update({each: step for each in names if isinstance(each, str)})
        return True


def _is_id(value: Any) -> bool:
    # it becomes a part of names, and of a search in a tool
    return isinstance(value, str) and value.isalnum() and value.isascii()


def _are_steps(value: Any) -> bool:
    return isinstance(value, dict) and all(type(step) is int for step in value.values())
