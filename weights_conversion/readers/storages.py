"""torch's storages and tensors as plain records, and the table of names that a torch pickle may use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import ml_dtypes
import numpy as np

from weights_conversion.errors import CheckpointError, quoted
from weights_conversion.readers.common import STATE_DICT_ONLY, check_shape, lazy
from weights_conversion.readers.pickles import Call, Global, Inert, Script, set_item
from weights_conversion.tensors import LazyTensor

MAX_SHARING = 4  # all tensors together, in storages: tied and viewed weights count each time that they are named
SPARE_BYTES = 64 << 20  # on top of that, for small files
VIEWS = ("conj", "neg")  # what a tensor's flags can say
# a tensor larger than its storage repeats values; position indices do, weights do not
MAX_EXPANDED_BYTES = 1 << 20

STORAGES: dict[str, np.dtype] = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
    "ComplexFloatStorage": np.dtype(np.complex64),
    "ComplexDoubleStorage": np.dtype(np.complex128),
}
DTYPES: dict[str, np.dtype] = {
    "float64": STORAGES["DoubleStorage"],
    "float32": STORAGES["FloatStorage"],
    "float16": STORAGES["HalfStorage"],
    "bfloat16": STORAGES["BFloat16Storage"],
    "int64": STORAGES["LongStorage"],
    "int32": STORAGES["IntStorage"],
    "int16": STORAGES["ShortStorage"],
    "int8": STORAGES["CharStorage"],
    "uint8": STORAGES["ByteStorage"],
    "bool": STORAGES["BoolStorage"],
    "complex64": STORAGES["ComplexFloatStorage"],
    "complex128": STORAGES["ComplexDoubleStorage"],
    "uint16": np.dtype(np.uint16),
    "uint32": np.dtype(np.uint32),
    "uint64": np.dtype(np.uint64),
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
}
REASONS = (  # part of a refused name -> what such a file is, and the way out
    ("_rebuild_qtensor", "is quantised; take the file of the float model"),
    ("QInt", "is quantised; take the file of the float model"),
    ("QUInt", "is quantised; take the file of the float model"),
    ("_rebuild_sparse", "has sparse tensors; save them with .to_dense()"),
    ("_get_layout", "has sparse tensors; save them with .to_dense()"),
    (
        "_rebuild_meta",
        "has tensors without values (device 'meta'); save it after the weights are loaded",
    ),
    (
        "_rebuild_device_tensor",
        f"was saved on an accelerator; move the model to the CPU and {STATE_DICT_ONLY}",
    ),
)


@dataclass(frozen=True, slots=True)
class Kind:
    """A storage type: of one dtype, or untyped."""

    dtype: np.dtype | None


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of values in the file, by key. An untyped one has no dtype and counts bytes."""

    key: str
    dtype: np.dtype | None
    count: int

    @property
    def nbytes(self) -> int:
        return self.count * (self.dtype.itemsize if self.dtype else 1)


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A view of a storage, offset and strides in values, known to lie inside it."""

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def span(self) -> int:
        """Bytes from its first value to behind its last."""
        # the last value is (n - 1) steps away along every axis; an empty tensor has none
        reach = sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))
        return (reach + 1) * self.dtype.itemsize if 0 not in self.shape else 0


Fetch = Callable[[str, int, int], np.ndarray]  # bytes of a storage: key, start, count


def lazy_tensors(tensors: Mapping[str, Tensor], fetch: Fetch) -> dict[str, LazyTensor]:
    """The tensors, to be read through `fetch`.

    Raises CheckpointError where together they are larger than MAX_SHARING times their storages, as a file of a few kB
    could otherwise stand for terabytes.
    """
    # each storage counts once, however many tensors look at it
    logical = sum(tensor.nbytes for tensor in tensors.values())
    stored = sum(
        {tensor.storage.key: tensor.storage.nbytes for tensor in tensors.values()}.values()
    )
    if logical > MAX_SHARING * stored + SPARE_BYTES:
        raise CheckpointError(
            f"has tensors of {logical:,} bytes in {stored:,} bytes of storage, more than {MAX_SHARING} times; "
            f"save shared and expanded tensors with .clone()"
        )
    return {name: _lazy(tensor, fetch) for name, tensor in tensors.items()}


def _lazy(tensor: Tensor, fetch: Fetch) -> LazyTensor:
    size = tensor.dtype.itemsize
    # an axis of length 1 may have any stride, so it counts as none
    steps = zip(tensor.shape, tensor.strides, strict=True)
    strides = tuple(stride * size * (n > 1) for n, stride in steps)
    key, start, span = tensor.storage.key, tensor.offset * size, tensor.span
    return lazy(tensor.shape, tensor.dtype, lambda: fetch(key, start, span), strides)


class Storages(dict[str, Storage]):
    """The storages that a file's persistent ids name, by key. As the meaning of a persistent id it makes sure that all
    describe a storage in one way: a tensor is checked against the description that it came with, the file against the
    one that is kept."""

    def __call__(self, key: tuple[object, ...]) -> Storage:
        found = storage(key)
        if self.setdefault(found.key, found) != found:
            raise CheckpointError(
                f"describes the storage {quoted(found.key)} in two ways; the file is damaged"
            )
        return found


def storage(key: tuple[object, ...]) -> Storage:
    """The storage that a persistent id names: ("storage", type, key, device, count), older files with one more."""
    # what the last of older files would describe is a view of another storage
    if len(key) < 5 or key[0] != "storage" or any(rest is not None for rest in key[5:]):
        raise CheckpointError(f"refers to something else than a storage; {STATE_DICT_ONLY}")
    _, kind, name, _, count = key[:5]
    if (
        not isinstance(kind, Kind)
        or not isinstance(name, str)
        or type(count) is not int
        or count < 0
    ):
        raise CheckpointError(
            "describes a storage in a way that torch does not; the file is damaged or hostile"
        )
    # where it lay (the fourth: "cuda:0") says nothing of its values
    found = Storage(name, kind.dtype, count)
    check_shape((found.nbytes,), 1)
    return found


def _tensor(
    where: object, offset: object, shape: object, strides: object, dtype: object = None
) -> Tensor:
    """The view of a storage, checked against what its persistent id said of it."""
    # all of these are a file's own words, so each is checked for its type before it is counted with
    if (
        not isinstance(where, Storage)
        or not isinstance(shape, tuple)
        or not isinstance(strides, tuple)
    ):
        raise TypeError("a tensor that is made of something else than a storage")
    dtype = dtype or where.dtype
    if not isinstance(dtype, np.dtype):
        raise TypeError("a tensor without a dtype")
    # negative strides are numpy's; torch has none, and they could reach before the storage
    if len(shape) != len(strides) or any(
        type(n) is not int or n < 0 for n in (offset, *shape, *strides)
    ):
        raise CheckpointError(
            "has a tensor with an impossible offset, shape or strides; the file is damaged or hostile"
        )
    check_shape(shape, dtype.itemsize)
    tensor = Tensor(where, dtype, cast(int, offset), shape, strides)
    if tensor.span and tensor.offset * dtype.itemsize + tensor.span > where.nbytes:
        raise CheckpointError(
            f"has a tensor that reaches outside its storage {quoted(where.key)}; the file is damaged"
        )
    if tensor.nbytes > max(where.nbytes, MAX_EXPANDED_BYTES):
        raise CheckpointError(
            f"has a tensor of {tensor.nbytes:,} bytes in a storage of {where.nbytes:,}; "
            f"save expanded tensors with .clone()"
        )
    return tensor


def _rebuild_v2(*arguments: object) -> Tensor:
    """Of storage, offset, shape, strides, requires_grad, hooks and flags."""
    where, offset, shape, strides, _, _, *flags = arguments
    _check_flags(flags)
    return _tensor(where, offset, shape, strides)


def _rebuild_v3(*arguments: object) -> Tensor:
    """The same with a dtype before the flags."""
    where, offset, shape, strides, _, _, dtype, *flags = arguments
    _check_flags(flags)
    return _tensor(where, offset, shape, strides, dtype)


def _check_flags(flags: list[object]) -> None:
    """Raises CheckpointError for views of other values; torch writes one table of at most these two."""
    if len(flags) > 1 or any(isinstance(row, dict) and len(row) > len(VIEWS) for row in flags):
        raise TypeError("a tensor with more flags than there are")
    if any(
        isinstance(row, dict) and any(value is not False for value in row.values()) for row in flags
    ):
        raise CheckpointError(
            "has tensors that are conjugated or negated views; save them with .resolve_conj()"
        )


def _rebuild_parameter(tensor: object, *_: object) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise TypeError("a parameter that is no tensor")
    return tensor


def _rebuild_from_type(
    function: object, _type: object, arguments: object, _state: object
) -> object:
    """A tensor that carries Python attributes: the tensor. What makes it is one of three functions, and never this one
    again, which could be nested without end."""
    if (
        not isinstance(function, Global)
        or function.call not in REBUILDS
        or not isinstance(arguments, tuple)
    ):
        raise TypeError("a tensor that is made by no function")
    return function.call(*arguments)


def _ordered_dict(pairs: object = ()) -> dict[str, object]:
    made: dict[str, object] = {}
    if not isinstance(pairs, (dict, list, tuple)):
        raise TypeError("a dict that is made of no pairs")
    for key, value in pairs.items() if isinstance(pairs, dict) else cast(Iterable[Any], pairs):
        set_item(made, key, value)
    return made


def _size(values: object = ()) -> tuple[object, ...]:
    if not isinstance(values, (tuple, list)):
        raise TypeError("a size that is no tuple")
    return tuple(values)


def _first(value: object, *_: object) -> object:
    """A list that TorchScript has tagged with its type: the list."""
    return value


def _inert(name: str) -> Call:
    return lambda *_: Inert(name)


REBUILDS: tuple[Call, ...] = (_tensor, _rebuild_v2, _rebuild_v3)
CALLS: dict[tuple[str, str], Call] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("collections", "Counter"): _ordered_dict,
    ("torch", "Size"): _size,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_v2,
    ("torch._utils", "_rebuild_tensor_v3"): _rebuild_v3,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
}
# neither tensors nor containers of them: settings, counters, random states
INERT: tuple[tuple[str, str], ...] = (
    ("argparse", "Namespace"),
    ("_codecs", "encode"),
    ("torch", "device"),
    ("torch", "Tensor"),
    ("torch.nn.parameter", "Parameter"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),  # as numpy 2 calls it
    ("numpy._core.multiarray", "_reconstruct"),
    ("builtins", "set"),
    ("builtins", "complex"),
    ("builtins", "bytearray"),
    ("__builtin__", "set"),  # as Python 2 calls it
    ("__builtin__", "complex"),
    ("__builtin__", "bytearray"),
)
SCRIPT_LISTS = (
    "build_intlist",
    "build_doublelist",
    "build_boollist",
    "build_tensorlist",
    "restore_type_tag",
)
_CALLED = {key: Global(".".join(key), call) for key, call in CALLS.items()}
_KEPT = {key: Global(".".join(key), _inert(".".join(key))) for key in INERT}
_KINDS = {("torch", name): Kind(dtype) for name, dtype in STORAGES.items()}
_TYPES = {("torch", name): dtype for name, dtype in DTYPES.items()}
_UNTYPED = {("torch.storage", "UntypedStorage"): Kind(None)}
_LISTS = {("torch.jit._pickle", name): Global(name, _first) for name in SCRIPT_LISTS}
NAMES: dict[tuple[str, str], object] = {**_CALLED, **_KEPT, **_KINDS, **_UNTYPED, **_TYPES}
SCRIPT_NAMES: dict[tuple[str, str], object] = {**NAMES, **_LISTS}


def lookup(module: str, name: str) -> object:
    """What the name means in a torch pickle. Raises CheckpointError, with the name, for all others."""
    return NAMES[module, name] if (module, name) in NAMES else _refused(module, name)


def script_lookup(module: str, name: str) -> object:
    """The same for TorchScript, whose own classes are containers."""
    if module == "__torch__" or module.startswith("__torch__."):
        return Global(name, lambda *_: Script(name))
    return SCRIPT_NAMES[module, name] if (module, name) in SCRIPT_NAMES else _refused(module, name)


def _refused(module: str, name: str) -> object:
    reason = next((why for part, why in REASONS if part in name), None)
    if reason and module.startswith("torch"):
        raise CheckpointError(reason)
    raise CheckpointError(
        f"has a pickle that calls for {quoted(f'{module}.{name}')}, which weights do not need; nothing was run; "
        f"{STATE_DICT_ONLY}"
    )
