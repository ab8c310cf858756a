"""Files that are whole, and no weights of the model that they are read for: name -> (content, part of the refusal)."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import cache

import ml_dtypes
import numpy as np

from fmjax.models.build import param_shapes
from tests.security import build as b
from tests.security.pickled import Files
from tests.support.checkpoints import random_file, small

MODEL, DIALECT = "ViT-B-16", "open_clip"
TOLD = "C-RADIOv2-B"  # the model that facts are told of: three class tokens of its four are joined
KEY = "visual.transformer.resblocks.1.mlp.c_fc.weight"
VECTOR = "visual.ln_post.bias"
ESCAPES = "\x1b]0;owned\a\x1b[2J"
Arrays = dict[str, np.ndarray]


def shapes() -> dict[str, tuple[int, ...]]:
    return dict(param_shapes(small(MODEL)))


@cache
def good() -> Arrays:
    return random_file(small(MODEL), DIALECT)


def npz(arrays: Arrays) -> bytes:
    data = io.BytesIO()
    np.savez(data, **arrays)  # type: ignore[arg-type]
    return data.getvalue()


def safe(arrays: Arrays) -> bytes:
    """A safetensors file of float32 arrays."""
    header, parts, place = {}, [], 0
    for key, array in arrays.items():
        parts.append(np.ascontiguousarray(array, np.float32).tobytes())
        header[key] = b.entry(shape=array.shape, offsets=(place, place + len(parts[-1])))
        place += len(parts[-1])
    return b.safetensors(header, b"".join(parts))


def with_value(value: float, dtype: type = np.float32) -> Callable[[np.ndarray], np.ndarray]:
    """The array with one value set, the last."""

    def change(array: np.ndarray) -> np.ndarray:
        array = array.astype(dtype)
        array.flat[-1] = value
        return array

    return change


def kinds() -> Files:
    """Parameters of a kind that holds no weights: told from the header."""
    wanted = {
        "int8": (np.int8, "is quantised"),
        "uint8": (np.uint8, "is quantised"),
        "bool": (np.bool_, "bool"),
        "int16": (np.int16, "int16"),
        "int64": (np.int64, "int64"),
        "uint32": (np.uint32, "uint32"),
        "complex64": (np.complex64, "complex64"),
        "complex128": (np.complex128, "complex128"),
        "longdouble": (np.longdouble, "longdouble|float128"),
    }
    out: Files = {}
    for key, (dtype, reason) in wanted.items():
        out[f"kind-{key}"] = npz({k: a.astype(dtype) for k, a in good().items()}), reason
        out[f"kind-{key}-one"] = (
            npz(good() | {VECTOR: good()[VECTOR].astype(dtype)}),
            f"'{VECTOR}'.*{reason}|{reason}",
        )
    packed = {k: (a.astype(np.int8) if k.endswith("weight") else a) for k, a in good().items()}
    for beside in ("scale", "zero_point", "SCB"):
        more = {f"{KEY}_{beside}": np.ones(1, np.float32)}
        out[f"kind-int8-with-{beside}"] = npz(packed | more), "is quantised"
    return out


def values() -> Files:
    """Parameters that are not finite, or not in float32."""
    changes = {
        "nan": with_value(np.nan),
        "inf": with_value(np.inf),
        "minus-inf": with_value(-np.inf),
        "half-nan": with_value(np.nan, np.float16),
        "half-inf": with_value(np.inf, np.float16),
        "bfloat16-nan": with_value(np.nan, ml_dtypes.bfloat16),
        "double-1e300": with_value(1e300, np.float64),
        "double-minus-1e300": with_value(-1e300, np.float64),
        "double-nan": with_value(np.nan, np.float64),
    }
    out: Files = {}
    for name, change in changes.items():
        for key in (KEY, VECTOR, "visual.proj"):
            short = key.removeprefix("visual.").split(".")[0]
            out[f"value-{name}-in-{short}"] = (
                npz(good() | {key: change(good()[key])}),
                f"{key}' is not finite",
            )
    return out


def names() -> Files:
    """Tensors that no model has, under names that would write on a terminal, or count to a billion."""
    one = np.zeros(1, np.float32)
    wanted = {
        "escapes": ESCAPES,
        "newlines": "a\nb\r\n    c\x85\u2028d",
        "bell": "a\a\a\b\b\x7f",
        "right-to-left": "a\u202egnp.\u2066b\u200f",
        "controls": "a\x9b2Jb\x90c",
        "block-of-500-digits": f"blocks.{'9' * 500}.w",
        "block-unicode": "blocks.\u0663.w",
        "block-zeros": "blocks.00000000000000000007.w",
        "braces": "{}.{}.0.{0}",
        "percent": "%s%n%(x)s",
        "markup": "[red]a[/red][link=file:///]b",
        "long": "a" * 500,
        "wide": "\U0001f600" * 120,
    }
    out = {
        f"name-{key}": (safe(good() | {name: one}), "does not fit the model")
        for key, name in wanted.items()
    }
    for far in (30_000_000, 999_999_999, 10**30):
        pair = {f"blocks.{i}.w": one for i in (0, far)}
        out[f"name-block-{far}"] = safe(good() | pair), r"does not fit the model"
    far = {f"blocks.{i * 1_000_003}.w": one for i in range(900)}
    out["name-900-far-blocks"] = safe(good() | far), "does not fit the model"
    shaped = good() | {key: np.zeros((1, 2, 3), np.float32) for key in good()}
    out["name-every-shape"] = safe(shaped), "does not fit the model"
    for count in (5000, 9900):
        strange = {f"{ESCAPES}.{i}.{'x' * (i % 90)}{i}": one for i in range(count)}
        out[f"name-strangers-{count}"] = safe(good() | strange), "does not fit the model"
        alone = {f"layer{i}.weight": one for i in range(count)}
        out[f"name-only-strangers-{count}"] = safe(alone), "does not fit the model"
    close = {f"visual.transformer.resblocks.{i}.mlp.c_fc.weighs{i}": one for i in range(2000)}
    out["name-close-strangers"] = safe(close), "does not fit the model"
    return out


def facts() -> Files:
    """Metadata that is read as what a converted file was told."""
    deep = "[" * 100_000
    wanted = {
        "deep": deep,
        "deep-inside": '{"pool_tokens": ' + deep,
        "list": "[]",
        "text": '"pool_tokens"',
        "number": "7",
        "digits": "9" * 5000,
        "long": '{"pool_tokens": [' + "0," * 150_000 + "0]}",
        "long-text": '{"pool_tokens": "' + "0" * 3_000_000 + '"}',
        "index-beyond": '{"pool_tokens": [999999999]}',
        "index-one-beyond": '{"pool_tokens": [0, 4]}',
        "index-negative": '{"pool_tokens": [-1]}',
        "index-twice": '{"pool_tokens": [0, 0]}',
        "index-bool": '{"pool_tokens": [true]}',
        "index-float": '{"pool_tokens": [0.0]}',
        "index-none": '{"pool_tokens": []}',
        "index-text": '{"pool_tokens": "x"}',
        "index-null": '{"pool_tokens": null}',
        "nested": '{"pool_tokens": [[0]]}',
        "other-field": '{"norm_eps": 0.5}',
        "no-place": '{"rope.period_dtype": "bfloat16"}',
        "hostile-name": json.dumps({ESCAPES: ESCAPES * 50}),
        "nan": '{"pool_tokens": [NaN]}',
        "twice": '{"pool_tokens": [0], "pool_tokens": [999]}',
    }
    return {f"facts-{key}": (_told(value), "facts|the file says") for key, value in wanted.items()}


def _told(text: str) -> bytes:
    return b.safetensors({"w": b.entry(), "__metadata__": {"format": "fmjax", "facts": text}})


def fitting() -> Files:
    return {**kinds(), **values(), **names()}


def controls() -> dict[str, tuple[bytes, bool]]:
    """What is right: content, and whether it is read for its facts."""
    scaled = {key: array * np.float32(1e30) for key, array in good().items()}
    extras = {
        "logit_scale": np.asarray(7, np.int64),
        "token_embedding.weight": np.full((2, 2), np.nan, np.complex64),
    }
    return {
        "control-fit": (npz(good()), False),
        "control-fit-safe": (safe(good()), False),
        "control-fit-large": (npz(scaled), False),
        "control-fit-extras-of-any-kind": (npz(good() | extras), False),
        "control-fit-half": (npz({k: a.astype(np.float16) for k, a in good().items()}), False),
        "control-fit-bfloat16": (
            npz({k: a.astype(ml_dtypes.bfloat16) for k, a in good().items()}),
            False,
        ),
        "control-fit-double": (npz({k: a.astype(np.float64) for k, a in good().items()}), False),
        "control-facts": (_told('{"pool_tokens": [0, 2]}'), True),
        "control-facts-none": (_told("{}"), True),
    }
