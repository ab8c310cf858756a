"""`fmjax from-tao`: what a spec says is in the preset or is named, and the preset is one that runs."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fmjax import names
from fmjax.cli import main
from fmjax.config import ImagesConfig, RunConfig
from fmjax.config.presets import load_preset
from fmjax.data.sources import open_source
from fmjax.errors import DataError, UsageError
from fmjax.programs import from_tao
from fmjax.programs.tao import release5, release6
from fmjax.programs.tao.common import Asked
from fmjax.programs.tao.fields import BACKBONES, RELEASE_5, RELEASE_6, Field, field_of
from fmjax.programs.tao.preset import Preset
from fmjax.programs.tao.spec import Spec, read_spec
from tests.support import tao_page
from tests.support.planted import clean

RELEASES = {6: (release6.translate, RELEASE_6), 5: (release5.translate, RELEASE_5)}
SIX = """
results_dir: /results
train:
  seed: 47
  num_epochs: 25
  num_gpus: 4
  num_nodes: 2
  checkpoint_interval: 10
  validation_interval: 2
  enable_ema: True
  ema_decay: 0.9992
  clip_grad_norm: 1.5
  precision: bf16
  optim: {optim: adamw, lr: 5e-3, policy: cosine, weight_decay: 0.05, warmup_epochs: 5, betas: [0.8, 0.99],
          skip_names: [norm, bias]}
model:
  backbone: {type: c_radio_v2_vit_base_patch16, pretrained_backbone_path: radio.pth, freeze_backbone: True}
  head: {type: TAOLinearClsHead, topk: [1, 5], loss: {type: CrossEntropyLoss, label_smooth_val: 0.1}}
dataset:
  root_dir: /data
  batch_size: 16
  workers: 6
  img_size: 224
  train_dataset: {images_dir: /data/train}
  val_dataset: {images_dir: /data/val}
  augmentation:
    random_flip: {enable: True, hflip_probability: 0.4, vflip_probability: 0.1}
    random_rotate: {enable: True, rotate_probability: 0.3, angle_list: [90, 180, 270]}
    random_color: {enable: True, brightness: 0.4, contrast: 0.3, saturation: 0.2, hue: 0.1}
    random_erase: {enable: True, erase_probability: 0.25}
    random_aug: {enable: True}
    with_scale_random_crop: {enable: False, scale_range: [1, 1.3]}
    with_random_crop: True
    with_random_blur: False
    mixup_cutmix: True
    mixup_alpha: 0.6
"""
FIVE = """
results_dir: /results
dataset:
  data:
    samples_per_gpu: 64
    workers_per_gpu: 3
    train:
      data_prefix: /data/train
      classes: /data/classes.txt
      pipeline:
        - {type: RandomResizedCrop, size: 224}
        - {type: RandomFlip, flip_prob: 0.4, direction: horizontal}
        - {type: ColorJitter, brightness: 0.4, contrast: 0.3, saturation: 0.2}
        - {type: RandomErasing, erase_prob: 0.25}
        - {type: AutoAugment}
    val: {data_prefix: /data/val}
model:
  backbone: {type: open_clip, custom_args: {model_name: ViT-B-32}, freeze: true, pretrained: laion2b_s34b_b79k}
  init_cfg: {checkpoint: null}
  head: {type: LinearClsHead, num_classes: 10, loss: {type: LabelSmoothLoss, label_smooth_val: 0.1}}
  train_cfg: {augments: [{type: BatchMixup, alpha: 0.2}, {type: CutMix, alpha: 1.0}]}
train:
  num_gpus: 2
  exp_config: {manual_seed: 49, deterministic: true}
  train_config:
    optimizer: {type: AdamW, lr: 1e-3, weight_decay: 0.02, betas: [0.8, 0.99]}
    lr_config: {policy: CosineAnnealing, min_lr: 1e-5, warmup: linear, warmup_iters: 10, warmup_by_epoch: False}
    optimizer_config: {grad_clip: {max_norm: 5.0}}
    runner: {max_epochs: 10}
    checkpoint_config: {interval: 2}
    logging: {interval: 50}
    evaluation: {interval: 1}
    custom_hooks: [{type: EMAHook, momentum: 4e-5}]
"""
TEXTS = {6: SIX, 5: FIVE}


def spec_of(text: str, changes: dict[str, Any] | None = None) -> Spec:
    """A spec with some fields set to other values."""
    values = yaml.safe_load(text)
    for path, value in (changes or {}).items():
        *heads, last = path.split(".")
        here = values
        for head in heads:
            here = here.setdefault(head, {})
        here[last] = value
    from fmjax.programs.tao.spec import _flat

    return Spec("spec.yaml", dict(_flat(values, "")))


def translated(release: int, changes: dict[str, Any] | None = None) -> Preset:
    translate, _ = RELEASES[release]
    preset = Preset()
    translate(spec_of(TEXTS[release], changes), preset, Asked(images=1000))
    return preset


def test_every_value_of_a_spec_of_6_is_where_it_belongs():
    # 8 devices: 125 images each, in batches of 16
    assert translated(6).values == {
        "model.name": "C-RADIOv2-B.nvidia",
        "model.checkpoint": "radio.pth",
        "model.image_size": (224, 224),
        "model.dtype": "bfloat16",
        "recipe.rates": ((r"backbone\..*", 0.0),),
        "task.label_smoothing": 0.1,
        "data.source": "folder:/data",
        "data.threads": 6,
        "data.flip": 0.4,
        "data.vertical_flip": 0.1,
        "data.quarter_turn": 0.3,
        "data.color_jitter": (0.4, 0.3, 0.2, 0.1),
        "data.erase": 0.25,
        "data.erase_fill": "const",
        "data.rand_ops": 2,
        "data.rand_magnitude": 5.0,
        "data.rand_std": 1.0,
        "data.crop_scale": 0.08,
        "task.mixup": 0.6,
        "task.cutmix": 0.6,
        "task.mix_prob": 1.0,
        "batch_size": 128,
        "steps": 25 * 8,
        "save_every": 80,
        "eval_every": 16,
        "recipe.lr": 0.005,
        "recipe.optimiser": "adamw",
        "recipe.b1": 0.8,
        "recipe.b2": 0.99,
        "recipe.weight_decay": 0.05,
        "recipe.clip_norm": 1.5,
        "recipe.ema": 0.9992,
        "recipe.ema_warmup": False,
        "recipe.warmup_steps": 40,
        "recipe.schedule": "cosine",
        "recipe.final_lr": 0.0,
        "out": "/results",
        "seed": 47,
    }


def test_every_value_of_a_spec_of_5_is_where_it_belongs():
    preset = translated(5)
    assert preset.values == {
        "model.name": "ViT-B-32.laion2b_s34b_b79k",
        "model.image_size": (224, 224),
        "recipe.rates": ((r"backbone\..*", 0.0),),
        "task.label_smoothing": 0.1,
        "data.source": "folder:/data",
        "data.threads": 3,
        "data.classes": "/data/classes.txt",
        "data.crop_scale": 0.08,
        "data.flip": 0.4,
        "data.color_jitter": (0.4, 0.3, 0.2, 0.0),
        "data.erase": 0.25,
        "data.erase_fill": "const",
        "task.mixup": 0.2,
        "task.cutmix": 1.0,
        "batch_size": 128,
        # the last batch, of 104 images, is left out
        "steps": 10 * 7,
        "save_every": 14,
        "eval_every": 7,
        "log_every": 50,
        "recipe.optimiser": "adamw",
        "recipe.b1": 0.8,
        "recipe.b2": 0.99,
        "recipe.weight_decay": 0.02,
        "recipe.lr": 0.001,
        "recipe.clip_norm": 5.0,
        "recipe.decay": ((r".*", 1.0),),
        "recipe.ema": 0.99996,
        "recipe.ema_warmup": False,
        "recipe.warmup_steps": 10,
        "recipe.schedule": "cosine",
        "recipe.final_lr": 0.01,
        "out": "/results",
        "seed": 49,
        "deterministic": True,
    }
    assert preset.absent == ["dataset.data.train.pipeline: AutoAugment"]


# what each mapped field may be instead, and the fields that have to be so that it counts
OTHERS: dict[int, dict[str, Any]] = {
    6: {
        "model.backbone.type": "vit_l_14_siglip_clipa_224",
        "dataset.root_dir": None,  # by a file of its own, below
        "dataset.augmentation.random_rotate.angle_list": [45, 90, 135],
        "dataset.augmentation.random_aug.enable": False,
        "dataset.augmentation.mean": [0.5, 0.5, 0.5],
        "dataset.augmentation.std": [0.5, 0.5, 0.5],
        "train.cudnn.deterministic": True,
        "train.precision": "fp16",
        "train.optim.optim": "sgd",
        "train.optim.policy": "linear",
        "train.optim.betas": [0.7, 0.9],
        "train.optim.skip_names": [],
        "train.optim.lr": 1e-4,
        "train.optim.policy_params.milestones": [7],
        "train.results_dir": "/elsewhere",
        "dataset.train_dataset.images_dir": "/other/train",
        "dataset.val_dataset.images_dir": "/other/val",
        "model.backbone.pretrained_backbone_path": "other.pth",
    },
    5: {
        "model.backbone.type": "EVA02-L-14",
        "model.backbone.custom_args.model_name": "ViT-B-16",
        "model.backbone.pretrained": "openai",
        "model.init_cfg.checkpoint": "x.pth",
        "train.train_config.load_from": "x.pth",
        "model.head.type": "LogisticRegressionHead",
        "model.head.loss.type": "CrossEntropyLoss",
        "model.train_cfg.augments": [],
        "dataset.data.train.data_prefix": "/other/train",
        "dataset.data.val.data_prefix": "/other/val",
        "dataset.data.train.classes": "/other.txt",
        "dataset.data.train.pipeline": [{"type": "RandomFlip", "prob": 0.1, "direction": "vertical"}],
        "train.exp_config.deterministic": False,
        "train.results_dir": "/elsewhere",
        "train.train_config.optimizer.type": "SGD",
        "train.train_config.optimizer.betas": [0.7, 0.9],
        "train.train_config.optimizer.lr": 1e-4,
        "train.train_config.lr_config.min_lr": 0.0,
        "train.train_config.lr_config.policy": "step",
        "train.train_config.lr_config.type": None,  # what later releases call the policy
        "train.train_config.lr_config.warmup_by_epoch": True,
        "train.train_config.lr_config.step": [3, 6],
        "train.train_config.custom_hooks": [],
    },
}  # fmt: skip
BESIDE: dict[str, dict[str, Any]] = {
    "train.optim.momentum": {"train.optim.optim": "sgd"},
    "train.optim.policy_params.step_size": {"train.optim.policy": "step"},
    "train.optim.policy_params.gamma": {"train.optim.policy": "multistep"},
    "train.optim.policy_params.milestones": {"train.optim.policy": "multistep"},
    "dataset.augmentation.with_scale_random_crop.enable": {"dataset.augmentation.with_random_crop": False},
    "dataset.augmentation.with_scale_random_crop.scale_range": {
        "dataset.augmentation.with_random_crop": False, "dataset.augmentation.with_scale_random_crop.enable": True
    },
    "model.backbone.type": {"model.backbone.pretrained": None},
    "model.backbone.custom_args.model_name": {"model.backbone.pretrained": None},
    "train.train_config.optimizer.momentum": {"train.train_config.optimizer.type": "SGD"},
    "train.train_config.lr_config.step": {"train.train_config.lr_config.policy": "step"},
    "train.train_config.lr_config.gamma": {
        "train.train_config.lr_config.policy": "step", "train.train_config.lr_config.step": [5]
    },
}  # fmt: skip
MAPPED = [
    (release, row.path) for release, (_, rows) in RELEASES.items() for row in rows if row.mapped
]


def other(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, list):
        return [each / 2 for each in value]
    return (
        value + 1
        if isinstance(value, int)
        else f"{value}/other"
        if isinstance(value, str)
        else value / 2
    )


@pytest.mark.parametrize(("release", "path"), MAPPED)
def test_every_field_that_is_said_to_be_mapped_changes_the_preset(release, path):
    if OTHERS[release].get(path, "") is None:
        return
    beside = (
        BESIDE.get(path, {})
        if release == 6 or path.startswith(("train.train_config", "model"))
        else {}
    )
    if release == 6 and path == "model.backbone.type":
        beside = {}
    before = spec_of(TEXTS[release], beside)
    given = before.fields.get(path, 1.7)
    new = OTHERS[release][path] if path in OTHERS[release] else other(given)
    changed = translated(release, {**beside, path: new})
    plain = translated(release, beside)
    assert (changed.values, changed.differs, changed.absent) != (
        plain.values,
        plain.differs,
        plain.absent,
    )


def test_a_list_of_classes_counts_where_it_is_there(tmp_path):
    (tmp_path / "classes.txt").write_text("b\na\n")
    preset = translated(6, {"dataset.root_dir": str(tmp_path)})
    assert preset.values["data.classes"] == str(tmp_path / "classes.txt")
    assert "data.classes" not in translated(6).values


def test_later_names_of_release_5_are_taken_too():
    changes = {"train.train_config.lr_config": {"type": "MultiStepLR", "step": [5], "gamma": 0.2},
               "dataset.data.train.pipeline": [{"type": "RandomResizedCrop", "scale": 196},
                                               {"type": "RandomFlip", "prob": 0.2}],
               "model.backbone": {"type": "ViT-L-14", "pretrained": "/w/clip.pth"}}  # fmt: skip
    values = translated(5, changes).values
    assert values["recipe.schedule"] == "step"
    assert (values["recipe.step_at"], values["recipe.step_factor"]) == ((0.5,), 0.2)
    assert values["model.image_size"] == (196, 196)
    assert values["data.flip"] == 0.2
    assert (values["model.name"], values["model.checkpoint"]) == ("ViT-L-14.openai", "/w/clip.pth")


@pytest.mark.parametrize(
    ("policy", "params", "expected"),
    [
        ("linear", {}, {"schedule": "linear", "final_lr": round(1 / 26, 6), "warmup_steps": 0}),
        ("step", {"step_size": 10, "gamma": 0.5}, {"schedule": "step", "step_at": (0.4, 0.8), "step_factor": 0.5}),
        ("step", {"step_size": 30}, {"schedule": "constant"}),
        ("multistep", {"milestones": [5, 50]}, {"schedule": "step", "step_at": (0.2,), "step_factor": 0.1}),
    ],
)  # fmt: skip
def test_every_policy_has_its_schedule(policy, params, expected):
    preset = translated(6, {"train.optim.policy": policy, "train.optim.policy_params": params})
    assert {name: preset.values[f"recipe.{name}"] for name in expected} == expected
    # a warm-up is read with cosine only, which is said
    assert [row for row in preset.ignored if row.startswith("train.optim.warmup_epochs")]


def test_what_a_spec_leaves_out_has_tao_s_own_default():
    preset = translated(6, {"dataset.augmentation": {}, "train.optim": {"lr": 1e-4}})
    values = preset.values
    assert (values["data.flip"], values["data.vertical_flip"], values["data.quarter_turn"]) == (
        0.5,
        0.5,
        0.5,
    )
    assert values["data.color_jitter"] == (0.3, 0.3, 0.3, 0.0)
    assert (values["data.erase"], values["data.rand_ops"], values["data.crop_scale"]) == (
        0.2,
        2,
        0.08,
    )
    assert values["recipe.schedule"] == "linear"
    assert values["recipe.decay"] == ((".*", 1.0),)
    assert any("blur" in row for row in preset.absent)


def test_off_is_off():
    off = {f"dataset.augmentation.{name}.enable": False
           for name in ("random_flip", "random_rotate", "random_color", "random_erase", "random_aug")}  # fmt: skip
    off |= {
        "dataset.augmentation.with_random_crop": False,
        "dataset.augmentation.mixup_cutmix": False,
    }
    values = translated(6, {**off, "train.enable_ema": False}).values
    changes = [
        values[f"data.{name}"] for name in ("flip", "vertical_flip", "quarter_turn", "erase")
    ]
    assert changes == [0, 0, 0, 0]
    assert values["data.color_jitter"] == (0, 0, 0, 0)
    assert values["data.crop_scale"] == 1.0
    assert not {"data.rand_ops", "task.mixup", "recipe.ema"} & set(values)


def written(tmp_path: Path, text: str, name: str = "spec.yaml") -> str:
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def loaded(tmp_path: Path, source: str) -> RunConfig:
    (tmp_path / "made.py").write_text(source)
    return load_preset(str(tmp_path / "made.py"))


@pytest.mark.parametrize("release", RELEASES)
def test_the_preset_is_a_config_with_the_values_of_the_spec(tmp_path, release):
    source = from_tao.main(written(tmp_path, TEXTS[release]), images=1000)
    config = loaded(tmp_path, source)
    assert config == (config.__class__(**vars(config)))
    assert config.batch_size == 128
    assert config.recipe.rates == ((r"backbone\..*", 0.0),)
    assert config.task.label_smoothing == 0.1  # pyright: ignore[reportAttributeAccessIssue]
    assert source.startswith('"""TAO\'s spec spec.yaml as a preset of fmjax.\n')
    assert max(map(len, source.splitlines())) <= 120


def test_ignored_and_unknown_and_absent_fields_are_named(tmp_path):
    text = SIX + "quantize: {backend: torchao, mode: x}\nwandb: {enable: True}\ntrian: {lr: 1}\n"
    text = text.replace("topk: [1, 5]", "topk: [1, 5], binary: True")
    source = from_tao.main(written(tmp_path, text), images=1000)
    said = re.sub(r"\n#   ", " ", source)
    assert "# What neither knows, most likely misspelt:\n# - trian.lr\n" in said
    assert "# - model.head.binary (model/classifier.py)" in said
    assert "# - model.head.type (model/classifier.py); always one linear layer, here too" in said
    assert said.count("# - quantize.*: there is no quantisation") == 1
    assert "# - wandb.*: nothing is sent anywhere" in said


def test_a_spec_cannot_put_code_into_the_preset(tmp_path):
    evil = '"""\nimport os; os.abort()\n#\r\nraise SystemExit'
    text = yaml.safe_dump(
        {**yaml.safe_load(SIX), "results_dir": evil, evil: {evil: evil}, "wandb": {evil: 1}}
    )
    name = 'x"""+exit()+"""\\.yaml'
    config = loaded(tmp_path, from_tao.main(written(tmp_path, text, name), images=10))
    assert config.out == evil


def test_images_are_counted_in_the_spec_s_folder(tmp_path):
    clean(tmp_path)
    text = SIX.replace("/data", str(tmp_path))
    config = loaded(tmp_path, from_tao.main(written(tmp_path, text)))
    # 12 images over 8 devices: two each, in one batch
    assert config.steps == 25
    assert config.data.source == f"folder:{tmp_path}"


def test_the_links_that_a_comment_tells_make_one_set(tmp_path, monkeypatch):
    clean(tmp_path / "set")
    (tmp_path / "set/train").rename(tmp_path / "set/training set")
    (tmp_path / "set/val").rename(tmp_path / "set/val set")
    text = SIX.replace("/data/train", f"{tmp_path}/set/training set").replace(
        "/data/val", f"{tmp_path}/set/val set"
    )
    source = from_tao.main(written(tmp_path, text))
    said = re.sub(r"\n#   ", " ", source)
    [command] = re.findall(r"one set: (mkdir .*)", said)
    monkeypatch.chdir(tmp_path)
    subprocess.run(command, shell=True, check=True)  # noqa: S602
    config = loaded(tmp_path, source)
    splits = open_source(ImagesConfig(source=config.data.source))
    assert (len(splits.train), len(splits.val or ())) == (12, 12)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "is no YAML"),
        ("- 1\n- 2\n", "holds list and no fields"),
        ("", "holds NoneType and no fields"),
        ("!!python/object/apply:os.system ['true']", "is no YAML"),
        ("model: {backbone: {type: x}}", "is no spec of TAO's image classification"),
        ("train: {optim: {lr: 1}}\nmodel: {head: 1}", "is no spec of TAO's image classification"),
        (SIX.replace("c_radio_v2_vit_base_patch16", "fan_tiny_12_p16_224"), "pass --model NAME"),
        (SIX.replace("lr: 5e-3", "lr: fast"), "train.optim.lr is 'fast'; it must be a number"),
        (SIX.replace("lr: 5e-3", "lr: -1"), "--recipe.lr is -1.0; it must be above 0"),
        (SIX.replace("lr: 5e-3", "lr: .nan"), "train.optim.lr is 'nan'; it must be a number"),
        (SIX.replace("num_epochs: 25", "num_epochs: 2.5"), "train.num_epochs is '2.5'; it must be a whole number"),
        (SIX.replace("freeze_backbone: True", "freeze_backbone: maybe"), "it must be true or false"),
        (SIX.replace("precision: bf16", "precision: int8"), "it must be fp32, fp16, bf16"),
        (SIX.replace("policy: cosine", "policy: poly"), "it must be linear, step, multistep or cosine"),
        (SIX.replace("optim: adamw", "optim: rmsprop"), "a preset is made of adamw, adam, sgd or lion"),
        (SIX.replace("num_gpus: 4", "num_gpus: 0"), "train.num_gpus is 0; it must be 1 or more"),
        (SIX.replace("images_dir: /data/train", "images_dir: '???'"), "names no training images"),
        (SIX.replace("betas: [0.8, 0.99]", "betas: [a]"), "it must be a list of numbers"),
        (FIVE.replace("- {type: AutoAugment}", "- AutoAugment"), "it must be a list of steps with types"),
        (FIVE.replace("policy: CosineAnnealing", "policy: cyclic"), "a preset has cosine, linear or step"),
        (FIVE.replace("flip_prob: 0.4", "flip_prob: often"), "RandomFlip has flip_prob 'often'"),
    ],
)  # fmt: skip
def test_a_spec_that_cannot_be_taken_is_refused_in_a_sentence(tmp_path, text, said):
    with pytest.raises((UsageError, DataError), match=re.escape(said)) as refused:
        from_tao.main(written(tmp_path, text), images=1000)
    assert "\n" not in str(refused.value)


def test_a_spec_that_is_too_much_is_refused(tmp_path):
    bomb = "x0: &x0 {b: 1, c: 2}\n"
    for number in range(1, 19):
        bomb += f"x{number}: &x{number} {{b: *x{number - 1}, c: *x{number - 1}}}\n"
    with pytest.raises(DataError, match="more than 10,000 fields"):
        read_spec(written(tmp_path, bomb))
    with pytest.raises(DataError, match="more than 1,048,576 bytes"):
        read_spec(written(tmp_path, "#" * (1 << 20) + "\n"))
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_spec(str(tmp_path / "nowhere.yaml"))
    with pytest.raises(UsageError, match="is not here"):
        from_tao.main(written(tmp_path, SIX))
    with pytest.raises(UsageError, match="--images is -1"):
        from_tao.main(written(tmp_path, SIX), images=-1)


def test_references_between_fields_are_looked_up():
    changes = {"dataset.train_dataset.images_dir": "${dataset.root_dir}/train",
               "dataset.val_dataset.images_dir": "${dataset.root_dir}/val",
               "results_dir": "${train.results_dir}", "train.results_dir": "${results_dir}"}  # fmt: skip
    values = translated(6, changes).values
    assert values["data.source"] == "folder:/data"
    # one that leads back to itself stays as it is
    assert values["out"] == "${results_dir}"


def test_what_is_the_same_is_not_said_to_differ():
    plain = translated(6, {"model.backbone.type": "vit_large_patch14_dinov2_swiglu"})
    said = " ".join(plain.differs)
    # NVIDIA's own weights have TAO's own preparation
    assert "normalised" not in said
    assert "squashes" not in said
    clip = " ".join(translated(6, {"model.backbone.type": "ViT-B-16"}).differs)
    assert "by the mean 0.481455 0.457827 0.408211" in clip
    assert "squashes" in clip


def test_every_backbone_is_one_that_is_here():
    for kind, name in BACKBONES.items():
        assert names.resolve(name) == name, kind


def test_another_model_and_other_images_take_the_place_of_the_spec_s(tmp_path, capsys):
    clean(tmp_path / "set")
    spec = written(tmp_path, SIX.replace("c_radio_v2_vit_base_patch16", "resnet_50"))
    assert (
        main(
            [
                "from-tao",
                spec,
                "--model",
                "dinov2_vits14.lvd142m",
                "--data",
                f"folder:{tmp_path}/set",
            ]
        )
        == 0
    )
    config = loaded(tmp_path, capsys.readouterr().out)
    assert config.model.name == "dinov2_vits14.lvd142m"
    assert config.data.source == f"folder:{tmp_path}/set"
    assert config.steps == 25
    assert main(["from-tao", spec]) == 2
    assert "the backbone is 'resnet_50', which fmjax has not" in capsys.readouterr().err


def test_a_preset_of_a_spec_runs_dry(tmp_path, capsys):
    text = SIX.replace("pretrained_backbone_path: radio.pth", "pretrained_backbone_path: null")
    text = text.replace("img_size: 224", "img_size: 28").replace(
        "precision: bf16", "precision: fp32"
    )
    text = text.replace("results_dir: /results", f"results_dir: {tmp_path}/run")
    spec = written(tmp_path, text)
    assert (
        main(["from-tao", spec, "--model", "demo_vit_ti4.fashion_mnist", "--data", "digits"]) == 0
    )
    preset = tmp_path / "made.py"
    preset.write_text(capsys.readouterr().out)
    assert main(["finetune", str(preset), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "970 of" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("release", RELEASES)
def test_no_field_is_twice_in_a_table(release):
    paths = [row.path for row in RELEASES[release][1]]
    assert len(paths) == len(set(paths))


def test_a_row_below_a_star_is_found_and_an_exact_one_comes_first():
    rows = (Field("a.*", "x"), Field("a.b", "y"), Field("c.*.d", "z"))
    look: Callable[[str], str] = lambda path: getattr(field_of(path, rows), "ours", "")  # noqa: E731
    assert [look(path) for path in ("a.b", "a.c.d", "c.x.d", "c.d", "a")] == [
        "y",
        "x",
        "z",
        "",
        "x",
    ]


def test_the_page_has_the_tables_of_the_code():
    page = tao_page.PAGE.read_text()
    assert tao_page.filled(page) == page, "run python -m tests.support.tao_page"
    assert "| `train.optim.lr` | `recipe.lr` |" in page
