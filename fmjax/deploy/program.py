"""A model as one function of a batch of images: what every kind of program is made of, and checked against."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import xxhash
from jaxtyping import Array, Float, Num

from fmjax.errors import UsageError
from fmjax.models.features import Features
from fmjax.models.functional import with_params
from fmjax.models.kernels import Asked
from fmjax.models.lora import merged
from fmjax.models.surgery import join_blocks
from fmjax.models.vit import ViT
from fmjax.preprocessing import PreprocessConfig, normalise
from fmjax.trees import flat, nested

# uint8: as a picture is once it is resized and cropped; normalised: float32, as `fmjax.preprocess` returns them
Images = Literal["uint8", "normalised"]
Output = Literal["logits", "pooled", "cls", "registers", "summary", "patches"]
Arrays = Mapping[str, Array]
Outputs = dict[str, Array]

DTYPES: dict[Images, str] = {"uint8": "uint8", "normalised": "float32"}
USUAL: tuple[Output, ...] = ("logits", "pooled")  # of what a model has
BATCHES = (1, 3)  # that a written program is tried with: its batch is any
CLOSE = 1e-3  # of the largest value: beyond it a program is another function, and no rounding


@dataclass(frozen=True, eq=False)
class Program:
    """A model as a function of pictures of its size, and what a reader of it has to know."""

    model: ViT  # on one device, in one stack
    params: Mapping[str, jax.Array]  # by their paths
    preprocessing: PreprocessConfig
    images: Images
    outputs: tuple[Output, ...]
    classes: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image: height, width, channels."""
        return (*self.preprocessing.image_size, 3)

    @property
    def dtype(self) -> str:
        """Of the images."""
        return DTYPES[self.images]

    @property
    def about(self) -> dict[str, Any]:
        """What is written beside a program: plain JSON, which needs no fmjax."""
        spec = self.model.spec
        return {
            "model": spec.weights or spec.name,
            "images": {"shape": ["batch", *self.shape], "dtype": self.dtype, "kind": self.images},
            "preprocessing": dataclasses.asdict(self.preprocessing),
            "outputs": list(self.outputs),
            "classes": list(self.classes),
            "params_xxh3_128": digest(self.params),
            "jax": jax.__version__,
        }

    def apply(self, params: Arrays, images: Num[Array, "B H W C"]) -> Outputs:
        """The outputs by name, [B ...] each: a pure function of arrays, whose parameters are a plain dict."""
        # files hold float32 in the place of dtypes that numpy has not
        leaves = {path: leaf.astype(self.params[path].dtype) for path, leaf in params.items()}
        features = with_params(self.model, nested(leaves))(self.normalised(images))
        return {name: getattr(features, name) for name in self.outputs}

    def normalised(self, images: Num[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """What comes in, as the model sees it."""
        return normalise(images, self.preprocessing) if self.images == "uint8" else images

    def run(self, images: Num[np.ndarray, "B H W C"]) -> dict[str, np.ndarray]:
        """The model's own answer, compiled for this batch."""
        return on_host(jax.jit(self.apply)(self.params, images))


def program(
    model: ViT,
    preprocessing: PreprocessConfig,
    *,
    images: Images = "uint8",
    outputs: Sequence[Output] = (),
    classes: Sequence[str] = (),
) -> Program:
    """A model, its adapters merged, as a function of pictures of its size.

    images: what goes in, [B H W 3] in RGB, resized and cropped as `preprocessing` says: "uint8" pictures, which the
    program normalises itself, or "normalised" float32. outputs: the fields of `Features` that come out; () is logits,
    where the model has a classifier, and pooled. classes: names of the logits. Raises UsageError for an output that
    the model has not.
    """
    # whatever it was trained on
    whole = jax.tree.map(lambda leaf: leaf, join_blocks(merged(model)))
    whole.mesh = None
    # a program is for devices of every kind
    whole.kernels = Asked("xla", "xla", "xla")
    own = _outputs_of(whole, preprocessing)
    missing = [name for name in outputs if name not in own]
    if missing:
        raise UsageError(
            f"{model.spec.name} has no output {missing[0]!r}; it has {', '.join(own)} (--outputs)"
        )
    chosen = tuple(outputs) or tuple(name for name in USUAL if name in own)
    return Program(whole, flat(whole), preprocessing, images, chosen, tuple(classes))


def _outputs_of(model: ViT, preprocessing: PreprocessConfig) -> list[str]:
    """The features that a model has."""
    shape = jax.ShapeDtypeStruct((1, *preprocessing.image_size, 3), np.float32)
    # by shapes alone: nothing is computed
    features: Features = jax.eval_shape(lambda model, images: model(images), model, shape)
    names = [field.name for field in dataclasses.fields(features)]
    return [name for name in names if getattr(features, name) is not None]


def unrolled(program: Program) -> Callable[[Array], tuple[Array, ...]]:
    """The program of images alone, its parameters constants in it and its blocks one behind the other.

    For readers that have no loop over stacked parameters, or a slow one. The outputs come in the program's order.
    """
    model = program.model
    # cut on the host: what is cut while it is traced is cut again in every run
    blocks = [
        jax.tree.map(lambda leaf, i=i: jnp.asarray(np.asarray(leaf)[i]), model.blocks)
        for i in range(model.spec.depth)
    ]

    def function(images: Array) -> tuple[Array, ...]:
        answers = _answers(model, blocks, program.normalised(images))
        return tuple(answers[name] for name in program.outputs)

    return function


def _answers(model: ViT, blocks: list[Any], images: Array) -> Outputs:
    """The features of normalised images [B H W 3], by name."""
    x, grid, rope = model.embed(images)
    for block in blocks:
        x = x + block.attention_branch(x, rope).whole
        x = x + block.mlp_branch(x).whole
    return vars(model.completed(model.gathered(x, grid)))


@dataclass(frozen=True)
class Difference:
    """How far a written program is from its model: the largest of all outputs, and the largest value there."""

    largest: float
    of: float
    batches: tuple[int, ...] = BATCHES  # that both were run with

    def __str__(self) -> str:
        batches = " and ".join(map(str, self.batches))
        largest = f"largest difference {self.largest:.2g} of values up to {self.of:.3g}"
        return f"{largest}, at batches of {batches}"


def compared(
    program: Program,
    run: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    *,
    batches: tuple[int, ...] = BATCHES,
) -> Difference:
    """Runs a program that was read back at several batches, and the model beside it.

    Raises UsageError where they differ by more than rounding: such a program must not be used.
    """
    largest = of = 0.0
    for batch in batches:
        images = example_images(program, batch)
        expected, found = program.run(images), run(images)
        for name in program.outputs:
            difference = np.abs(found[name].astype(np.float64) - expected[name])
            largest = max(largest, float(difference.max()))
            of = max(of, float(np.abs(expected[name]).max()))
    # a nan compares with nothing, and is as bad
    if not largest <= CLOSE * of:
        raise UsageError(
            f"the written program is not the model: it differs by {largest:.3g} of values up to {of:.3g}; "
            f"nothing was kept, please report it with `fmjax --version`"
        )
    return Difference(largest, of, batches)


def example_images(program: Program, batch: int) -> np.ndarray:
    """Noise in the place of pictures [B H W 3]: every value that a picture can have."""
    rng = np.random.default_rng(0)
    shape = (batch, *program.shape)
    if program.images == "uint8":
        return rng.integers(0, 256, shape, dtype=np.uint8)
    return rng.standard_normal(shape, np.float32)


def on_host(outputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value, np.float32) for name, value in outputs.items()}


def stored(leaf: jax.Array) -> np.ndarray:
    """A parameter as files have it: what numpy has no name for, bfloat16, is float32 there, without a change."""
    value = np.asarray(leaf)
    return value if is_numpys(value.dtype) else value.astype(np.float32)


def is_numpys(dtype: Any) -> bool:
    """Whether a dtype is one of numpy's own, and none that another package adds to it."""
    return np.dtype(dtype).isbuiltin == 1


def digest(params: Mapping[str, jax.Array]) -> str:
    """Of the names and numbers of all parameters, as files have them: XXH3 of 128 bits."""
    total = xxhash.xxh3_128()
    for path in sorted(params):
        total.update(path.encode())
        total.update(np.ascontiguousarray(stored(params[path])).data)
    return total.hexdigest()


def as_text(about: Mapping[str, Any], more: Iterable[tuple[str, Any]] = ()) -> str:
    """The facts of a program as JSON."""
    return json.dumps({**about, **dict(more)}, indent=2) + "\n"
