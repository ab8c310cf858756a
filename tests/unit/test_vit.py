"""The one vision transformer: what its options change, and what they must not."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fmjax
from fmjax.errors import UsageError
from fmjax.models import stack
from fmjax.models.build import abstract, initialise, resized
from fmjax.models.features import Features
from fmjax.models.functional import functional, with_params
from fmjax.models.heads import classifier_head, classifier_input
from fmjax.models.resample import resample_table
from fmjax.models.stack import unrolled
from fmjax.models.surgery import join_blocks, split_blocks, with_classifier, without_classifier
from fmjax.sharding import make_mesh
from fmjax.trees import flat
from tests.support.checkpoints import small

pytestmark = pytest.mark.usefixtures("quick_compiler")

SPECS = ["ViT-B-16", "EVA02-B-16", "EVA02-E-14", "dinov2_vitg14_reg", "nv_dinov2_vitg14_reg4"]


def images(size: tuple[int, int], batch: int = 2) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).standard_normal((batch, *size, 3)), jnp.float32)


def close(a: Features, b: Features, tolerance: float = 1e-5) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(float(jnp.abs(x - y).max()) <= tolerance * float(jnp.abs(x).max()) for x, y in pairs)


@pytest.fixture(scope="module", params=SPECS)
def model(request):
    return random_like(initialise(small(request.param, depth=3), nnx.Rngs(0), num_classes=5))


def random_like(made):
    """A model with every parameter random, layer scales of order one."""
    keys = jax.random.split(jax.random.key(1), len(jax.tree.leaves(made)))
    leaves = [
        x + 0.3 * jax.random.normal(k, x.shape)
        for x, k in zip(jax.tree.leaves(made), keys, strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(made), leaves)


@pytest.mark.parametrize("unroll", [False, True])
def test_a_call_outside_of_a_program_is_compiled_once(unroll):
    spec = small("dinov2_vitg14_reg", depth=2)
    model, pictures = initialise(spec, nnx.Rngs(0), unroll=unroll), images(spec.image_size)
    compiled = []
    model(pictures)
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name)
    )
    try:
        model(pictures)
    finally:
        jax.monitoring.clear_event_listeners()
    assert [name for name in compiled if "backend_compile" in name] == []


def test_features_have_the_shapes_they_promise(model):
    spec, patch = model.spec, model.spec.patch_size
    out = model(images((2 * patch, 5 * patch)))
    assert out.patches.shape == (2, 2, 5, spec.width)
    assert out.cls.shape == (2, spec.width)
    assert out.pooled.shape == (2, spec.embed_dim or spec.width)
    assert out.logits.shape == (2, 5)
    registers = None if out.registers is None else out.registers.shape
    assert registers == ((2, 4, spec.width) if spec.num_registers else None)
    assert out.summary is None


OPTIONS = [
    {"unroll": True},
    {"remat": "full"},
    {"remat": "dots"},
    {"unroll": True, "remat": "full"},
]


@pytest.mark.parametrize("option", OPTIONS)
def test_how_blocks_run_changes_neither_outputs_nor_gradients(model, option):
    def value_and_gradient(m):
        apply, params = functional(m)
        x = images(model.spec.image_size)
        return jax.jit(jax.value_and_grad(lambda p: (apply(p, x).logits ** 2).sum()))(params)

    other = with_params(initialise(model.spec, None, num_classes=5, **option), functional(model)[1])
    (value, gradient), (other_value, other_gradient) = (
        value_and_gradient(model),
        value_and_gradient(other),
    )
    assert float(other_value) == pytest.approx(float(value), rel=1e-5)
    for path, expected in flat(gradient).items():
        scale = float(jnp.abs(flat(gradient)[path.replace("k.bias", "q.bias")]).max())
        assert float(jnp.abs(flat(other_gradient)[path] - expected).max()) <= 1e-4 * scale, path


def test_blocks_are_unrolled_where_it_is_left_to_devices_that_are_no_cpus(monkeypatch):
    one, eight, split = make_mesh(devices=jax.devices()[:1]), make_mesh(), make_mesh(1, 8)
    for mesh in (None, one, eight, split):
        assert not unrolled("auto", mesh, depth=24, remat="auto")
        # what is asked for is done anywhere
        assert unrolled(True, mesh, depth=100, remat="full")

    gpu = SimpleNamespace(platform="gpu")
    monkeypatch.setattr("fmjax.models.stack.first_device", lambda mesh: gpu)
    for mesh in (None, one, eight, split):
        assert unrolled("auto", mesh, depth=48, remat="auto")
        assert not unrolled("auto", mesh, depth=49, remat="auto")
        assert not unrolled(False, mesh, depth=1, remat="auto")
        # who splits parameters and computes blocks again has little memory
        assert unrolled("auto", mesh, depth=24, remat="full") is (mesh is not split)


def test_what_unrolled_blocks_compute_again_is_not_found_to_be_the_same():
    """Within one program XLA would find what both passes compute, and keep it, unless it is prevented."""

    def barriers(**options: Any) -> int:
        apply, params = functional(initialise(small("ViT-B-16"), None, **options))
        x = images((64, 64))
        gradient = jax.jit(jax.grad(lambda p: (apply(p, x).pooled ** 2).sum()))
        return gradient.lower(params).as_text().count("optimization_barrier")

    assert barriers(unroll=True, remat="full") > 0
    assert barriers(unroll=True, remat="dots") == barriers(unroll=False, remat="full") == 0


def test_intermediate_features_end_in_the_models_own(model):
    x = images(model.spec.image_size)
    out, layers = model(x), model.intermediates(x, [0, 2], norm=True)
    assert len(layers) == 2
    assert close(replace(layers[-1], pooled=out.pooled, logits=out.logits), out)
    assert not close(layers[0], layers[1])
    assert len(model.intermediates(x, 3)) == 3
    assert all(f.pooled is None for f in layers)
    for wrong in (0, 4, [2, 1], [3, 1]):
        with pytest.raises(UsageError, match="pass a count from 1 to 3"):
            model.intermediates(x, wrong)


def test_a_call_is_its_stages_one_after_the_other(model):
    x = images(model.spec.image_size)
    tokens, grid, rope = model.embed(x)
    halfway = model.run_blocks(tokens, rope, stop=2)
    ends = model.final_norm(model.run_blocks(halfway, rope, start=2))
    out = model(x)
    assert close(model.features(ends, grid), replace(out, pooled=None, logits=None), 0.0)
    assert grid == model.spec.grid
    assert tokens.shape == (
        2,
        model.spec.num_cls + model.spec.num_registers + grid[0] * grid[1],
        model.spec.width,
    )


def test_intermediate_features_drop_what_a_call_with_that_key_drops(model):
    x, key = images(model.spec.image_size, batch=4), jax.random.key(0)
    dropping = with_params(
        initialise(model.spec, num_classes=5, drop_path=0.5), functional(model)[1]
    )
    out, (first, last) = dropping(x, key), dropping.intermediates(x, [1, 2], norm=True, key=key)
    assert close(last, replace(out, pooled=None, logits=None), 0.0)
    assert not close(first, dropping.intermediates(x, [1], norm=True)[0], 0.0)
    assert close(
        dropping.intermediates(x, [2], norm=True)[0],
        replace(model(x), pooled=None, logits=None),
        0.0,
    )


@pytest.fixture
def float64():
    """Norms and softmax stay in float32: in all of a network's float32, attention that saturates is 2e-4 from exact."""
    jax.config.update("jax_enable_x64", True)
    yield jnp.float64
    jax.config.update("jax_enable_x64", False)


# classes are told by what is pooled or by the class token; blocks are in one stack, or the first two in another
ALONE = [
    ("EVA02-E-14", "cls", {"remat": "full", "drop_path": 0.5}, 2),
    ("C-RADIOv3-B", "pool", {"remat": "dots", "unroll": True}, 0),
    ("dinov3_vits16", "pool", {}, 0),
    ("eva02_tiny_patch14", "cls", {"drop_path": 0.5}, 2),
]


@pytest.mark.parametrize(
    ("name", "seen", "options", "frozen"), ALONE, ids=[name for name, *_ in ALONE]
)
def test_embedding_and_logits_alone_are_those_of_a_call_with_their_gradients(
    name, seen, options, frozen, float64
):
    of = {"num_classes": 5, "classifier": seen, "param_dtype": float64, "dtype": float64}
    model = random_like(initialise(small(name, depth=3), **of, **options))
    model = split_blocks(model, frozen) if frozen else model
    x = images(model.spec.image_size).astype(float64)
    key = jax.random.key(0) if model.drop_path else None

    def whole(model):
        out = model(x, key)
        return (out.logits**2).sum() + (out.pooled**2).sum(), (out.logits, out.pooled)

    def alone(model):
        logits, pooled = model.logits(x, key), model.embedding(x, key)
        return (logits**2).sum() + (pooled**2).sum(), (logits, pooled)

    of_each = jax.jit(lambda model: [jax.grad(f, has_aux=True)(model) for f in (whole, alone)])
    (expected, outputs), (found, others) = of_each(model)
    assert close(outputs, others)
    for path, gradient in flat(expected).items():
        # the true gradient of a bias of k is zero: it is measured by that of q
        scale = float(jnp.abs(flat(expected)[path.replace("k.bias", "q.bias")]).max())
        assert float(jnp.abs(flat(found)[path] - gradient).max()) <= 1e-4 * scale, path


def test_where_a_slice_costs_more_a_network_scans_over_all_of_its_blocks(monkeypatch):
    model = random_like(initialise(small("EVA02-E-14", depth=3)))
    x, key = images(model.spec.image_size), jax.random.key(0)

    def scanned() -> str:
        return str(jax.make_jaxpr(lambda model: model.embedding(x, key))(model))

    # parameters of all blocks but the last are a copy
    assert "length=2" in scanned()
    with monkeypatch.context() as patched:
        patched.setattr(stack, "shortened", lambda *_, **__: False)
        # what was traced before is found again otherwise, and by what comes after this
        stack.run_stack.clear_cache()
        assert "length=2" not in scanned()
        assert close(jax.jit(lambda model: model.embedding(x, key))(model), model(x, key).pooled)
    stack.run_stack.clear_cache()


@pytest.mark.parametrize(
    ("platform", "devices", "depth", "expected"),
    [("cpu", 1, 12, True), ("cpu", 1, 64, False), ("gpu", 1, 12, False), ("gpu", 8, 12, True)],
)
def test_a_slice_is_taken_on_a_cpu_and_over_devices(
    platform, devices, depth, expected, monkeypatch
):
    device = SimpleNamespace(platform=platform)
    monkeypatch.setattr(stack, "first_device", lambda mesh: device)
    assert (
        stack.shortened(make_mesh(devices, devices=jax.devices()[:devices]), depth=depth)
        == expected
    )


def test_a_model_without_a_classifier_has_no_logits():
    model = abstract(small("ViT-B-16"))
    with pytest.raises(UsageError, match="ViT-B-16 has no classifier, so it has no logits; make"):
        model.logits(images(model.spec.image_size))


def test_splitting_blocks_is_the_same_function_and_joins_back(model):
    x, split = images(model.spec.image_size), split_blocks(model, 2)
    assert close(split(x), model(x))
    assert close(split.intermediates(x, [1])[0], model.intermediates(x, [1])[0])
    joined = join_blocks(split)
    assert jax.tree.structure(joined) == jax.tree.structure(model)
    assert all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(joined), jax.tree.leaves(model), strict=True)
    )


@pytest.mark.parametrize("kind", ["pool", "cls_patches"])
def test_a_head_trained_beside_the_backbone_becomes_its_classifier_and_comes_off_again(model, kind):
    x, backbone = images(model.spec.image_size), without_classifier(model)
    head = classifier_head(model.spec, 5, kind, rngs=nnx.Rngs(0))
    head.kernel[...] = jax.random.normal(jax.random.key(0), head.kernel.shape)
    joined = with_classifier(backbone, head, kind)
    assert backbone(x).logits is None
    assert joined.classifier_input == kind
    assert close(
        joined(x),
        replace(model(x), logits=head(classifier_input(backbone.unprojected(x), kind))),
        0.0,
    )
    again = without_classifier(joined)
    assert (
        jax.tree.structure(again)
        == jax.tree.structure(backbone)
        == jax.tree.structure(abstract(model.spec))
    )
    made = abstract(model.spec, num_classes=5, classifier=kind)
    assert jax.tree.structure(joined) == jax.tree.structure(made)
    assert flat(made).keys() == flat(joined).keys()
    assert model.classifier is not None


def test_a_head_of_another_width_is_refused(model):
    head = classifier_head(model.spec, 5, "cls_patches", rngs=nnx.Rngs(0))
    with pytest.raises(UsageError, match="96 inputs is no classifier over 'cls'"):
        with_classifier(model, head, "cls")


def test_a_head_is_the_classifier_that_a_model_makes(model):
    head = classifier_head(model.spec, 5, rngs=nnx.Rngs(0), param_dtype=jnp.bfloat16)
    outline = abstract(model.spec, num_classes=5, param_dtype=jnp.bfloat16).classifier
    assert jax.tree.structure(head) == jax.tree.structure(outline)
    assert [(a.shape, a.dtype) for a in jax.tree.leaves(head)] == [
        (a.shape, a.dtype) for a in jax.tree.leaves(outline)
    ]
    assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(head))


def test_a_table_resized_once_gives_what_tracing_gives(model):
    size = (3 * model.spec.patch_size, 5 * model.spec.patch_size)
    params = flat(functional(model)[1])
    spec = resized(model.spec, size)
    table = resample_table(
        np.asarray(params["pos_embed"]), model.spec.grid, spec.grid, spec.resample
    )
    leaves = [jnp.asarray(table) if path == "pos_embed" else leaf for path, leaf in params.items()]
    other = jax.tree.unflatten(jax.tree.structure(initialise(spec, None, num_classes=5)), leaves)
    assert close(other(images(size)), model(images(size)))


def test_drop_path_needs_a_key_and_keeps_the_mean():
    spec = small("dinov2_vits14", depth=3)
    model = initialise(spec, None, drop_path=0.5)
    model = with_params(model, jax.tree.map(lambda x: x + 0.3, functional(model)[1]))
    x = images(spec.image_size, batch=4)
    assert close(model(x), with_params(initialise(spec), functional(model)[1])(x))
    one, two = model(x, jax.random.key(0)), model(x, jax.random.key(1))
    assert close(one, model(x, jax.random.key(0)), 0.0)
    assert not close(one, two)


def test_compute_dtype_changes_the_computation_and_not_the_parameters():
    spec = small("ViT-B-16")
    model = initialise(spec, None, dtype=jnp.bfloat16)
    out = model(images(spec.image_size))
    assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {jnp.dtype(jnp.float32)}
    assert out.pooled.dtype == jnp.bfloat16
    exact = initialise(spec)(images(spec.image_size)).pooled
    assert float(jnp.abs(out.pooled - exact).max() / jnp.abs(exact).max()) < 0.05


def test_an_image_that_does_not_fit_is_refused_with_the_nearest_sizes():
    model = jax.eval_shape(lambda: initialise(fmjax.get_spec("dinov2_vits14")))
    with pytest.raises(UsageError, match=r"patch of 14, got 225 x 224; nearest: 224 or 238 x 224"):
        jax.eval_shape(
            lambda m, x: m(x), model, jax.ShapeDtypeStruct((1, 225, 224, 3), jnp.float32)
        )


def test_models_are_plain_pytrees_in_both_modes_of_nnx(model):
    x = images(model.spec.image_size)
    expected = jax.jit(lambda m, x: m(x))(model, x)
    graphdef, state = nnx.split(model)
    assert close(nnx.merge(graphdef, state)(x), expected)
    if hasattr(nnx, "set_graph_mode"):
        for mode in (True, False):
            with nnx.set_graph_mode(mode):
                made = initialise(model.spec, nnx.Rngs(0), num_classes=5)
                assert close(
                    jax.jit(lambda m, x: m(x))(with_params(made, functional(model)[1]), x), expected
                )


def test_functional_is_strict_about_its_parameters(model):
    apply, params = functional(model)
    x = images(model.spec.image_size)
    assert close(apply(params, x), model(x))
    with pytest.raises(UsageError, match=r"missing \['norm\.scale'\], unknown \['norm\.weight'\]"):
        apply(
            {**params, "norm": {"weight": params["norm"]["scale"], "bias": params["norm"]["bias"]}},
            x,
        )
    with pytest.raises(UsageError, match="another shape: cls_token"):
        with_params(model, {**params, "cls_token": jnp.zeros(3)})


def test_the_published_size_is_taken_even_if_the_patch_does_not_divide_it():
    spec = replace(
        fmjax.get_spec("ViT-SO400M-14-SigLIP-384"), depth=1, width=48, num_heads=2, mlp_dim=40
    )
    model = initialise(replace(spec, pool_heads=2, pool_mlp_dim=40))
    images = jax.random.normal(jax.random.key(0), (1, 384, 384, 3))
    whole, cut = model(images), model(images[:, :378, :378])
    assert np.array_equal(whole.pooled, cut.pooled)
    with pytest.raises(UsageError, match="nearest"):
        model(images[:, :383])


@pytest.mark.parametrize(
    "name", ["ViT-B-16-SigLIP", "aimv2_large", "C-RADIOv3-B", "tips_s14", "eva02_tiny_patch14"]
)
def test_classifiers_see_what_the_model_has(name):
    spec = small(name)
    images = jnp.ones((1, *[2 * spec.patch_size] * 2, 3))
    for kind in ("pool", "patches"):
        assert initialise(spec, num_classes=3, classifier=kind)(images).logits.shape == (1, 3)
    if not spec.num_cls:
        with pytest.raises(UsageError, match="no class token for classifier='cls'"):
            initialise(spec, num_classes=3, classifier="cls")


def test_summaries_registers_and_patches_are_told_apart():
    spec = small("C-RADIOv3-B")
    out = initialise(spec)(jnp.ones((1, 32, 48, 3)))
    assert out.summary.shape == (1, 4, 48)
    assert out.registers.shape == (1, 4, 48)
    assert out.patches.shape == (1, 2, 3, 48)
    assert out.pooled.shape == (1, 144)
    assert np.array_equal(out.cls, out.summary[:, 0])
