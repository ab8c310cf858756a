"""What a recipe trains: its short forms as rows of the table of rates, and the groups of parameters that come of it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from fmjax.config.recipe import Recipe, Table
from fmjax.engine.freeze import STACK, Freeze, Shapes, names, rate, shown, tower_depths
from fmjax.engine.optim import EMBEDDING, decay_factor, layer_factor
from fmjax.errors import UsageError
from fmjax.trees import first_match

# What of a tower learns with --recipe.train norms_and_biases: BitFit (arXiv:2106.10199), and the scales of the norms,
# which the towers' authors train with the biases; the factors of LayerScale are no norm's
NORMS_AND_BIASES = r"(.*\.)?bias|(.*\.)?\w*norm\w*\.scale"
# The sections of a tower, in the order of a forward pass
SECTIONS = ((rf"{EMBEDDING.pattern}", "embedding"), (r"blocks\..*", "blocks"), (r".*", "output"))
ORDER = ("embedding", "blocks", "output", "")


@dataclass(frozen=True)
class Group:
    """Parameters of one part that have the same treatment."""

    part: str
    where: str  # "embedding", "blocks 0-9", "output" of a tower; "" for a head
    parameters: int
    lr: tuple[float, float]  # at the top of the schedule: of the first layer and of the last
    decay: float
    trained: bool


def resolved(recipe: Recipe, shapes: Shapes) -> Recipe:
    """The recipe with all that is not trained in its table of rates, and none of the short forms.

    shapes: of all parameters, each tower's blocks in one stack. Raises UsageError for more blocks than there are, and
    for a rate of parameters that a short form does not train.
    """
    depths = tower_depths(shapes)
    short = (*_head_only(recipe, depths), *_last_blocks(recipe, depths), *_kinds(recipe, depths))
    _check_rates(recipe, short, shapes)
    # first of all: a rate of one's own may leave out more, and bring nothing back
    return replace(recipe, train="all", last_blocks=0, rates=(*short, *recipe.rates))


def said(recipe: Recipe) -> str:
    """The flags that say what is not trained, as they are typed."""
    flags = {
        f"--recipe.train {recipe.train}": recipe.train != "all",
        f"--recipe.last-blocks {recipe.last_blocks}": recipe.last_blocks > 0,
        f"--recipe.rates {shown(recipe.rates)}": len(recipe.rates) > 0,
    }
    return " ".join(flag for flag, given in flags.items() if given)


def _head_only(recipe: Recipe, towers: Iterable[str]) -> Iterator[tuple[str, float]]:
    for part in towers if recipe.train == "head" else ():
        yield rf"{part}\..*", 0.0


def _last_blocks(recipe: Recipe, depths: Mapping[str, int]) -> Iterator[tuple[str, float]]:
    """The embedding and the leading blocks of each tower, as the first of which cannot learn without the others."""
    for part, depth in depths.items() if recipe.last_blocks else ():
        left = depth - recipe.last_blocks
        if left < 0:
            expected = f"at most {depth}, the blocks of {part}, or 0 for all of it"
            raise UsageError(f"--recipe.last-blocks is {recipe.last_blocks}; it must be {expected}")
        yield rf"{part}\.({EMBEDDING.pattern})", 0.0
        if left:
            yield rf"{part}\.blocks\.({'|'.join(map(str, range(left)))})\..*", 0.0


def _kinds(recipe: Recipe, towers: Iterable[str]) -> Iterator[tuple[str, float]]:
    for part in towers if recipe.train == "norms_and_biases" else ():
        yield rf"{part}\.(?!({NORMS_AND_BIASES})$).*", 0.0


def _check_rates(recipe: Recipe, short: Table, shapes: Shapes) -> None:
    """Raises UsageError for a rate that a short form leaves without effect."""
    known = [name for path, shape in shapes.items() for name in names(path, shape)]
    alone = replace(recipe, rates=())
    for pattern, factor in recipe.rates:
        matched = [name for name in known if re.fullmatch(pattern, name)]
        # a pattern that matches nothing is refused with the whole table
        if factor and matched and all(rate(name, short) == 0 for name in matched):
            raise UsageError(
                f"--recipe.rates {pattern!r} {factor:g} is of parameters that {said(alone)} does not train; leave one "
                f"of the two out"
            )


def groups(shapes: Shapes, freeze: Freeze, recipe: Recipe) -> list[Group]:
    """Every parameter in one group, in the order of a forward pass, what decays before what does not.

    shapes: of all parameters, each tower's blocks in one stack. recipe: that `freeze` comes of.
    """
    depths = tower_depths(shapes)
    found: dict[tuple, list[tuple[str, int]]] = {}
    for path, shape in shapes.items():
        here = names(path, shape)
        for index, name in enumerate(here):
            trained = path not in freeze.paths and index >= _leading(path, freeze)
            # rates as the table has them: what layer decay makes of one of them is a range in its group
            how = (0.0, 0.0)
            if trained:
                decay = recipe.weight_decay * decay_factor(name, recipe)
                how = (rate(name, recipe.rates), decay)
            key = (path.partition(".")[0], section(name, depths), *how, trained)
            found.setdefault(key, []).append((name, math.prod(shape) // len(here)))
    made = [_group(key, members, recipe, depths) for key, members in found.items()]
    parts = list(dict.fromkeys(path.partition(".")[0] for path in shapes))
    return [group for _, group in sorted(made, key=lambda pair: _place(*pair, parts))]


def _leading(path: str, freeze: Freeze) -> int:
    """How many leading blocks of a parameter's stack lie in one of their own, untrained."""
    stack = STACK.fullmatch(path)
    return freeze.blocks.get(stack["part"], 0) if stack else 0


def section(name: str, depths: Mapping[str, int]) -> str:
    """Where in a tower a parameter stands; "" for a part that is none."""
    part, _, inner = name.partition(".")
    return first_match(inner, SECTIONS) if part in depths else ""


def _group(
    key: tuple, members: Sequence[tuple[str, int]], recipe: Recipe, depths: Mapping[str, int]
) -> tuple[tuple, Group]:
    """The group of some names with their sizes, and the key to sort it by."""
    part, where, factor, decay, trained = key
    blocks = sorted({int(name.split(".")[2]) for name, _ in members}) if where == "blocks" else []
    lrs = {recipe.lr * factor * layer_factor(name, recipe, depths) for name, _ in members}
    group = Group(
        part,
        f"{where} {_ranges(blocks)}".strip(),
        sum(size for _, size in members),
        (min(lrs), max(lrs)),
        decay,
        trained,
    )
    return (ORDER.index(where), blocks[:1]), group


def _place(place: tuple, group: Group, parts: Sequence[str]) -> tuple:
    return parts.index(group.part), *place, -group.decay, -group.lr[1]


def _ranges(numbers: Sequence[int]) -> str:
    """0-9, 11."""
    out: list[list[int]] = []
    for number in numbers:
        if out and number == out[-1][-1] + 1:
            out[-1] = [out[-1][0], number]
        else:
            out.append([number])
    return ", ".join("-".join(map(str, each)) for each in out)


def lines(found: Sequence[Group]) -> list[str]:
    """The groups as a table of 80 columns."""
    rows = [("groups", "part", "where", "parameters", "lr at the top", "decay")]
    for group in found:
        rate_of, decay = "not trained", ""
        if group.trained:
            ends = dict.fromkeys(f"{lr:.3g}" for lr in group.lr)
            rate_of, decay = " to ".join(ends), f"{group.decay:g}"
        rows.append(("", group.part, group.where, f"{group.parameters:,}", rate_of, decay))
    # numbers to the right, so that one sees which is the largest
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [_line(row, widths) for row in rows]


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    head, part, where, count, *last = row
    words = [head.ljust(6), part.ljust(widths[1]), where.ljust(widths[2]), count.rjust(widths[3])]
    words += [last[0].ljust(widths[4]), last[1]]
    return "  ".join(words).rstrip()
