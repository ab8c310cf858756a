"""The measures of the house: how long, how folded and how well commented the code is, by file and by room.

`python -m tests.support.house [--left] [--worst] [room or file ...]` prints them, the table of what a room still lacks,
or each place that breaks a rule. Sources of the limits: the same counts over big_vision, openpi, equinox and kauldron.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("fmjax", "weights_conversion")
ROWS = ("fmjax/zoo", "weights_conversion/dialects")  # rooms of rows: their density is that of data

# they lead to all the others, and stand on no floor
DOORS = ("fmjax", "weights_conversion.__main__")

MAX_LINES = 400  # of a file
MAX_LOOSE = 12  # files in fmjax/ itself
MAX_CHOICES = 1  # conditional expressions in a statement
MAX_FORS = 2  # in one comprehension
MAX_COMPLEXITY = 12
MAX_UNCOMMENTED = 12  # code lines of a function without a comment
MAX_COLUMNS, MAX_STRING_COLUMNS = 100, 120
MAX_NODES = 7.0  # syntax nodes a line
MIN_COMMENTS = 5.0  # per cent of the lines

COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp, ast.match_case)
BLANK = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
# how a line that is only a string, or a row by name, begins
STRING = re.compile(r"\s*[rbfRBF]{0,2}[\"']")
ORDER = re.compile(r"#\s*(noqa|pyright|type:|ruff)")  # a comment to a tool says nothing to a reader


@dataclass(frozen=True)
class Place:
    """One spot that breaks a rule."""

    rule: str
    file: str
    line: int
    value: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.rule} {self.value}"


@dataclass
class Measure:
    """The counts of one file, or of several added up."""

    files: int = 0
    lines: int = 0
    code: int = 0  # lines that hold code: neither blank, nor comment, nor docstring
    written: int = 0  # lines that are neither blank nor only a comment: docstrings count
    nodes: int = 0
    comments: int = 0
    docstrings: int = 0
    complexity: int = 0  # of the most complex function
    longest: int = 0  # lines of the longest file
    places: list[Place] = field(default_factory=list)

    @property
    def density(self) -> float:
        """Syntax nodes a line that is written: 6.5 in timm without its models, 4.9 in equinox."""
        return self.nodes / max(self.written, 1)

    @property
    def share(self) -> float:
        """Comment lines, in per cent of all lines."""
        return 100 * self.comments / max(self.lines, 1)

    def counts(self) -> Counter[str]:
        return Counter(place.rule for place in self.places)


def sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def room(path: Path) -> str:
    """The folder that a file lies in, from the checkout's root."""
    return path.relative_to(ROOT).parent.as_posix()


@cache
def measure(path: Path) -> Measure:
    """All counts of a file."""
    text = path.read_text()
    tree = ast.parse(text)
    documented = _docstring_lines(tree)
    code, comments = _lines_of(text, documented)
    found = Measure(1, len(text.splitlines()), len(code))
    found.longest = found.lines
    found.written = sum(
        bool(line.strip()) and not line.strip().startswith("#") for line in text.splitlines()
    )
    found.nodes = sum(1 for _ in ast.walk(tree))
    found.comments = len(comments)
    found.docstrings = len(documented)
    found.complexity = max((complexity(f) for f in _functions(tree)), default=0)
    found.places = list(_places(path, text, tree, code, comments))
    return found


def total(measures: Iterable[Measure]) -> Measure:
    """Several files as one: sums, and the largest of what is a maximum."""
    whole = Measure()
    for one in measures:
        for name in ("files", "lines", "code", "written", "nodes", "comments", "docstrings"):
            setattr(whole, name, getattr(whole, name) + getattr(one, name))
        whole.complexity = max(whole.complexity, one.complexity)
        whole.longest = max(whole.longest, one.longest)
        whole.places += one.places
    return whole


def rooms() -> dict[str, Measure]:
    """Room -> the counts of its files together."""
    names = sorted({room(path) for path in sources()})
    return {
        name: total(measure(path) for path in sources() if room(path) == name) for name in names
    }


def complexity(function: ast.AST) -> int:
    """Ways through a function: one, and one more for each branch, boolean operator and filter. Functions inside of it
    are counted for themselves."""
    ways = 1
    for node in _own(function):
        ways += isinstance(node, BRANCHES)
        if isinstance(node, ast.BoolOp):
            ways += len(node.values) - 1
        if isinstance(node, ast.comprehension):
            ways += len(node.ifs)
    return ways


def lacking() -> dict[str, dict[str, float]]:
    """Room -> rule -> how often it is broken; `nodes` and `comments` are the room's own figures where they fall short.
    Rooms that hold every rule are left out."""
    found: dict[str, dict[str, float]] = {}
    for name, whole in rooms().items():
        short: dict[str, float] = dict(sorted(whole.counts().items()))
        if name not in ROWS and round(whole.density, 1) > MAX_NODES:
            short["nodes"] = round(whole.density, 1)
        if name not in ROWS and round(whole.share, 1) < MIN_COMMENTS:
            short["comments"] = round(whole.share, 1)
        if short:
            found[name] = short
    return found


def circles() -> list[list[str]]:
    """Groups of modules that import each other, directly or by way of others."""
    reached = _closure(_graph())
    groups = {frozenset(b for b in reached[a] if a in reached[b]) for a in reached}
    return sorted(sorted(group) for group in groups if group)


def upward() -> list[str]:
    """Imports of a module on a higher floor."""
    from tests.unit.test_imports import floor

    found = []
    for name, imported in _graph().items():
        own = floor(name)
        above = [other for other in imported if own is not None and (floor(other) or 0) > own]
        found += [f"{name} -> {other}" for other in sorted(above)]
    return found


def loose() -> list[str]:
    """The modules that lie in fmjax/ itself."""
    return sorted(path.name for path in (ROOT / "fmjax").glob("*.py") if path.stem != "__init__")


def _places(
    path: Path, text: str, tree: ast.Module, code: set[int], comments: set[int]
) -> Iterator[Place]:
    """Every spot of a file that breaks a rule."""
    name = path.relative_to(ROOT).as_posix()
    lines = len(text.splitlines())
    if lines > MAX_LINES and room(path) not in ROWS:
        yield Place("lines", name, 1, lines)
    checks = (
        _choices(tree),
        _fors(tree),
        _table_fors(tree),
        _knots(tree),
        _uncommented(tree, code, comments),
        _wide(text, tree),
    )
    for check in checks:
        for rule, line, value in check:
            yield Place(rule, name, line, value)


Found = Iterator[tuple[str, int, int]]  # rule, line, value


def _choices(tree: ast.Module) -> Found:
    """Statements of several conditional expressions, and comprehensions with one."""
    for statement in _statements(tree):
        count = sum(isinstance(node, ast.IfExp) for node in _expressions(statement))
        if count > MAX_CHOICES:
            yield "choices", statement.lineno, count
        inside = {
            id(node): node
            for folded in _expressions(statement)
            if isinstance(folded, COMPREHENSIONS)
            for node in ast.walk(folded)
            if isinstance(node, ast.IfExp)
        }
        for node in inside.values():
            yield "choice in a comprehension", node.lineno, 1


def _fors(tree: ast.Module) -> Found:
    for node in ast.walk(tree):
        if isinstance(node, COMPREHENSIONS) and len(node.generators) > MAX_FORS:
            yield "fors", node.lineno, len(node.generators)


def _table_fors(tree: ast.Module) -> Found:
    """Comprehensions among the rows of a table. A whole one may be derived from another, as its inverse is."""
    for statement in tree.body:
        value = getattr(statement, "value", None)
        if not isinstance(statement, ast.Assign | ast.AnnAssign) or value is None:
            continue
        derived = isinstance(value, COMPREHENSIONS) or (
            isinstance(value, ast.Call)
            and len(value.args) == 1
            and isinstance(value.args[0], COMPREHENSIONS)
        )
        if not derived:
            count = sum(isinstance(node, COMPREHENSIONS) for node in ast.walk(value))
            yield from [("for in a table", statement.lineno, count)] if count else []


def _knots(tree: ast.Module) -> Found:
    for function in _functions(tree):
        ways = complexity(function)
        if ways > MAX_COMPLEXITY:
            yield "complexity", function.lineno, ways


def _uncommented(tree: ast.Module, code: set[int], comments: set[int]) -> Found:
    """Functions whose body is long and says in no comment why or how."""
    for function in _functions(tree):
        end = (function.end_lineno or 0) + 1
        long = len(code & set(range(function.body[0].lineno, end)))
        if long > MAX_UNCOMMENTED and not comments & set(range(function.lineno, end)):
            yield "uncommented", function.lineno, long


def _wide(text: str, tree: ast.Module) -> Found:
    """Lines of code that are too wide; strings and the rows of tables may be wider, an address as long as it is."""
    tables = _table_lines(tree)
    rows = text.splitlines()
    for line, end in _code_ends(text).items():
        limit = (
            MAX_STRING_COLUMNS if line in tables or STRING.match(rows[line - 1]) else MAX_COLUMNS
        )
        if end > limit and " " in rows[line - 1].strip():
            yield "columns", line, end


def _table_lines(tree: ast.Module) -> set[int]:
    """The lines of constants at the top of a module."""
    found: set[int] = set()
    for statement in tree.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            found |= set(range(statement.lineno, (statement.end_lineno or 0) + 1))
    return found


def _tokens(text: str) -> Iterator[tokenize.TokenInfo]:
    return tokenize.generate_tokens(io.StringIO(text).readline)


def _code_ends(text: str) -> dict[int, int]:
    """Line -> the column where its code ends, docstrings and comments apart."""
    documented = _docstring_lines(ast.parse(text))
    ends: dict[int, int] = {}
    for token in _tokens(text):
        if token.type not in BLANK and token.end[0] not in documented:
            ends[token.end[0]] = max(token.end[1], ends.get(token.end[0], 0))
    return ends


def _lines_of(text: str, documented: set[int]) -> tuple[set[int], set[int]]:
    """The lines that hold code, and those that hold a comment, behind code or alone."""
    code: set[int] = set()
    comments: set[int] = set()
    for token in _tokens(text):
        if token.type == tokenize.COMMENT and not ORDER.match(token.string):
            comments.add(token.start[0])
        if token.type not in BLANK:
            code |= set(range(token.start[0], token.end[0] + 1))
    return code - documented, comments


def _docstring_lines(tree: ast.Module) -> set[int]:
    found: set[int] = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(node, (ast.Module, ast.ClassDef, *FUNCTIONS))
            and body
            and _is_docstring(body[0])
        ):
            found |= set(range(body[0].lineno, body[0].end_lineno + 1))
    return found


def _is_docstring(statement: ast.stmt) -> bool:
    value = getattr(statement, "value", None)
    return (
        isinstance(statement, ast.Expr)
        and isinstance(value, ast.Constant)
        and isinstance(value.value, str)
    )


def _functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]


def _own(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function, without those of functions inside of it."""
    waiting = list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, FUNCTIONS):
            waiting += ast.iter_child_nodes(node)


def _statements(tree: ast.AST) -> Iterator[ast.stmt]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.stmt))


def _expressions(statement: ast.stmt) -> Iterator[ast.AST]:
    """The expressions of a statement; those of the statements in its body are theirs."""
    waiting = list(ast.iter_child_nodes(statement))
    while waiting:
        node = waiting.pop()
        if not isinstance(node, ast.stmt):
            yield node
            waiting += ast.iter_child_nodes(node)


def _graph() -> dict[str, set[str]]:
    """Module -> the modules of ours that it imports."""
    from tests.unit.test_imports import imports, module

    own = {module(path): path for path in sources() if module(path) not in DOORS}
    return {name: (imports(path) & own.keys()) - {name} for name, path in own.items()}


def _closure(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Module -> all that it imports, directly or not."""
    reached: dict[str, set[str]] = {}
    for start in graph:
        waiting, seen = list(graph[start]), set()
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting += graph[name]
        reached[start] = seen
    return reached


def _line(name: str, one: Measure) -> str:
    figures = (
        f"{one.files:6}{one.lines:8}{one.longest:8}{one.code:8}{one.density:8.1f}{one.share:8.1f}%"
    )
    docs = f"{100 * one.docstrings / max(one.lines, 1):7.1f}%"
    broken = ", ".join(f"{rule} {count}" for rule, count in sorted(one.counts().items()))
    return f"{name:32}{figures}{docs}{one.complexity:6}   {broken}"


def _table() -> str:
    """A line a room, the totals without the rooms of rows, and what concerns the package as a whole."""
    heads = f"{'room':32}{'files':>6}{'lines':>8}{'longest':>8}{'code':>8}"
    heads += f"{'nodes':>8}{'comment':>9}{'docs':>8}{'cplx':>6}"
    found = rooms()
    lines = [heads, *(_line(name, one) for name, one in found.items())]
    lines.append(
        _line("all but rows", total(one for name, one in found.items() if name not in ROWS))
    )
    lines.append(f"loose in fmjax/: {len(loose())} of {MAX_LOOSE}: {', '.join(loose())}")
    lines.append(f"imports that go up: {'; '.join(upward()) or 'none'}")
    lines.append(f"circles: {'; '.join(' '.join(group) for group in circles()) or 'none'}")
    return "\n".join(lines)


def _left() -> str:
    """The table of what is left, as it stands in tests/unit/test_house.py."""
    rows = [f"    {name!r}: {short!r},".replace("'", '"') for name, short in lacking().items()]
    return "\n".join(["LEFT: dict[str, dict[str, float]] = {", *rows, "}"])


def _worst(paths: list[Path]) -> str:
    lines: list[str] = []
    for path in paths:
        one = measure(path)
        lines.append(_line(path.relative_to(ROOT).as_posix(), one))
        lines += [f"    {place}" for place in one.places]
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "where", nargs="*", help="rooms or files: their places; none: the table of all rooms"
    )
    parser.add_argument(
        "--left", action="store_true", help="print the table LEFT of tests/unit/test_house.py"
    )
    given = parser.parse_args(arguments)
    if given.left:
        text = _left()
    elif given.where:
        under = tuple(given.where)
        text = _worst(
            [path for path in sources() if path.relative_to(ROOT).as_posix().startswith(under)]
        )
    else:
        text = _table()
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
