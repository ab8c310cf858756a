"""Adapters: peft's arithmetic, what is trained with them, and what they cost where there are none."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import fmjax
import weights_conversion as wc
from fmjax.config.recipe import Recipe
from fmjax.engine import adapters
from fmjax.engine.optim import optimiser
from fmjax.errors import UsageError
from fmjax.models.build import abstract, initialise, param_shapes
from fmjax.models.lora import layers, merged, new_adapters, targeted, with_adapters
from fmjax.models.surgery import join_blocks, split_blocks
from fmjax.trees import bind, flat, nested
from fmjax.weights.load import fill
from tests.support import torch_reference
from tests.support.checkpoints import small

pytestmark = pytest.mark.usefixtures("quick_compiler")

RANK, ALPHA, LR, DECAY, STEPS = 3, 6.0, 1e-2, 0.05, 10
# layers that timm and fmjax both have as one: their names in either
LAYERS = {"attn.proj": "attn.out", "mlp.fc1": "mlp.up", "mlp.fc2": "mlp.down"}
TARGETS = r"backbone\.blocks\.\d+\.(attn\.out|mlp\.(up|down))"
SAME = 2e-6  # of the largest: two orders of summation in float32
SAME_MOVED = 2e-5  # after ten steps, each of which divides by a root of the gradient
SPEC = small("vit_tiny_patch16_224")
IMAGES = jnp.asarray(np.random.default_rng(0).standard_normal((3, *SPEC.image_size, 3), np.float32))
pooled = jax.jit(lambda model: model(IMAGES).pooled)
TARGET = np.random.default_rng(1).standard_normal((3, SPEC.width), np.float32)


def apart(found, expected) -> float:
    """The largest difference, in units of the largest value."""
    return float(np.abs(np.asarray(found) - expected).max() / np.abs(expected).max())


class Peft:
    """timm's network with peft's adapters, every tensor random."""

    def __init__(self) -> None:
        from peft import LoraConfig, inject_adapter_in_model
        from timm.models.vision_transformer import VisionTransformer

        plain = VisionTransformer(
            SPEC.image_size[0],
            SPEC.patch_size,
            embed_dim=SPEC.width,
            depth=SPEC.depth,
            num_heads=SPEC.num_heads,
            mlp_ratio=SPEC.mlp_dim / SPEC.width,
            num_classes=0,
        )
        torch_reference.randomise(plain, 0)
        self.tensors = torch_reference.numpy_tensors(plain.state_dict())
        config = LoraConfig(
            r=RANK,
            lora_alpha=ALPHA,
            lora_dropout=0.0,
            target_modules=r"blocks\.\d+\.(attn\.proj|mlp\.fc[12])",
        )
        self.model = inject_adapter_in_model(config, plain)
        self.trained = {
            name: value for name, value in self.model.named_parameters() if value.requires_grad
        }
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for value in self.trained.values():
                value.copy_(torch.randn(value.shape, generator=generator) * 0.1)

    def loss(self) -> torch.Tensor:
        images = torch.from_numpy(np.array(IMAGES.transpose(0, 3, 1, 2)))
        return ((self.model(images) - torch.from_numpy(TARGET)) ** 2).sum()

    def in_ours(self, of=lambda value: value.detach()) -> dict[str, dict[str, np.ndarray]]:
        """The adapters, or something of each, as fmjax has them: (in, r) and (r, out), stacked."""

        def stacked(theirs: str, letter: str) -> np.ndarray:
            names = [f"blocks.{i}.{theirs}.lora_{letter}.default.weight" for i in range(SPEC.depth)]
            return np.stack([of(self.trained[name]).numpy().T for name in names])

        return {
            f"blocks.{ours}": {"a": stacked(theirs, "A"), "b": stacked(theirs, "B")}
            for theirs, ours in LAYERS.items()
        }

    def kernels(self) -> dict[str, np.ndarray]:
        """Those of the layers, with what their adapters add."""

        def merged_one(path: str) -> np.ndarray:
            layer = self.model.get_submodule(path)
            delta = layer.get_delta_weight("default")
            return (layer.base_layer.weight + delta).detach().numpy().T

        return {
            f"blocks.{ours}.kernel": np.stack(
                [merged_one(f"blocks.{i}.{theirs}") for i in range(SPEC.depth)]
            )
            for theirs, ours in LAYERS.items()
        }


@pytest.fixture(scope="module")
def theirs() -> Peft:
    return Peft()


@pytest.fixture(scope="module")
def ours(theirs):
    """The same network and adapters here."""
    table = wc.get_dialect("timm")
    shapes = param_shapes(SPEC)
    tensors = wc.in_memory_tree(theirs.tensors)
    params = wc.to_jax(tensors, table, shapes, np.dtype(np.float32), heads=SPEC.num_heads).params
    return with_adapters(
        fill(abstract(SPEC), params), jax.tree.map(jnp.asarray, theirs.in_ours()), ALPHA / RANK
    )


def trained_and_fixed(model):
    leaves = flat(model)
    trained = {path: leaf for path, leaf in leaves.items() if adapters.INFIX in path}
    return nested(trained), {path: leaf for path, leaf in leaves.items() if path not in trained}


def loss_of(model):
    """The loss as a function of the adapters alone, and the adapters."""
    trained, fixed = trained_and_fixed(model)

    def loss(trained):
        whole = bind(model, nested(fixed | flat(trained)))
        return ((whole(IMAGES).pooled - TARGET) ** 2).sum()

    return loss, trained


def compared(found, expected) -> dict[str, float]:
    """Path -> how far apart, of a tree of adapters and one as `Peft.in_ours` gives it."""
    wanted = {
        f"{layer}.lora.{name}": value
        for layer, matrices in expected.items()
        for name, value in matrices.items()
    }
    assert flat(found).keys() == wanted.keys()
    return {path: apart(leaf, wanted[path]) for path, leaf in flat(found).items()}


def test_forward_gradients_and_merged_kernels_are_pefts(theirs, ours):
    loss, trained = loss_of(ours)
    value, gradients = jax.jit(jax.value_and_grad(loss))(trained)
    expected = theirs.loss()
    expected.backward()
    assert apart(value, expected.detach().numpy()) < SAME
    assert max(compared(gradients, theirs.in_ours(lambda p: p.grad)).values()) < SAME
    kernels = flat(merged(ours))
    for path, kernel in theirs.kernels().items():
        assert apart(kernels[path], kernel) < 1e-6, path


def test_a_merged_network_computes_what_it_did_with_adapters(ours):
    one = merged(ours)
    assert flat(one).keys() == param_shapes(SPEC).keys()
    assert apart(pooled(one), np.asarray(pooled(ours))) < SAME
    plain = bind(merged(ours), nested(flat(one)))
    assert merged(plain) is plain


def test_ten_steps_of_adamw_end_where_pefts_do(theirs, ours):
    loss, trained = loss_of(ours)
    recipe = Recipe(
        lr=LR,
        warmup_steps=0,
        final_lr=1.0,
        weight_decay=DECAY,
        decay=((r".*\.lora\.[ab]", 1.0),),
        clip_norm=0.0,
    )
    shapes = {path: leaf.shape for path, leaf in flat(trained).items()}
    tx = optimiser(recipe, STEPS, shapes, {})

    @jax.jit
    def step(trained, opt):
        updates, opt = tx.update(jax.grad(loss)(trained), opt, trained)
        return optax.apply_updates(trained, updates), opt

    opt = tx.init(trained)
    start = jax.tree.map(np.asarray, trained)
    for _ in range(STEPS):
        trained, opt = step(trained, opt)
    torch_opt = torch.optim.AdamW(theirs.trained.values(), lr=LR, weight_decay=DECAY)
    for _ in range(STEPS):
        torch_opt.zero_grad()
        theirs.loss().backward()
        torch_opt.step()
    assert max(compared(trained, theirs.in_ours()).values()) < SAME_MOVED
    moved = compared(start, theirs.in_ours())
    assert min(moved.values()) > 0.1  # or ten steps would have shown nothing


# what it looks like from inside fmjax


@pytest.fixture(scope="module")
def plain():
    return initialise(SPEC)


def test_a_new_adapter_changes_nothing_and_is_drawn_as_the_authors_draw(plain):
    recipe = Recipe(lora_rank=RANK)
    model = adapters.attached(plain, recipe, 0, None)
    np.testing.assert_array_equal(pooled(model), pooled(plain))
    leaves = flat(model)
    a, b = leaves["blocks.attn.q.lora.a"], leaves["blocks.attn.q.lora.b"]
    assert (a.shape, b.shape) == ((2, 48, RANK), (2, RANK, 48))
    assert not b.any()
    # uniform up to 1/sqrt(inputs)
    assert 0.9 < float(jnp.abs(a).max() * 48**0.5) <= 1
    assert float(a.std() * (3 * 48) ** 0.5) == pytest.approx(1, abs=0.1)
    assert not np.array_equal(a, leaves["blocks.attn.v.lora.a"])
    other = flat(adapters.attached(plain, recipe, 1, None))["blocks.attn.q.lora.a"]
    assert not np.array_equal(a, other)
    outline = flat(adapters.outlined(abstract(SPEC), recipe))
    assert {path: leaf.shape for path, leaf in outline.items()} == {
        path: leaf.shape for path, leaf in leaves.items()
    }
    assert adapters.attached(plain, Recipe(), 0, None) is plain


def test_alpha_is_the_size_of_what_adapters_add(plain):
    def added(alpha: float) -> np.ndarray:
        model = adapters.attached(plain, Recipe(lora_rank=RANK, lora_alpha=alpha), 0, None)
        layer = layers(model)["blocks.attn.q"]
        layer.lora.b[...] = jnp.ones_like(layer.lora.b[...])
        kernel = flat(merged(model))["blocks.attn.q.kernel"]
        return np.asarray(kernel) - np.asarray(flat(plain)["blocks.attn.q.kernel"])

    np.testing.assert_allclose(added(12.0), 2 * added(6.0), rtol=1e-3, atol=1e-6)


def test_stacks_of_blocks_are_split_and_joined_with_their_adapters(ours):
    halves = split_blocks(ours, 1)
    assert apart(pooled(halves), np.asarray(pooled(ours))) < SAME
    assert apart(pooled(merged(halves)), np.asarray(pooled(ours))) < SAME
    joined = flat(join_blocks(halves))
    assert all(np.array_equal(leaf, joined[path]) for path, leaf in flat(ours).items())


@pytest.mark.parametrize(
    ("targets", "rank", "said"),
    [
        (
            r"backbone\.blocks\.\d+\.attn\.query",
            4,
            r"matches no layer; layers are like backbone\.blocks\.0\.attn\.k, backbone\.blocks\.1\.mlp\.up; did you "
            r"mean backbone\.blocks\.\d\.attn\.q",
        ),
        (r"blocks\..*", 4, "matches no layer"),
        (
            r"backbone\..*",
            40,
            r"lora-rank is 40; it must be below 40, the smaller side of backbone\.blocks\.mlp",
        ),
    ],
)
def test_targets_that_are_no_layers_and_ranks_that_save_nothing_are_refused(targets, rank, said):
    with pytest.raises(UsageError, match=said):
        targeted(abstract(SPEC), targets, rank)


def test_every_linear_layer_can_be_a_target():
    spec = small("ViT-B-16-SigLIP")
    shapes = targeted(abstract(spec), r".*", 4)
    kernels = {path for path in param_shapes(spec) if path.endswith(".kernel")}
    assert {f"{path}.kernel" for path in shapes} == kernels - {"patch_embed.kernel"}
    drawn = jax.eval_shape(lambda key: new_adapters(shapes, 4, key), jax.random.key(0))
    adapted = jax.eval_shape(
        lambda model, new: with_adapters(model, new, 1.0), abstract(spec), drawn
    )
    assert flat(adapted).keys() > param_shapes(spec).keys()
    assert flat(jax.eval_shape(merged, adapted)).keys() == param_shapes(spec).keys()


def completed(**fields) -> Recipe:
    recipe = Recipe(lora_rank=4, **fields)
    net = {"backbone": adapters.outlined(abstract(SPEC), recipe)}
    return adapters.completed(recipe, {path: leaf.shape for path, leaf in flat(net).items()})


def test_rates_that_leave_no_adapter_to_train_are_refused():
    rates = ((r"backbone\..*", 0.0),)
    with pytest.raises(UsageError, match=r"leave no adapter of --recipe"):
        completed(rates=rates)
    own = ((r".*norm.*", 0.5),)
    assert completed(rates=own).rates[0] == own[0]
    plain = Recipe(rates=own)
    assert adapters.completed(plain, {}) == plain


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("lora_rank", -1),
        ("lora_alpha", 0.0),
        ("lora_alpha", float("inf")),
        ("lora_targets", "("),
    ],
)
def test_the_flags_of_adapters_have_their_ranges(field, value):
    with pytest.raises(UsageError, match=f"--recipe.{field.replace('_', '-')} is "):
        replace(Recipe(), **{field: value})


def test_without_adapters_a_network_has_no_parameter_more():
    assert not [path for path in param_shapes(fmjax.get_spec("ViT-B-16")) if "lora" in path]
