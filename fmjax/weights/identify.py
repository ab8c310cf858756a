"""Which architectures a file can be of, told by the shapes of a few of its tensors: no model is traced to rank them."""

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
MAX_NAMES = 3  # that a report offers: more would be no hint
MAX_ELEMENTS = 1 << 27  # of a tensor that is looked at: beyond every published one, and cheap even where it is copied
TOLD_BY = (
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
UNTOLD = ()  # in the place of a shape that the file's tensor alone does not tell
# a head is a projection for one model and a classifier for another, and files do not say which
MAY_BE_MORE = ("proj.kernel",)


def told_by(spec: ViTSpec) -> dict[str, Shape]:
    """The shapes of an architecture's telling parameters; one that it has not is left out."""
    width, (rows, columns) = spec.width, spec.grid
    return {
        "patch_embed.kernel": (3 * spec.patch_size**2, width),
        "blocks.attn.q.kernel": (spec.depth, width, width),
        "blocks.mlp.up.kernel": (spec.depth, width, spec.mlp_dim),
        **_where(spec.positions != "none", "pos_embed", (spec.position_prefix + rows * columns, width)),
        **_where(spec.num_registers > 0, "registers", (spec.num_registers, width)),
        **_where(spec.norm_pre, "norm_pre.scale", (width,)),
        **_where(spec.layer_scale, "blocks.ls1.scale", (spec.depth, width)),
        **_where(spec.pool == "map", "pool.probe", (width,)),
        **_where(spec.embed_dim > 0, "proj.kernel", (spec.pool_dim, spec.embed_dim)),
    }


def _where(has: bool, path: str, shape: Shape) -> dict[str, Shape]:
    return {path: shape} if has else {}


def fitting(file: Checkpoint) -> list[str]:
    """The architectures that a file fits, every tensor of it.

    Raises CheckpointError where names and shapes fit and something else forbids it, as a kind that is no weight.
    """
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
    own = min(_distance(seen, spec) for seen in views)
    ranked = [(distance, name) for distance, name in _ranked(views) if distance < own]
    nearest = [name for distance, name in ranked if distance == ranked[0][0]][:MAX_NAMES]
    if not nearest:
        return f" into {spec.name}"
    counts = {name: min(_misfits_at_most(file, table, names.get_spec(name)) for table in tables) for name in nearest}
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


def _misfits_at_most(file: Checkpoint, table: wc.Dialect, spec: ViTSpec) -> int:
    try:
        return misfits(file, table, spec)
    except CheckpointError:
        return len(file.tensors)


def _ranked(views: Sequence[View]) -> list[tuple[int, str]]:
    """(in how many telling shapes it differs, architecture), best first, in the zoo's order."""
    if not views:
        return []
    rows = [(min(_distance(seen, names.get_spec(name)) for seen in views), name) for name in names.list_models()]
    return sorted(rows, key=lambda row: row[0])


def _views(file: Checkpoint, tables: Iterable[wc.Dialect]) -> list[View]:
    """The telling shapes of a file as each dialect that it can be of reads them."""
    return [_seen(file, table) for table in tables]


def _distance(seen: View, spec: ViTSpec) -> int:
    expected = told_by(spec)
    sure = {path: shapes for path, shapes in seen.items() if UNTOLD not in shapes}
    unsure = seen.keys() - sure
    missing = [path for path, shape in expected.items() if path not in unsure and shape not in sure.get(path, ())]
    more = [path for path in sure if path not in expected and path not in MAY_BE_MORE]
    return len(missing) + len(more)


def _seen(file: Checkpoint, table: wc.Dialect) -> dict[str, set[Shape]]:
    """The shapes that a file's tensors have as parameters. Where several rules of a table speak of a tensor, each of
    them counts, as which one holds depends on the model."""
    try:
        tensors = table.renamed(file.tensors)
    except CheckpointError:
        return {}
    found: dict[str, set[Shape]] = {}
    for rule in table.rules:
        for path, shape in _parameters(rule, table, tensors):
            if path in TOLD_BY:
                found.setdefault(path, set()).add(shape)
    return found


def _parameters(rule: Rule, table: wc.Dialect, tensors: Mapping[str, wc.LazyTensor]) -> Iterator[tuple[str, Shape]]:
    keys = [table.full_prefix + key for key in rule.keys]
    shapes = [tensors[first].shape for key in keys if (first := key.replace("{i}", "0")) in tensors]
    if not set(rule.paths) & set(TOLD_BY) or len(shapes) < len(keys):
        return
    if any(math.prod(shape) > MAX_ELEMENTS for shape in shapes):
        return
    if isinstance(rule.transform, ShapedTransform):
        yield from ((path, UNTOLD) for path in rule.paths)
        return
    # no telling parameter depends on the number of heads, which only the way back needs
    transform = rule.transform if isinstance(rule.transform, Transform) else rule.transform.for_heads(1)
    try:
        arrays = transform.do(tuple(outline(shape) for shape in shapes))
    except (ValueError, IndexError, TypeError):
        return  # a shape that the rule cannot be of
    depth = ()
    if rule.stacked:
        depth = (sum(1 for _ in _blocks(keys[0], tensors)),)
    yield from zip(rule.paths, (depth + array.shape for array in arrays), strict=True)


def _blocks(key: str, tensors: Mapping[str, wc.LazyTensor]) -> Iterator[int]:
    """The numbers of the blocks that have this tensor, from 0 without a gap."""
    block = 0
    while key.replace("{i}", str(block)) in tensors:
        yield block
        block += 1
