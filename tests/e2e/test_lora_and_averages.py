"""A run with adapters, from its start to its files, and averages of runs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import fmjax
from fmjax.cli import main
from fmjax.config import AverageConfig, MeshConfig, ModelConfig, Recipe
from fmjax.engine.checkpoint import as_saved, save_params
from fmjax.errors import CheckpointError, UsageError
from fmjax.models.build import initialise
from fmjax.models.vit import ViT
from fmjax.programs.average import main as average
from fmjax.programs.dry_run import dry_run
from fmjax.programs.finetune import finetune
from fmjax.trees import flat, nested
from fmjax.weights.export import export
from tests.support import tiny as tiny_network
from tests.support.runs import losses, rows

pytestmark = pytest.mark.usefixtures("quick_compiler")

NAME = "stored_vit.none"
RECIPE = Recipe(
    lr=3e-2,
    warmup_steps=0,
    lora_rank=2,
    lora_alpha=8.0,
    accumulate=2,
    ema=0.9,
    rates=((r".*\.norm1\..*", 0.5),),
)
IMAGES = jnp.asarray(np.random.default_rng(0).standard_normal((4, 8, 8, 3), np.float32))
logits = jax.jit(lambda model: model(IMAGES).logits)


@pytest.fixture(scope="module", autouse=True)
def tiny():
    """A very small network and its preset, known while these tests run."""
    with tiny_network.known() as preset:
        yield preset


@pytest.fixture(scope="module")
def base(tiny, tmp_path_factory) -> Path:
    """The weights that every run begins with."""
    return export(
        initialise(fmjax.get_spec("stored_vit")),
        tmp_path_factory.mktemp("base") / "base.safetensors",
    )


@pytest.fixture(scope="module")
def settings(tiny, base):
    model = ModelConfig(name=NAME, checkpoint=str(base), dtype="float32")
    mesh = MeshConfig(data=2, fsdp=2, tensor=2)
    return replace(
        tiny,
        model=model,
        mesh=mesh,
        steps=4,
        eval_every=2,
        save_every=2,
        export="timm",
        drop_path=0.0,
    )


@pytest.fixture(scope="module")
def run(settings, tmp_path_factory) -> Path:
    """A run with adapters of rank 2 on 8 devices, which also trains the first norms."""
    out = tmp_path_factory.mktemp("runs") / "lora"
    finetune(replace(settings, recipe=RECIPE, out=str(out)))
    return out


@pytest.fixture(scope="module")
def full(settings, tmp_path_factory) -> Path:
    """A run of the same start that trains everything."""
    out = tmp_path_factory.mktemp("runs") / "full"
    finetune(replace(settings, recipe=Recipe(lr=1e-2), out=str(out)))
    return out


def loaded(base: Path, **options) -> ViT:
    return fmjax.load(NAME, checkpoint=base, **options)


def changed(run: Path, base: Path) -> set[str]:
    start, end = flat(loaded(base)), flat(fmjax.restore(run))
    return {path for path, leaf in start.items() if not np.array_equal(leaf, end[path])}


def test_only_what_is_trained_has_moved_and_the_rest_keeps_its_bits(run, base):
    assert changed(run, base) == {
        "blocks.attn.q.kernel",
        "blocks.attn.v.kernel",
        "blocks.norm1.scale",
        "blocks.norm1.bias",
    }
    start, end = flat(loaded(base)), flat(fmjax.restore(run))
    delta = np.asarray(end["blocks.attn.q.kernel"] - start["blocks.attn.q.kernel"])
    sizes = np.linalg.svd(delta, compute_uv=False)
    # of rank 2, but for the rounding of the sum
    assert (sizes[:, 2] < 1e-4 * sizes[:, 0]).all()


def test_the_optimiser_and_the_average_hold_nothing_of_the_base(run):
    step = run / "checkpoints" / "4"
    params, ema, opt = (flat(as_saved(step / item)) for item in ("params", "ema", "opt"))
    trained = {path for path in params if ".lora." in path or "norm1" in path or "head" in path}
    assert ema.keys() == trained
    moments = [path for path in opt if ".mu." in path]
    assert {path.partition(".mu.")[2] for path in moments} == trained
    assert "backbone.blocks.attn.q.kernel" in params.keys() - trained


def test_a_run_goes_on_to_the_same_losses_on_another_mesh(run, settings, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    shutil.rmtree(copy / "checkpoints" / "4")
    finetune(replace(settings, recipe=RECIPE, out=str(copy), mesh=MeshConfig(data=8)))
    found, expected = (np.array([row[1] for row in losses(each)]) for each in (copy, run))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_eval_export_and_restore_give_the_merged_model(run, base, capsys):
    assert main(["eval", str(run), "--step", "4"]) == 0
    [row] = [row for row in rows(run) if row["step"] == 4 and "val_accuracy" in row]
    assert f"accuracy {row['val_accuracy']:.1%}" in capsys.readouterr().out
    exported = fmjax.load(NAME, checkpoint=run / "model.timm.safetensors")
    np.testing.assert_array_equal(logits(exported), logits(fmjax.restore(run)))
    assert "lora" not in "".join(load_file(run / "model.timm.safetensors"))


@pytest.fixture(scope="module")
def adapters(run, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("adapters") / "a.safetensors"
    assert main(["export", str(run), str(path), "--adapters"]) == 0
    return path


def test_adapters_alone_come_back_onto_their_base(adapters, run, base):
    with safe_open(adapters, "numpy") as file:
        facts = json.loads(file.metadata()["facts"])
    assert (facts["base"], facts["rank"], facts["alpha"]) == (NAME, 2, 8.0)
    assert len(facts["classes"]) == 10
    assert len(load_file(adapters)) == 4 + 2 + 2
    whole = loaded(base, adapters=adapters)
    expected = fmjax.restore(run)
    assert whole.classifier_input == expected.classifier_input
    for path, leaf in flat(whole).items():
        np.testing.assert_allclose(leaf, flat(expected)[path], rtol=1e-6, atol=1e-7, err_msg=path)
    half = loaded(base, adapters=adapters, param_dtype=jnp.bfloat16, num_classes=0)
    assert {leaf.dtype for leaf in flat(half).values()} == {jnp.dtype("bfloat16")}
    assert half.classifier is None


def test_predictions_are_those_of_the_merged_average(adapters, run, base, tmp_path):
    pictures = np.random.default_rng(1).integers(0, 256, (3, 8, 8, 3), np.uint8)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    out = tmp_path / "x.jsonl"
    assert main(["predict", str(run), str(tmp_path), "--out", str(out)]) == 0
    model, again = fmjax.restore(run), loaded(base, adapters=adapters)
    assert again.facts == model.facts
    for row, one, other in zip(
        out.read_text().splitlines(),
        model.predict(list(pictures)),
        again.predict(list(pictures)),
        strict=True,
    ):
        assert json.loads(row)["classes"] == list(one.classes) == list(other.classes)
        assert json.loads(row)["probabilities"] == pytest.approx(one.probabilities, abs=1e-5)


def test_adapters_stand_beside_kernels_that_were_trained_too(settings, base, tmp_path):
    both = replace(RECIPE, rates=((r"backbone\.blocks\.\d+\.attn\..*", 0.5),))
    out, path = tmp_path / "both", tmp_path / "a.safetensors"
    finetune(replace(settings, recipe=both, out=str(out)))
    assert main(["export", str(out), str(path), "--adapters"]) == 0
    found, expected = flat(loaded(base, adapters=path)), flat(fmjax.restore(out))
    for name, leaf in found.items():
        np.testing.assert_allclose(leaf, expected[name], rtol=1e-6, atol=1e-7, err_msg=name)


def test_adapters_leave_out_a_classifier_that_is_not_wanted(run, base, tmp_path):
    path = tmp_path / "a.safetensors"
    assert main(["export", str(run), str(path), "--adapters", "--no-classifier"]) == 0
    assert loaded(base, adapters=path).classifier is None
    assert not [name for name in load_file(path) if "classifier" in name]


def test_adapters_are_refused_on_any_other_base(adapters, base, tmp_path):
    start = initialise(fmjax.get_spec("stored_vit"), nnx.Rngs(1))
    other = export(start, tmp_path / "other.safetensors")
    with pytest.raises(
        UsageError, match=r"trained beside other weights than these of stored_vit.none"
    ):
        loaded(other, adapters=adapters)
    with pytest.raises(
        UsageError, match=r"has adapters of 'stored_vit.none', not of 'demo_vit_ti4.fashion_mnist'"
    ):
        fmjax.load("demo_vit_ti4.fashion_mnist", adapters=adapters)
    with pytest.raises(CheckpointError, match="is no file of adapters"):
        loaded(base, adapters=base)


def rewritten(source: Path, target: Path, change) -> Path:
    tensors = load_file(source)
    with safe_open(source, "numpy") as file:
        metadata = file.metadata()
    facts = json.loads(metadata["facts"])
    change(tensors, facts)
    save_file(tensors, target, metadata | {"facts": json.dumps(facts)})
    return target


def renamed(tensors, facts):
    tensors["blocks.attn.w.lora.a"] = tensors.pop("blocks.attn.q.lora.a")


def not_finite(tensors, facts):
    tensors["blocks.attn.q.lora.b"][0, 0, 0] = np.inf


def narrow(tensors, facts):
    facts["rank"] = 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (renamed, r"has 'blocks.attn.w.lora.a' and no 'blocks.attn.w.lora.b'"),
        (not_finite, "blocks.attn.q.lora.b.*finite"),
        (
            narrow,
            r"blocks.attn.q.lora.a is \(2, 16, 2\), and stored_vit.none would take \(2, 16, 3\)",
        ),
        (lambda tensors, facts: facts.update(alpha=-1.0), "no run has"),
        (lambda tensors, facts: facts.pop("digest"), "lacks the field 'digest'"),
        (
            lambda tensors, facts: tensors.update(mask=np.zeros(3, np.float32)),
            r"mask is \(3,\), .* \(\)",
        ),
    ],
)
def test_a_damaged_file_of_adapters_is_one_sentence(adapters, base, tmp_path, change, said):
    path = rewritten(adapters, tmp_path / "b.safetensors", change)
    with pytest.raises(fmjax.FmjaxError, match=said):
        loaded(base, adapters=path)


def test_a_run_without_adapters_has_none_to_export(full, run, tmp_path, capsys):
    target = str(tmp_path / "a.safetensors")
    assert main(["export", str(full), target, "--adapters"]) == 2
    assert "was trained without adapters" in capsys.readouterr().err
    assert main(["export", str(run), target, "--adapters", "--dialect", "timm"]) == 2
    assert "--dialect is of whole models" in capsys.readouterr().err
    assert not Path(target).exists()


def test_the_lines_at_the_start_say_what_adapters_there_are(settings, tmp_path, capsys):
    finetune_dry = replace(settings, recipe=RECIPE, out=str(tmp_path / "no"))
    dry_run(finetune_dry)
    said = capsys.readouterr().out
    assert "lora    rank 2, alpha 8, beside blocks.attn.q, blocks.attn.v: 256 parameters" in said
    assert not (tmp_path / "no").exists()


def averaged(sources, out: Path, **options) -> dict[str, np.ndarray]:
    average([str(source) for source in sources], AverageConfig(out=str(out), **options))
    return {path: np.asarray(leaf) for path, leaf in flat(fmjax.restore(out)).items()}


@pytest.mark.parametrize("mesh", [MeshConfig(data=8), MeshConfig(data=2, fsdp=2, tensor=2)])
def test_an_average_has_the_weighted_mean_of_merged_parameters(run, full, tmp_path, mesh):
    found = averaged([run, full], tmp_path / "a", weights=(0.25, 0.75), mesh=mesh)
    one, two = flat(fmjax.restore(run)), flat(fmjax.restore(full))
    assert found.keys() == one.keys()
    for path, leaf in found.items():
        expected = 0.25 * np.asarray(one[path]) + 0.75 * np.asarray(two[path])
        np.testing.assert_allclose(leaf, expected, rtol=1e-6, atol=1e-7, err_msg=path)


def test_all_of_one_run_is_that_run_to_the_bit_and_a_run_like_others(run, full, tmp_path, capsys):
    out = tmp_path / "a"
    found = averaged([run, full], out, weights=(1.0, 0.0))
    for path, leaf in flat(fmjax.restore(run)).items():
        np.testing.assert_array_equal(found[path], leaf)
    record = json.loads((out / "average.json").read_text())
    assert [(each["source"], each["weight"]) for each in record["sources"]] == [
        (str(run), 1.0),
        (str(full), 0.0),
    ]
    capsys.readouterr()
    assert main(["ckpt", "ls", str(out)]) == 0
    assert "parameters only" in capsys.readouterr().out
    assert main(["ckpt", "verify", str(out)]) == 0
    assert main(["eval", str(out)]) == 0
    assert main(["export", str(out), str(tmp_path / "a.safetensors")]) == 0
    assert main(["average", str(run), str(full), "--out", str(out)]) == 2
    assert f"--out '{out}' exists" in capsys.readouterr().err


def test_wise_ft_lies_between_the_start_and_the_run_whose_head_it_keeps(run, base, tmp_path):
    found = averaged([NAME, run], tmp_path / "a", weights=(0.5, 0.5))
    start, end = flat(loaded(base)), flat(fmjax.restore(run))
    for path, leaf in found.items():
        one = np.asarray(start.get(path, end[path]))
        np.testing.assert_allclose(
            leaf, 0.5 * one + 0.5 * np.asarray(end[path]), rtol=1e-6, atol=1e-7
        )


def spoilt(full: Path, copy: Path) -> Path:
    """A run that gives every image what speaks against it."""
    shutil.copytree(full, copy)
    shutil.rmtree(copy / "checkpoints")
    (copy / "metrics.jsonl").unlink()
    params = flat(as_saved(full / "checkpoints" / "4" / "params"))
    wrong = {path: -leaf if path.startswith("head.") else leaf for path, leaf in params.items()}
    save_params(copy, 4, nested(wrong))
    return copy


def test_a_greedy_soup_takes_in_what_does_not_harm_and_nothing_else(full, tmp_path, capsys):
    bad, same = spoilt(full, tmp_path / "bad"), shutil.copytree(full, tmp_path / "same")
    out = tmp_path / "soup"
    average([str(each) for each in (bad, full, same)], AverageConfig(out=str(out), greedy=True))
    record = json.loads((out / "average.json").read_text())
    assert [each["source"] for each in record["sources"]] == [str(full), str(same)]
    assert [each["weight"] for each in record["sources"]] == [0.5, 0.5]
    score = record["scores"]["accuracy"]
    assert score == record["sources"][0]["score"] > 0.1
    capsys.readouterr()
    assert main(["eval", str(out)]) == 0
    assert f"accuracy {score:.1%}" in capsys.readouterr().out


def edited(run: Path, copy: Path, name: str, old: str, new: str) -> Path:
    shutil.copytree(run, copy)
    text = (copy / name).read_text()
    assert old in text
    (copy / name).write_text(text.replace(old, new, 1))
    return copy


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        (
            "spec.json",
            '"norm_eps": 1e-06',
            '"norm_eps": 1e-05',
            "differ in the model's norm_eps: 1e-05 and 1e-06",
        ),
        ("classes.json", '"3"', '"three"', "differ in class 3: 'three' and '3'"),
        ("classes.json", '"3",', "", "differ in the number of classes: 9 and 10"),
        ("config.json", '"pool"', '"cls"', "differ in task.classifier: 'cls' and 'pool'"),
        (
            "config.json",
            '"pretrained"',
            '"random"',
            "differ in model.init: 'random' and 'pretrained'",
        ),
    ],
)
def test_runs_that_are_not_of_one_thing_are_refused_with_the_difference(
    full, tmp_path, name, old, new, said
):
    other = edited(full, tmp_path / "other", name, old, new)
    with pytest.raises(UsageError, match=said):
        averaged([full, other], tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("sources", "options", "said"),
    [
        (["FULL", "FULL"], {}, "they must be different runs"),
        ([NAME, "demo_vit_ti4.fashion_mnist"], {}, "they must be different runs"),
        (
            ["demo_vit_ti4.fashion_mnist", "FULL"],
            {},
            "began with stored_vit.none, not with demo_vit_ti4",
        ),
        (["FULL", "nowhere"], {}, "nowhere is not the folder of a run"),
        (["FULL", NAME], {"weights": (0.0, 1.0)}, "leaves out every run"),
        (["FULL", NAME], {"weights": (1.0,)}, "has 1 numbers, and there are 2 sources"),
        (["FULL", NAME], {"greedy": True}, "stored_vit.none has no score"),
    ],
)
def test_sources_and_weights_that_make_no_average_are_refused(
    full, tmp_path, sources, options, said
):
    named = [source.replace("FULL", str(full)) for source in sources]
    with pytest.raises(fmjax.FmjaxError, match=said):
        averaged(named, tmp_path / "a", **options)
    assert not (tmp_path / "a").exists()


def test_greed_among_runs_with_other_held_out_images_is_refused(full, tmp_path):
    other = shutil.copytree(full, tmp_path / "other")
    (other / "split.jsonl").unlink()
    with pytest.raises(UsageError, match="other has other held-out images than"):
        averaged([full, other], tmp_path / "a", greedy=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"weights": (0.5, 0.4)}, "add up to 1"),
        ({"weights": (1.5, -0.5)}, "0 or more"),
        ({"weights": (0.5, 0.5), "greedy": True}, "greed weighs"),
        ({"batch_size": 0}, "--batch-size is 0"),
    ],
)
def test_the_flags_of_an_average_have_their_ranges(options, said):
    with pytest.raises(UsageError, match=said):
        AverageConfig(**options)


def test_one_run_is_no_average(full, capsys):
    assert main(["average", str(full)]) == 2
    assert "needs two runs or more" in capsys.readouterr().err
