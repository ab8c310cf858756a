"""Which architectures a file can be of, by the shapes of a few of its tensors: no model is traced to rank them.

A view of a file is what one dialect makes of it: the path of a telling parameter -> the shapes that it can have. The
distance of a view from an architecture is the number of telling parameters in which they differ.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import weights_conversion as wc
from fmjax import names
from fmjax.errors import CheckpointError
from fmjax.models.build import param_shapes
from fmjax.specs import ViTSpec
from weights_conversion.dialect import Rule
from weights_conversion.readers import Checkpoint
from weights_conversion.tensors import outline
from weights_conversion.transforms import ShapedTransform, Transform

Shape = tuple[int, ...]
View = Mapping[str, set[Shape]]
Tensors = Mapping[str, wc.LazyTensor]
MAX_NAMES = 3  # that a report offers: more would be no hint
# of a tensor that is looked at: beyond every published one, and cheap even where it is copied
MAX_ELEMENTS = 1 << 27
TELLING = (
    "patch_embed.kernel",
    "pos_embed",
    "registers",
    "norm_pre.scale",
    "blocks.attn.q.kernel",
    "blocks.mlp.up.kernel",
    "blocks.ls1.scale",
    "pool.probe",
    "proj.kernel",
)
UNKNOWN = ()  # in the place of a shape that depends on more than the file's tensor
# a head is a projection for one model and a classifier for another, and files do not say which
MAY_BE_MORE = ("proj.kernel",)


def telling_shapes(spec: ViTSpec) -> dict[str, Shape]:
    """The shapes of an architecture's telling parameters; one that it has not is left out."""
    width, depth, (rows, columns) = spec.width, spec.depth, spec.grid
    positions = spec.position_prefix + rows * columns
    # path, whether the architecture has it, its shape
    table: tuple[tuple[str, bool, Shape], ...] = (
        ("patch_embed.kernel", True, (3 * spec.patch_size**2, width)),
        ("pos_embed", spec.positions != "none", (positions, width)),
        ("registers", spec.num_registers > 0, (spec.num_registers, width)),
        ("norm_pre.scale", spec.norm_pre, (width,)),
        ("blocks.attn.q.kernel", True, (depth, width, width)),
        ("blocks.mlp.up.kernel", True, (depth, width, spec.mlp_dim)),
        ("blocks.ls1.scale", spec.layer_scale, (depth, width)),
        ("pool.probe", spec.pool == "map", (width,)),
        ("proj.kernel", spec.embed_dim > 0, (spec.pool_dim, spec.embed_dim)),
    )
    return {path: shape for path, has, shape in table if has}


def fitting(file: Checkpoint) -> list[str]:
    """The architectures that a file fits, every tensor of it.

    Raises CheckpointError where names and shapes fit and something else forbids it, as a kind that is no weight.
    """
    # the telling shapes leave few architectures; of these every tensor is compared
    tables = wc.candidates(file.tensors)
    near = [name for distance, name in _ranked(_views(file, tables)) if distance == 0]
    found, refusals = [], []
    for name, table in itertools.product(near, tables):
        try:
            if not misfits(file, table, names.get_spec(name)):
                found.append(name)
        except CheckpointError as error:
            refusals.append(error)
    if refusals and not found:
        raise refusals[0]
    return list(dict.fromkeys(found))


def closest(file: Checkpoint, table: wc.Dialect, spec: ViTSpec) -> str:
    """The end of a report on a file that does not fit `spec`: at most three architectures that are nearer to it."""
    tables = wc.candidates(file.tensors) or [table]
    views = _views(file, tables)
    own = min(_distance(view, spec) for view in views)
    ranked = [(distance, name) for distance, name in _ranked(views) if distance < own]
    if not ranked:
        return f" into {spec.name}"
    least, _ = ranked[0]
    nearest = [name for distance, name in ranked if distance == least][:MAX_NAMES]
    # of the few that are as near, those that differ in the fewest tensors of the whole file
    counts = {name: _fewest_misfits(file, tables, names.get_spec(name)) for name in nearest}
    fewest = min(counts.values())
    best = [name for name, count in counts.items() if count == fewest]
    return f" into {spec.name}; the closest model is {' or '.join(best)}, with {fewest} misfits"


def misfits(file: Checkpoint, table: wc.Dialect, spec: ViTSpec) -> int:
    """In how many names and shapes a file and an architecture differ. Raises CheckpointError for what else forbids
    it."""
    try:
        wc.to_jax(file.tensors, table, param_shapes(spec), heads=spec.num_heads)
    except wc.MisfitError as error:
        return error.misfits.count
    return 0


def _fewest_misfits(file: Checkpoint, tables: Iterable[wc.Dialect], spec: ViTSpec) -> int:
    """The misfits in the dialect that has the fewest; one that refuses the file counts as all of its tensors."""

    def count(table: wc.Dialect) -> int:
        try:
            return misfits(file, table, spec)
        except CheckpointError:
            return len(file.tensors)

    return min(map(count, tables))


def _ranked(views: Sequence[View]) -> list[tuple[int, str]]:
    """(in how many telling shapes it differs, architecture), best first, in the zoo's order."""
    if not views:
        return []
    rows = []
    for name in names.list_models():
        # a few shapes of numbers: all architectures are compared in milliseconds, and none is traced
        spec = names.get_spec(name)
        rows.append((min(_distance(view, spec) for view in views), name))
    return sorted(rows, key=lambda row: row[0])


def _views(file: Checkpoint, tables: Iterable[wc.Dialect]) -> list[View]:
    """The telling shapes of a file as each dialect that it can be of reads them."""
    return [_view(file, table) for table in tables]


def _distance(view: View, spec: ViTSpec) -> int:
    """How many telling parameters the view lacks or has in another shape, and how many it has beyond them."""
    expected = telling_shapes(spec)
    known = {path: shapes for path, shapes in view.items() if UNKNOWN not in shapes}
    unknown = view.keys() - known.keys()
    fitting = {path for path, shape in expected.items() if shape in known.get(path, ())}
    more = known.keys() - expected.keys() - set(MAY_BE_MORE)
    return len(expected.keys() - fitting - unknown) + len(more)


def _view(file: Checkpoint, table: wc.Dialect) -> View:
    """The shapes that a file's tensors have as parameters. Where several rules of a table speak of a tensor, each of
    them counts, as which one holds depends on the model."""
    try:
        tensors = table.renamed(file.tensors)
    except CheckpointError:
        return {}
    found: dict[str, set[Shape]] = {}
    for rule in table.rules:
        if not set(rule.paths) & set(TELLING):
            continue
        for path, shape in _parameters(rule, table, tensors):
            if path in TELLING:
                found.setdefault(path, set()).add(shape)
    return found


def _parameters(rule: Rule, table: wc.Dialect, tensors: Tensors) -> Iterator[tuple[str, Shape]]:
    """The shapes of a rule's parameters, as far as the tensors of the first block tell them; none where one lacks."""
    keys = [table.full_prefix + key for key in rule.keys]
    firsts = [key.replace("{i}", "0") for key in keys]
    shapes = [tensors[first].shape for first in firsts if first in tensors]
    too_large = any(math.prod(shape) > MAX_ELEMENTS for shape in shapes)
    if too_large or len(shapes) < len(keys):
        return
    if isinstance(rule.transform, ShapedTransform):
        yield from ((path, UNKNOWN) for path in rule.paths)
        return
    transform = rule.transform
    if not isinstance(transform, Transform):
        # no telling parameter depends on the number of heads, which only the way back needs
        transform = transform.for_heads(1)
    try:
        arrays = transform.do(tuple(outline(shape) for shape in shapes))
    except (ValueError, IndexError, TypeError):
        return  # a shape that the rule cannot be of
    depth = (_depth(keys[0], tensors),) if rule.stacked else ()
    yield from zip(rule.paths, (depth + array.shape for array in arrays), strict=True)


def _depth(key: str, tensors: Tensors) -> int:
    """How many blocks have this tensor, from 0 without a gap."""
    return next(i for i in itertools.count() if key.replace("{i}", str(i)) not in tensors)
