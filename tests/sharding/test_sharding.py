"""One and eight devices: the same losses, an eighth of the memory, slices instead of wholes."""

from __future__ import annotations

import re
from dataclasses import replace

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

import fmjax
import weights_conversion as wc
from fmjax.config.data import DataConfig
from fmjax.config.model import ModelConfig
from fmjax.config.recipe import Recipe
from fmjax.config.run import MeshConfig, RunConfig
from fmjax.errors import UsageError
from fmjax.models.build import abstract, initialise, leaf_shardings, param_shapes
from fmjax.models.functional import functional
from fmjax.programs.finetune import check_batch
from fmjax.sharding import AXES, batch_sharding, make_mesh
from fmjax.trees import flat
from fmjax.weights.load import fill, load
from tests.support.checkpoints import random_file, save, small
from tests.support.runs import Started, started

pytestmark = pytest.mark.usefixtures("quick_compiler")

DEVICES = jax.devices()
MESHES = {
    "1": MeshConfig(data=1),
    "8 data": MeshConfig(data=8),
    "2 data x 4 fsdp": MeshConfig(data=2, fsdp=4),
    "2 data x 2 fsdp x 2 tensor": MeshConfig(data=2, fsdp=2, tensor=2),
}
CONFIG = RunConfig(
    model=ModelConfig(name="demo_vit_ti4.fashion_mnist", init="random", dtype="float32"),
    data=DataConfig(crop_scale=0.7, flip=0.0),
    recipe=Recipe(lr=1e-3, warmup_steps=2, layer_decay=0.8),
    steps=6,
    batch_size=16,
)


def mesh_of(name: str):
    sizes = MESHES[name]
    count = abs(sizes.data * sizes.fsdp * sizes.tensor)
    return make_mesh(sizes.data, sizes.fsdp, sizes.tensor, devices=DEVICES[:count])


def run_on(name: str, config: RunConfig = CONFIG) -> Started:
    mesh = mesh_of(name)
    if "tensor" not in name:
        return started(config, mesh)
    # tensor parallelism needs heads and hidden units that divide: two heads instead of three
    spec = replace(fmjax.get_spec("demo_vit_ti4"), num_heads=2)
    return started(config, mesh, initialise(spec, None, mesh=mesh, dtype=np.float32))


def losses(name: str, config: RunConfig = CONFIG) -> list[float]:
    return run_on(name, config).losses(config.steps)


@pytest.fixture(scope="module")
def one_device() -> list[float]:
    return losses("1")


@pytest.mark.parametrize("name", ["8 data", "2 data x 4 fsdp"])
def test_losses_do_not_depend_on_the_mesh(name, one_device):
    assert one_device[-1] < one_device[0]
    assert losses(name) == pytest.approx(one_device, rel=1e-5)


def test_losses_do_not_depend_on_tensor_parallelism():
    spec = replace(fmjax.get_spec("demo_vit_ti4"), num_heads=2)
    rng = np.random.default_rng(0)
    images, weights = (
        rng.standard_normal((8, 28, 28, 3), np.float32),
        rng.standard_normal((8, 96), np.float32),
    )
    found = []
    for name in ("1", "2 data x 2 fsdp x 2 tensor"):
        mesh = mesh_of(name)
        apply, params = functional(initialise(spec, None, num_classes=10, mesh=mesh))
        out = jax.jit(
            lambda p, x, apply=apply: jax.value_and_grad(
                lambda p: (apply(p, x).pooled * weights).sum()
            )(p)
        )(params, jax.device_put(images, batch_sharding(mesh)))
        found.append(jax.tree.map(np.asarray, out))
    (one, one_gradient), (eight, eight_gradient) = found
    assert eight == pytest.approx(one, rel=1e-5)
    for path, gradient in flat(one_gradient).items():
        scale = np.abs(flat(one_gradient)[path.replace("k.bias", "q.bias")]).max()
        assert np.abs(flat(eight_gradient)[path] - gradient).max() <= 5e-5 * max(scale, 1e-3), path


def test_accumulation_does_not_change_the_losses(one_device):
    parts = replace(CONFIG, recipe=replace(CONFIG.recipe, accumulate=2))
    assert losses("1", parts) == pytest.approx(one_device, rel=1e-5)
    assert losses("8 data", parts) == pytest.approx(one_device, rel=1e-5)


def compiled_step(name: str):
    run = run_on(name)
    return run.functions.step.lower(run.state, run.batch()).compile()


def test_compiled_step_holds_a_quarter_of_the_state_on_each_of_four_fsdp_devices():
    whole, split = compiled_step("1"), compiled_step("2 data x 4 fsdp")
    sizes = [c.memory_analysis().argument_size_in_bytes for c in (whole, split)]
    assert sizes[1] < 0.3 * sizes[0]


def test_every_large_parameter_and_its_moments_are_split():
    state = run_on("2 data x 4 fsdp").state
    for leaf in jax.tree.leaves((state.params, state.opt)):
        if leaf.size > 10_000:
            assert leaf.addressable_shards[0].data.size == leaf.size // 4


def test_weights_are_gathered_and_activations_are_not():
    text = compiled_step("2 data x 4 fsdp").as_text()
    gathered = re.findall(r"= \w+\[([\d,]*)\][^=]*all-gather\(", text)
    assert gathered
    tokens = 50
    assert not [
        shape for shape in gathered if str(tokens) in shape.split(",") and shape.count(",") >= 2
    ]


def test_frozen_blocks_have_no_moments():
    still = (
        (r"backbone\.blocks\.[0-3]\..*", 0.0),
        (r"backbone\.(patch_embed\..*|cls_token|pos_embed)", 0.0),
    )
    run = run_on("1", replace(CONFIG, recipe=replace(CONFIG.recipe, rates=still)))
    before = {path: np.asarray(leaf) for path, leaf in flat(run.state.params).items()}
    moments = sum(leaf.size for leaf in jax.tree.leaves(run.state.opt))
    total = sum(leaf.size for leaf in before.values())
    assert moments < 2 * total * 0.4
    run.losses(3)
    after = {path: np.asarray(leaf) for path, leaf in flat(run.state.params).items()}
    same = {path for path in before if np.array_equal(before[path], after[path])}
    assert same == run.plan.freeze.paths


def test_loading_puts_only_its_slice_on_each_device(tmp_path, monkeypatch):
    name = "ViT-B-16.openai"
    monkeypatch.setattr(
        "fmjax.weights.load.names.get_spec", lambda _: replace(small("ViT-B-16"), name="ViT-B-16")
    )
    path = save(tmp_path / "x.safetensors", random_file(small("ViT-B-16"), "open_clip"))
    whole = load(name, checkpoint=path)
    split = load(name, checkpoint=path, mesh=make_mesh(data=2, fsdp=4))
    for (key, one), (_, eight) in zip(flat(whole).items(), flat(split).items(), strict=True):
        assert np.array_equal(one, eight), key
    kernel = flat(split)["blocks.mlp.up.kernel"]
    assert kernel.addressable_shards[0].data.shape == (2, 12, 40)


@pytest.mark.parametrize(
    "name", ["ViT-B-16", "ViT-B-16-SigLIP", "dinov3_vits16plus", "C-RADIOv3-B", "aimv2_large"]
)
def test_each_of_eight_devices_gets_an_eighth_and_the_host_no_more(name):
    spec, largest = small(name), {}
    spec = replace(spec, embed_dim=0)  # a tower without projection: every large parameter is split
    values = {path: np.ones(shape, np.float32) for path, shape in param_shapes(spec).items()}

    def watched(path: str, array: np.ndarray) -> wc.LazyTensor:
        def read(index: wc.Index) -> np.ndarray:
            largest[path] = max(largest.get(path, 0), array[index].size)
            return array[index]

        return wc.LazyTensor(array.shape, array.dtype, read)

    params = {path: watched(path, array) for path, array in values.items()}
    model = fill(abstract(spec), params, mesh=make_mesh(data=1, fsdp=8))
    for path, leaf in flat(model).items():
        if path.endswith("kernel") or path in ("pos_embed", "registers", "summary_tokens"):
            assert leaf.addressable_shards[0].data.size == leaf.size // 8, path
            assert largest[path] == leaf.size // 8, path


def test_a_mesh_that_does_not_fit_says_so():
    with pytest.raises(UsageError, match="does not fit 8 devices"):
        make_mesh(data=3, fsdp=2)
    with pytest.raises(UsageError, match=r"of data \(open\) x fsdp 3 does not fit 8 devices"):
        make_mesh(data=-1, fsdp=3)
    with pytest.raises(UsageError, match="of data 1 does not fit 8 devices"):
        make_mesh(data=1)
    with pytest.raises(UsageError, match="of data 2 x tensor 2 does not fit 1 device;"):
        make_mesh(data=2, tensor=2, devices=DEVICES[:1])
    model = jax.eval_shape(lambda: initialise(small("ViT-B-16")))
    with pytest.raises(
        UsageError,
        match=r"blocks\.attn\.k\.kernel \(2, 48, 48\): dimension 48 .* axis 'fsdp'; set --mesh\.fsdp",
    ):
        leaf_shardings(model, make_mesh(data=1, fsdp=5, devices=DEVICES[:5]))
    with pytest.raises(UsageError, match=r"--batch-size 12 does not divide over 8 devices"):
        check_batch(replace(CONFIG, batch_size=12), make_mesh())


@pytest.mark.parametrize(
    ("axes", "told"),
    [
        (("data", "fsdp"), r"data \(Auto\), fsdp \(Auto\), where"),
        (("tensor", "fsdp", "data"), r"tensor \(Auto\), fsdp \(Auto\), data \(Auto\), where"),
    ],
)
def test_a_mesh_of_other_axes_says_what_makes_one(axes, told):
    mesh = jax.make_mesh((8,) + (1,) * (len(axes) - 1), axes, (AxisType.Auto,) * len(axes))
    with pytest.raises(UsageError, match=f"^the mesh has the axes {told} they must be"):
        initialise(small("ViT-B-16"), mesh=mesh)


def test_a_mesh_of_explicit_axes_says_what_makes_one():
    mesh = jax.make_mesh((8, 1, 1), AXES, (AxisType.Explicit,) * 3)
    with pytest.raises(UsageError, match=r"data \(Explicit\), .* make it by fmjax\.make_mesh\("):
        initialise(small("ViT-B-16"), mesh=mesh)
