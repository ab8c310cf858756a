"""How to build each reference, depth cut but never width, and how to get all its tokens and its pooled output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

import fmjax
from fmjax.specs import ViTSpec
from tests.support.torch_reference import numpy_tensors, randomise

Size = tuple[int, int]
Run = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Case:
    """One architecture in one dialect, and the reference that knows the truth."""

    model: str
    dialect: str
    build: Callable[[Case, Path], tuple[torch.nn.Module, Callable[[Size], Run]]]
    other_size: Size
    name: str = ""  # the reference's own name for it
    depth: int = 2
    overrides: dict[str, Any] = field(default_factory=dict)  # of the spec: what this reference does differently
    rename: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] | None = None  # its names -> those of the dialect

    @property
    def spec(self) -> ViTSpec:
        return replace(fmjax.get_spec(self.model), depth=self.depth, **self.overrides)

    @property
    def folded(self) -> bool:
        """Whether the reference keeps the class token and its position as one sum."""
        return self.dialect == "timm" and self.spec.num_registers > 0

    def gradient_names(self, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Gradients under the names in memory -> those of the file."""
        tensors = {disk_name(key, self.dialect): value for key, value in packed(tensors, self.dialect).items()}
        if "reg_token" in tensors and self.rename:  # the sum hands its gradient to both of its terms
            return self.rename(tensors | {"class_position": tensors["cls_token"]})
        return self.rename(tensors) if self.rename else tensors

    @property
    def id(self) -> str:
        return f"{self.model}-{self.dialect}"


def timm_vit(case: Case, folder: Path) -> tuple[torch.nn.Module, Callable[[Size], Run]]:
    import timm

    model = randomise(timm.create_model(case.name, pretrained=False, depth=case.depth, dynamic_img_size=True), seed=1)
    if case.spec.embed_dim and not case.spec.proj_bias:
        torch.nn.init.zeros_(model.head.bias)  # as in every published CLIP file: the original has no bias there

    def run(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = model.forward_features(images)
        return tokens, model.forward_head(tokens)

    return model, lambda size: run


def open_clip_native(case: Case, folder: Path) -> tuple[torch.nn.Module, Callable[[Size], Run]]:
    from open_clip.model import CLIP

    spec = case.spec
    vision = {"layers": case.depth, "width": spec.width, "patch_size": spec.patch_size, "head_width": spec.head_dim}
    text = {"layers": 1, "width": 64, "heads": 2, "vocab_size": 64}

    def build(size: Size) -> CLIP:
        config = vision | {"image_size": size, "mlp_ratio": spec.mlp_dim / spec.width}
        return CLIP(spec.embed_dim, config, text, quick_gelu=spec.activation == "quick_gelu")

    model = randomise(build(spec.image_size), seed=2)

    def run_at(size: Size) -> Run:
        sized = build(size).eval()
        return lambda images: _open_clip_tokens(model, sized, images)

    return model, run_at


def _open_clip_tokens(
    model: torch.nn.Module, sized: torch.nn.Module, images: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sized model with the other's parameters, the table resized by open_clip's own function, gradients kept."""
    from open_clip.model import resize_pos_embed

    state = dict(model.named_parameters())
    resize_pos_embed(state, sized)
    seen: list[torch.Tensor] = []
    hook = sized.visual.ln_post.register_forward_hook(lambda module, args, out: seen.append(out))
    visual = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
    pooled = torch.func.functional_call(sized.visual, visual, (images,))
    hook.remove()
    return seen[0], pooled


def open_clip_timm(case: Case, folder: Path) -> tuple[torch.nn.Module, Callable[[Size], Run]]:
    import timm
    from open_clip.model import CustomTextCLIP

    config = {"timm_model_name": case.name, "timm_model_pretrained": False, "timm_pool": "token", "timm_proj": None}
    text = {"layers": 1, "width": 64, "heads": 2, "vocab_size": 64}
    model = CustomTextCLIP(case.spec.embed_dim, config | {"image_size": case.spec.image_size[0]}, text)
    # the same trunk, cut in depth and open to other sizes, which open_clip's own constructor has no argument for
    trunk: Any = timm.create_model(case.name, pretrained=False, depth=case.depth, dynamic_img_size=True)
    model.visual.trunk = trunk
    randomise(model, seed=3)

    def run(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = trunk.forward_features(images)
        return tokens, trunk.forward_head(tokens)

    return model, lambda size: run


def hf_clip(case: Case, folder: Path) -> tuple[torch.nn.Module, Callable[[Size], Run]]:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    spec = case.spec
    config = CLIPVisionConfig(**_hf_sizes(spec), projection_dim=spec.embed_dim, hidden_act=spec.activation)
    model = randomise(CLIPVisionModelWithProjection(config), seed=4)
    model.save_pretrained(folder)

    def run_at(size: Size) -> Run:
        other = size != spec.image_size

        def run(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            out = model(pixel_values=images, interpolate_pos_encoding=other)
            return model.vision_model.post_layernorm(out.last_hidden_state), out.image_embeds

        return run

    return model, run_at


def _hf_sizes(spec: ViTSpec) -> dict[str, Any]:
    return {
        "hidden_size": spec.width,
        "num_hidden_layers": spec.depth,
        "num_attention_heads": spec.num_heads,
        "intermediate_size": spec.mlp_dim,
        "patch_size": spec.patch_size,
        "image_size": spec.image_size[0],
        "layer_norm_eps": spec.norm_eps,
    }


def hf_dinov2(case: Case, folder: Path) -> tuple[torch.nn.Module, Callable[[Size], Run]]:
    from transformers import (
        Dinov2Config,
        Dinov2Model,
        Dinov2WithRegistersConfig,
        Dinov2WithRegistersModel,
    )

    sizes = _hf_sizes(case.spec) | {"use_swiglu_ffn": case.spec.mlp == "swiglu"}
    if case.spec.num_registers:
        model = Dinov2WithRegistersModel(
            Dinov2WithRegistersConfig(**sizes, num_register_tokens=case.spec.num_registers)
        )
    else:
        model = Dinov2Model(Dinov2Config(**sizes))
    randomise(model, seed=5)
    model.save_pretrained(folder)

    def run(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out = model(pixel_values=images)
        return out.last_hidden_state, out.pooler_output

    return model, lambda size: run


def tensors_of(case: Case, model: torch.nn.Module, folder: Path) -> dict[str, np.ndarray]:
    """What the published file would hold: transformers' from disk, since its names in memory are others."""
    stored = folder / "model.safetensors"
    tensors = load_file(stored) if stored.exists() else numpy_tensors(model.state_dict())
    return case.rename(tensors) if case.rename else tensors


# transformers 5 renames DINOv2's keys when it loads a file; these are its names in memory and on disk
_DISK = (
    ("attention.q_proj", "attention.attention.query"),
    ("attention.k_proj", "attention.attention.key"),
    ("attention.v_proj", "attention.attention.value"),
    ("attention.o_proj", "attention.output.dense"),
    ("mlp.down_proj", "mlp.weights_out"),
)


def disk_name(key: str, dialect: str) -> str:
    if dialect.startswith("hf_dinov2"):
        for memory, disk in _DISK:
            key = key.replace(memory, disk)
    return key


def packed(tensors: dict[str, np.ndarray], dialect: str) -> dict[str, np.ndarray]:
    """transformers 5 keeps gate and value apart in memory, and as one tensor on disk."""
    out = {key: value for key, value in tensors.items() if "gate_proj" not in key and "up_proj" not in key}
    for key, value in tensors.items():
        if dialect.startswith("hf_dinov2") and "gate_proj" in key:
            both = [value, tensors[key.replace("gate_proj", "up_proj")]]
            out[key.replace("gate_proj", "weights_in")] = np.concatenate(both)
    return out


def meta_names(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """timm's DINOv2 tensors under the names of Meta's files: an unfolded class token, packed w12, a mask token."""
    out = {k.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): v for k, v in tensors.items()}
    if tensors["blocks.0.mlp.fc1.weight"].shape[0] == tensors["blocks.0.mlp.fc2.weight"].shape[1]:
        out = dict(tensors)
    width = tensors["norm.weight"].shape[0]
    return unfolded(out) | {"mask_token": np.zeros((1, width), np.float32)}


def unfolded(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """timm's register models fold the class token's position into it; Meta's and NVIDIA's files do not."""
    if "reg_token" not in tensors:
        return tensors
    out = dict(tensors)
    position = out.pop("class_position", None)
    if position is None:
        position = np.linspace(-0.5, 0.5, out["cls_token"].shape[-1], dtype=np.float32)[None, None]
        out["cls_token"] = out["cls_token"] - position
    out["pos_embed"] = np.concatenate([position, out["pos_embed"]], 1)
    out["register_tokens"] = out.pop("reg_token")
    return out


AA = {"resample": "bicubic_antialias"}
PLAIN = {"resample": "bicubic"}
QUICK = {"activation": "quick_gelu"}

CASES = (
    Case("ViT-B-32", "open_clip", open_clip_native, (160, 288)),
    Case("ViT-B-16", "open_clip", open_clip_native, (160, 288), overrides=QUICK),
    Case("ViT-B-16", "hf_clip", hf_clip, (160, 288), overrides=QUICK | PLAIN),
    Case("ViT-B-16", "timm", timm_vit, (160, 288), name="vit_base_patch16_clip_quickgelu_224", overrides=QUICK),
    Case("ViT-L-14", "open_clip", open_clip_native, (126, 308), overrides=QUICK),
    Case("ViT-L-14-336", "hf_clip", hf_clip, (126, 308), overrides=QUICK | PLAIN),
    Case("ViT-H-14", "open_clip", open_clip_native, (126, 308), depth=1),
    Case("ViT-g-14", "timm", timm_vit, (126, 308), name="vit_giant_patch14_clip_224", depth=1),
    Case("ViT-bigG-14", "open_clip", open_clip_native, (126, 308), depth=1),
    Case("EVA01-g-14", "timm", timm_vit, (126, 308), name="eva_giant_patch14_clip_224"),
    Case("EVA02-B-16", "open_clip_timm", open_clip_timm, (160, 288), name="eva02_base_patch16_clip_224"),
    Case("EVA02-L-14", "timm", timm_vit, (126, 308), name="eva02_large_patch14_clip_224"),
    Case("EVA02-L-14-336", "timm", timm_vit, (126, 308), name="eva02_large_patch14_clip_336"),
    Case("EVA02-E-14", "timm", timm_vit, (126, 308), name="eva02_enormous_patch14_clip_224", depth=1),
    Case("dinov2_vits14", "timm", timm_vit, (182, 308), name="vit_small_patch14_dinov2", overrides=AA),
    Case("dinov2_vits14", "hf_dinov2", hf_dinov2, (182, 308), overrides=PLAIN),
    Case(
        "dinov2_vitb14", "dinov2", timm_vit, (182, 308), name="vit_base_patch14_dinov2", overrides=AA, rename=meta_names
    ),
    Case("dinov2_vits14_reg", "timm", timm_vit, (182, 308), name="vit_small_patch14_reg4_dinov2"),
    Case("dinov2_vits14_reg", "hf_dinov2_with_registers", hf_dinov2, (182, 308)),
    Case("dinov2_vitg14", "hf_dinov2", hf_dinov2, (182, 308), overrides=PLAIN, depth=1),
    Case(
        "dinov2_vitg14_reg",
        "dinov2",
        timm_vit,
        (182, 308),
        name="vit_giant_patch14_reg4_dinov2",
        depth=1,
        rename=meta_names,
    ),
    Case(
        "nv_dinov2_vitg14_reg4",
        "tao_nvdinov2",
        timm_vit,
        (182, 308),
        name="vit_giant_patch14_reg4_dinov2",
        depth=1,
        overrides=AA,
        rename=unfolded,
    ),
)
