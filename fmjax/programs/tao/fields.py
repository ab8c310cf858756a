"""Each field of TAO's specs: what it is here, or why it is nothing. docs/from_tao.md is made of these tables.

Read in NVIDIA/tao-core 6.26.3 (nvidia_tao_core/config/classification_pyt/default_config.py and
classification_pyt_mmlab/default_config.py) and NVIDIA/tao_pytorch_backend 6.25.10 and v5.2.0
(nvidia_tao_pytorch/cv/classification_pyt and cv/classification). `ignored` names the file of TAO that would have to
read the field and does not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Field:
    """A field of a spec, or all below it where the path ends in a star. ours: what it is here, or why it is nothing."""

    path: str
    ours: str
    ignored: str = ""
    mapped: bool = True  # whether the preset has it


def absent(path: str, why: str) -> Field:
    """A field that TAO reads and a preset has no place for."""
    return Field(path, why, mapped=False)


def ignored(path: str, file: str, why: str = "") -> Field:
    """A field that TAO accepts and never reads."""
    return Field(path, why, file, mapped=False)


MODEL = "model/classifier.py"
LEARNER = "model/classifier_pl_model.py"
AUGMENT = "dataloader/augmentation.py"
LOADER = "dataloader/pl_classification_data_module.py"
START = "core/initialize_experiments.py"

# a spec of 6.0 and later
RELEASE_6 = (
    Field("model.backbone.type", "`model.name`"),
    Field("model.backbone.pretrained_backbone_path", "`model.checkpoint`; misfits are refused"),
    Field("model.backbone.freeze_backbone", r"`recipe.rates=((r'backbone\..*', 0.0),)`"),
    ignored("model.backbone.freeze_norm", "backbone_v2/backbone_base.py", "BatchNorm only, which no ViT has"),
    ignored("model.head.type", MODEL, "always one linear layer, here too"),
    ignored("model.head.binary", MODEL),
    ignored("model.head.in_channels", MODEL, "the backbone's own width, here too"),
    ignored("model.head.custom_args.*", MODEL),
    ignored("model.head.loss.type", LEARNER, "always cross entropy, as here by default"),
    Field("model.head.loss.label_smooth_val", "`task.label_smoothing`"),
    absent("model.head.topk", "accuracies of the first few classes are among the scores, whatever is asked for"),
    Field("dataset.train_dataset.images_dir", "`data.source`: `folder:DIR` with `DIR/train` and `DIR/val`"),
    Field("dataset.val_dataset.images_dir", "`data.source`, together with the training folder"),
    absent("dataset.test_dataset.images_dir", "score a run on it: `fmjax eval RUN --source folder:DIR`"),
    absent("dataset.quant_calibration_dataset.images_dir", "there is no quantisation"),
    absent("dataset.train_nolabel.folder_path", "images without a label are not trained on"),
    Field("dataset.root_dir", "`data.classes`, where it has a classes.txt, which fixes the order of the classes"),
    ignored("dataset.classes_file", "dataloader/dataset.py", "it names predictions; labels go by root_dir/classes.txt"),
    ignored("dataset.dataset", LOADER, "there is one kind, CLDataset: a folder for each class"),
    absent("dataset.num_classes", "there are as many as the data have"),
    Field("dataset.img_size", "`model.image_size`"),
    Field("dataset.batch_size", "`batch_size`, times the GPUs of all nodes"),
    Field("dataset.workers", "`data.threads`"),
    ignored("dataset.shuffle", LOADER, "training images are always shuffled, here too"),
    Field("dataset.augmentation.random_flip.enable", "`data.flip` and `data.vertical_flip`, or 0"),
    Field("dataset.augmentation.random_flip.hflip_probability", "`data.flip`"),
    Field("dataset.augmentation.random_flip.vflip_probability", "`data.vertical_flip`"),
    Field("dataset.augmentation.random_rotate.enable", "`data.quarter_turn`, or 0"),
    Field("dataset.augmentation.random_rotate.rotate_probability", "`data.quarter_turn`"),
    Field("dataset.augmentation.random_rotate.angle_list", "90, 180 and 270; TAO reads the first three of the list"),
    Field("dataset.augmentation.random_color.enable", "`data.color_jitter`, or zeros"),
    Field("dataset.augmentation.random_color.brightness", "`data.color_jitter`, its first number"),
    Field("dataset.augmentation.random_color.contrast", "`data.color_jitter`, its second"),
    Field("dataset.augmentation.random_color.saturation", "`data.color_jitter`, its third"),
    Field("dataset.augmentation.random_color.hue", "`data.color_jitter`, its fourth"),
    ignored("dataset.augmentation.random_color.color_probability", AUGMENT, "every image is changed, here too"),
    Field("dataset.augmentation.random_erase.enable", "`data.erase`, or 0"),
    Field("dataset.augmentation.random_erase.erase_probability", "`data.erase`, with `data.erase_fill='const'`"),
    Field("dataset.augmentation.random_aug.enable", "`data.rand_ops=2`, `data.rand_magnitude=5`, `data.rand_std=1`"),
    Field("dataset.augmentation.with_random_crop", "`data.crop_scale=0.08`, or 1"),
    Field("dataset.augmentation.with_scale_random_crop.enable", "a smaller `data.crop_scale`, which crops as much"),
    Field("dataset.augmentation.with_scale_random_crop.scale_range", "the same"),
    Field("dataset.augmentation.with_random_blur", "none: images are not blurred"),
    Field("dataset.augmentation.mean", "none: pictures are normalised as the weights were trained"),
    Field("dataset.augmentation.std", "none: as the mean"),
    Field("dataset.augmentation.mixup_cutmix", "`task.mixup` and `task.cutmix`, one of them for each batch"),
    Field("dataset.augmentation.mixup_alpha", "`task.mixup` and `task.cutmix`"),
    Field("train.num_epochs", "`steps`, by the number of training images"),
    Field("train.num_gpus", "`batch_size`, times this; a run takes the devices that it sees"),
    Field("train.num_nodes", "`batch_size`, times this; see docs/scaling.md for the command on each"),
    ignored("train.gpu_ids", START, "overwritten by the launcher's; set CUDA_VISIBLE_DEVICES"),
    Field("train.seed", "`seed`; TAO draws one where it is negative"),
    absent("train.cudnn.benchmark", "XLA chooses its kernels itself"),
    Field("train.cudnn.deterministic", "`deterministic`, where the spec says true"),
    Field("train.checkpoint_interval", "`save_every`, in steps"),
    ignored("train.checkpoint_interval_unit", LEARNER, "always epochs, as classification saves by itself"),
    Field("train.validation_interval", "`eval_every`, in steps"),
    absent("train.resume_training_checkpoint_path", "the same command goes on with a run, from its newest checkpoint"),
    Field("train.results_dir", "`out`"),
    ignored("train.pretrained_model_path", MODEL),
    ignored("train.tensorboard.enabled", START, "TensorBoard is always written there; here it is metrics.jsonl"),
    ignored("train.tensorboard.infrequent_logging_frequency", LEARNER),
    Field("train.enable_ema", "`recipe.ema`, or 0"),
    Field("train.ema_decay", "`recipe.ema`, with `recipe.ema_warmup=False`"),
    Field("train.clip_grad_norm", "`recipe.clip_norm`"),
    Field("train.precision", "`model.dtype`"),
    Field("train.optim.optim", "`recipe.optimiser`"),
    Field("train.optim.lr", "`recipe.lr`"),
    Field("train.optim.policy", "`recipe.schedule`"),
    Field("train.optim.policy_params.step_size", "`recipe.step_at`, with the policy step"),
    Field("train.optim.policy_params.gamma", "`recipe.step_factor`"),
    Field("train.optim.policy_params.milestones", "`recipe.step_at`, with the policy multistep"),
    Field("train.optim.momentum", "`recipe.momentum`; TAO reads it with sgd only"),
    Field("train.optim.weight_decay", "`recipe.weight_decay`"),
    Field("train.optim.betas", "`recipe.b1` and `recipe.b2`; TAO reads them with adamw only"),
    Field("train.optim.skip_names", "`recipe.decay`; TAO decays norms and biases too where it is empty"),
    Field("train.optim.warmup_epochs", "`recipe.warmup_steps`; TAO reads it with the policy cosine only"),
    ignored("train.optim.monitor_name", LEARNER, "no policy that it has looks at a score"),
    Field("results_dir", "`out`"),
    absent("encryption_key", "nothing is encrypted"),
    absent("model_name", "a preset is of one task"),
    absent("wandb.*", "nothing is sent anywhere; metrics.jsonl has all numbers"),
    ignored("evaluate.vis_after_n_batches", LEARNER),
    absent("evaluate.*", "`fmjax eval RUN`"),
    ignored("inference.vis_after_n_batches", LEARNER),
    absent("inference.*", "`fmjax embed`, or Python: `fmjax.restore(RUN)`"),
    absent("export.*", "`fmjax export RUN FILE.safetensors --dialect timm`, which timm reads"),
    absent("gen_trt_engine.*", "TensorRT is not written"),
    absent("distill.*", "there is no distillation from another network"),
    absent("quantize.*", "there is no quantisation"),
)  # fmt: skip

OPTIMIZER = "train.train_config.optimizer"
SCHEDULE = "train.train_config.lr_config"
TRAINER = "core/mmlab/mmclassification/classification_trainer.py"
SETTINGS = "core/mmlab/mmclassification/utils.py"

# a spec of 5.0 to 5.5, whose trainer was MMPretrain
RELEASE_5 = (
    Field("model.backbone.type", "`model.name`"),
    Field("model.backbone.custom_args.model_name", "`model.name`, of the type open_clip"),
    absent("model.backbone.custom_args.*", "an architecture is a row here: `fmjax info NAME`"),
    Field("model.backbone.pretrained", "the tag of `model.name`, or `model.checkpoint` where it is a file"),
    Field("model.backbone.freeze", r"`recipe.rates=((r'backbone\..*', 0.0),)`"),
    absent("model.backbone.init_cfg.*", "`model.checkpoint`"),
    Field("model.init_cfg.checkpoint", "`model.checkpoint`"),
    absent("model.init_cfg.*", "none needed: the keys tell"),
    absent("model.type", "there is one, a classifier"),
    absent("model.neck.*", "the classifier sees the pooled tokens"),
    Field("model.head.type", "one linear layer; LogisticRegressionHead is `fmjax probe`"),
    absent("model.head.lr_head.*", "`fmjax probe MODEL --c C --max-iter N`"),
    absent("model.head.num_classes", "there are as many as the data have"),
    absent("model.head.in_channels", "the backbone's own width"),
    absent("model.head.topk", "accuracies of the first few classes are among the scores, whatever is asked for"),
    absent("model.head.binary", "two classes are two classes"),
    absent("model.head.custom_args.*", "none"),
    Field("model.head.loss.type", "`task.label_smoothing`, of LabelSmoothLoss"),
    Field("model.head.loss.label_smooth_val", "`task.label_smoothing`"),
    absent("model.head.loss.*", "none"),
    Field("model.train_cfg.augments", "`task.mixup` and `task.cutmix`"),
    Field("dataset.data.train.data_prefix", "`data.source`: `folder:DIR` with `DIR/train` and `DIR/val`"),
    Field("dataset.data.val.data_prefix", "`data.source`, together with the training folder"),
    absent("dataset.data.test.*", "score a run on it: `fmjax eval RUN --source folder:DIR`"),
    Field("dataset.data.train.classes", "`data.classes`"),
    absent("dataset.data.val.classes", "the classes are those of training"),
    absent("dataset.data.val.ann_file", "pass the table as `--data csv:FILE`"),
    Field("dataset.data.train.pipeline", "`data.crop_scale`, `data.flip`, `data.color_jitter`, `data.erase`"),
    ignored("dataset.data.val.pipeline", SETTINGS, "it takes the pipeline of test; here the weights' own"),
    absent("dataset.data.*.type", "there is one kind, a folder for each class"),
    Field("dataset.data.samples_per_gpu", "`batch_size`, times the GPUs"),
    Field("dataset.data.workers_per_gpu", "`data.threads`"),
    absent("dataset.img_norm_cfg.*", "pictures are normalised as the weights were trained"),
    absent("dataset.sampler.*", "training images are shuffled"),
    absent("dataset.pin_memory", "batches are put on the devices ahead of their step"),
    absent("dataset.persistent_workers", "threads live as long as the run"),
    absent("dataset.collate_fn.*", "none"),
    Field("train.num_gpus", "`batch_size`, times this"),
    absent("train.gpu_ids", "set CUDA_VISIBLE_DEVICES"),
    Field("train.exp_config.manual_seed", "`seed`"),
    Field("train.exp_config.deterministic", "`deterministic`"),
    absent("train.exp_config.*", "processes find each other by `--hosts`"),
    absent("train.validate", "a run always scores its validation part"),
    Field("train.results_dir", "`out`"),
    Field("results_dir", "`out`"),
    Field(f"{OPTIMIZER}.type", "`recipe.optimiser`"),
    Field(f"{OPTIMIZER}.lr", "`recipe.lr`"),
    Field(f"{OPTIMIZER}.weight_decay", "`recipe.weight_decay`"),
    Field(f"{OPTIMIZER}.betas", "`recipe.b1` and `recipe.b2`"),
    Field(f"{OPTIMIZER}.momentum", "`recipe.momentum`"),
    absent(f"{OPTIMIZER}.*", "see `recipe` in docs/fine_tuning.md"),
    Field("train.train_config.optimizer_config.grad_clip.max_norm", "`recipe.clip_norm`; 0 without it"),
    absent("train.train_config.optimizer_config.*", "see `recipe.clip_norm` and `recipe.accumulate`"),
    absent("train.train_config.paramwise_cfg.*", "`recipe.rates` and `recipe.decay`, by patterns"),
    Field(f"{SCHEDULE}.policy", "`recipe.schedule`"),
    Field(f"{SCHEDULE}.type", "`recipe.schedule`"),
    Field(f"{SCHEDULE}.min_lr", "`recipe.final_lr`, as a part of lr"),
    Field(f"{SCHEDULE}.step", "`recipe.step_at`"),
    Field(f"{SCHEDULE}.gamma", "`recipe.step_factor`"),
    Field(f"{SCHEDULE}.warmup_iters", "`recipe.warmup_steps`"),
    Field(f"{SCHEDULE}.warmup_by_epoch", "`recipe.warmup_steps`, times the steps of an epoch"),
    absent(f"{SCHEDULE}.*", "a warm-up is linear, from 0"),
    Field("train.train_config.runner.max_epochs", "`steps`, by the number of training images"),
    absent("train.train_config.runner.*", "the rate is as it is given, whatever the batch"),
    Field("train.train_config.checkpoint_config.interval", "`save_every`, in steps"),
    absent("train.train_config.checkpoint_config.by_epoch", "steps; the epochs are converted"),
    Field("train.train_config.evaluation.interval", "`eval_every`, in steps"),
    ignored("train.train_config.evaluation.metric", TRAINER, "always accuracy"),
    Field("train.train_config.logging.interval", "`log_every`"),
    ignored("train.train_config.logging.log_dir", TRAINER),
    Field("train.train_config.load_from", "`model.checkpoint`"),
    Field("train.train_config.custom_hooks", "`recipe.ema`, of EMAHook"),
    absent("train.train_config.default_hooks.*", "a run logs, scores and saves by its own fields"),
    absent("train.train_config.resume_training_checkpoint_path", "the same command goes on with a run"),
    absent("train.train_config.resume", "the same command goes on with a run"),
    absent("train.train_config.validate", "a run always scores its validation part"),
    absent("train.train_config.find_unused_parameters", "none needed"),
    absent("model_name", "a preset is of one task"),
    absent("evaluate.*", "`fmjax eval RUN`"),
    absent("inference.*", "`fmjax embed`, or Python: `fmjax.restore(RUN)`"),
    absent("export.*", "`fmjax export RUN FILE.safetensors --dialect timm`, which timm reads"),
    absent("gen_trt_engine.*", "TensorRT is not written"),
)  # fmt: skip

# TAO's backbone -> a model here; all others are no vision transformers of this roster
BACKBONES = {
    "vit_large_patch14_dinov2_swiglu": "nv_dinov2_vitl14.trainable_v1_1",
    "vit_large_patch14_dinov2_swiglu_legacy": "nv_dinov2_vitl14.trainable_v1_1",
    "vit_giant_patch14_reg4_dinov2_swiglu": "nv_dinov2_vitg14_reg4.stage2",
    "vit_base_patch16": "augreg_vit_base_patch16_224.augreg_in21k",
    "vit_large_patch16": "augreg_vit_large_patch16_224.augreg_in21k",
    "vit_base_patch16_mae": "mae_vit_base_patch16.pretrain",
    "vit_large_patch16_mae": "mae_vit_large_patch16.pretrain",
    "vit_huge_patch14_mae": "mae_vit_huge_patch14.pretrain",
    "c_radio_v2_vit_base_patch16": "C-RADIOv2-B.nvidia",
    "c_radio_v2_vit_large_patch16": "C-RADIOv2-L.nvidia",
    "c_radio_v2_vit_huge_patch16": "C-RADIOv2-H.nvidia",
    "c_radio_v3_vit_base_patch16_reg4_dinov2": "C-RADIOv3-B.nvidia",
    "c_radio_v3_vit_large_patch16_reg4_dinov2": "C-RADIOv3-L.nvidia",
    "c_radio_v3_vit_huge_patch16_reg4_dinov2": "C-RADIOv3-H.nvidia",
    "vit_l_14_siglip_clipa_224": "ViT-L-14-SigLIP-CLIPA-224.nvclip",
    "vit_l_14_siglip_clipa_336": "ViT-L-14-SigLIP-CLIPA-336.nvclip",
    "vit_h_14_siglip_clipa_224": "ViT-H-14-SigLIP-CLIPA-224.nvclip",
    # of 5.x, by open_clip's names; the first tag is what a spec without one gets
    "ViT-B-32": "ViT-B-32.openai",
    "ViT-B-16": "ViT-B-16.openai",
    "ViT-L-14": "ViT-L-14.openai",
    "ViT-L-14-336": "ViT-L-14-336.openai",
    "ViT-H-14": "ViT-H-14.laion2b_s32b_b79k",
    "ViT-g-14": "ViT-g-14.laion2b_s12b_b42k",
    "EVA02-L-14": "EVA02-L-14.merged2b_s4b_b131k",
    "EVA02-L-14-336": "EVA02-L-14-336.merged2b_s6b_b61k",
    "EVA02-E-14": "EVA02-E-14.laion2b_s4b_b115k",
    "EVA02-E-14-plus": "EVA02-E-14-plus.laion2b_s9b_b144k",
    "ViT-L-14-SigLIP-CLIPA-224": "ViT-L-14-SigLIP-CLIPA-224.nvclip",
    "ViT-L-14-SigLIP-CLIPA-336": "ViT-L-14-SigLIP-CLIPA-336.nvclip",
    "ViT-H-14-SigLIP-CLIPA-224": "ViT-H-14-SigLIP-CLIPA-224.nvclip",
}


def field_of(path: str, fields: Iterable[Field]) -> Field | None:
    """The row of a path: its own, else the first that it lies below."""
    rows = list(fields)
    # an exact row counts, wherever in the table it stands
    exact = [row for row in rows if row.path == path]
    return next(iter(exact), None) or next((row for row in rows if _below(path, row.path)), None)


def _below(path: str, pattern: str) -> bool:
    parts, wanted = path.split("."), pattern.split(".")
    # a star at the end stands for all below, one in the middle for one name
    if wanted[-1] == "*":
        wanted, parts = wanted[:-1], parts[: len(wanted) - 1]
    elif "*" not in wanted:
        return False
    if len(parts) != len(wanted):
        return False
    return all(one in ("*", other) for one, other in zip(wanted, parts, strict=True))
