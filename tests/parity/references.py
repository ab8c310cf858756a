"""References in PyTorch: each reads a file of a dialect strictly, with its own loader, and answers with all its tokens,
its pooled output and its gradients."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

import weights_conversion as wc
from tests.support.torch_reference import numpy_tensors

Tensors = dict[str, np.ndarray]
TEXT = {"layers": 1, "width": 64, "heads": 2, "vocab_size": 64}


class Reference:
    """A model of another library, filled from a file of a dialect."""

    reads = ""  # the dialect that its own gradients are named in; "" is the file's

    def __init__(self, case: Any, file: Tensors, folder: Path):
        self.case, self.spec, self.folder, self.file = case, case.spec, folder, file
        self.model: Any = self.load(
            {key: torch.from_numpy(np.array(value)) for key, value in file.items()}
        )
        self.model.eval()

    def load(self, file: dict[str, torch.Tensor]) -> torch.nn.Module:
        raise NotImplementedError

    def run(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(all tokens, pooled output) of NCHW images."""
        raise NotImplementedError

    def gradients(self) -> Tensors:
        """The gradients, under the names of the dialect `reads`; zeros where a tensor has none."""
        named = {
            k: torch.zeros_like(p) if p.grad is None else p.grad
            for k, p in self.model.named_parameters()
        }
        return numpy_tensors({**self.model.state_dict(), **named})

    def is_native(self, images: torch.Tensor) -> bool:
        return tuple(images.shape[2:]) == self.case.sizes["native"]


class Timm(Reference):
    """timm, filled directly: its own names."""

    reads = "timm"

    def load(self, file):
        model = self.create()
        model.load_state_dict(self.filtered(file, model), strict=True)
        return model

    def create(self, **more: Any) -> Any:
        import timm

        name, arguments = self.case.timm
        pool = {"cls": "token", "map": "map", "patches": "avg"}[self.spec.pool]
        fixed = {
            "dynamic_img_size": True,
            "img_size": self.case.sizes["native"],
            "global_pool": pool,
        }
        arguments = fixed | arguments | more
        if not (self.spec.embed_dim or self.case.num_classes):
            arguments |= {"num_classes": 0}
        elif self.case.num_classes or self.spec.embed_dim:
            arguments |= {"num_classes": self.case.num_classes or self.spec.embed_dim}
        if self.spec.activation != "gelu" and "siglip" not in name and "quickgelu" not in name:
            arguments |= {
                "act_layer": {"quick_gelu": "quick_gelu", "gelu_tanh": "gelu_tanh"}[
                    self.spec.activation
                ]
            }
        return timm.create_model(name, pretrained=False, depth=self.spec.depth, **arguments)

    def filtered(self, file, model) -> Any:
        return file

    def run(self, images):
        # dynamic timm models refuse what their convolution would leave unread
        patch = self.spec.patch_size
        images = images[..., : images.shape[2] // patch * patch, : images.shape[3] // patch * patch]
        tokens = self.model.forward_features(images)
        pooled = self.model.forward_head(tokens, pre_logits=not self.spec.embed_dim)
        if getattr(self.model, "fc_norm", None) is not None and self.spec.norm_after_pool:
            tokens = self.model.fc_norm(tokens)
        return tokens, pooled


class TimmFilter(Timm):
    """timm, filled through the function with which it reads other publishers' files."""

    def filtered(self, file, model):
        from timm.models import eva, vision_transformer

        module = eva if isinstance(model, eva.Eva) else vision_transformer
        with contextlib.redirect_stdout(io.StringIO()):
            # it prints the exception by which it tells two variants
            state = dict(module.checkpoint_filter_fn(self.renamed(dict(file)), model))
        wanted = model.state_dict()
        if "head.bias" in wanted and "head.bias" not in state and self.spec.embed_dim:
            state["head.bias"] = torch.zeros_like(wanted["head.bias"])
        return state

    def renamed(self, file):
        """What timm does not do by itself: lifting a prefix, or telling registers without a mask token."""
        if self.case.dialect == "tao_nvdinov2":
            return file | {"mask_token": torch.zeros(1, self.spec.width)}
        if self.case.dialect == "dinov2_chunked":
            return {
                re.sub(r"blocks\.\d+\.(\d+)\.", r"blocks.\1.", key): value
                for key, value in file.items()
            }
        if self.case.dialect == "eva02_original":
            # timm takes a pretrained norm for fc_norm, but only beside a mask token
            return {re.sub(r"^norm\.", "fc_norm.", key): value for key, value in file.items()}
        if self.case.dialect in ("mae", "dino"):
            return {
                key: value
                for key, value in file.items()
                if key != "mask_token" and "decoder" not in key
            }
        return file


RADIO_LEADS = {"radio": "radio_model.model.", "radio_hub": "base_model."}
# as timm notes of the code in each published repository
RADIO_ALIGNED = ("C-RADIOv3-B", "C-RADIOv3-H")


class Radio(TimmFilter):
    """timm resamples RADIO's table when it loads, so there is one model for each size."""

    reads = ""

    def run(self, images):
        if tuple(images.shape[2:]) != getattr(self, "size", None):
            self.size = tuple(images.shape[2:])
            self.model = self.create(img_size=self.size, dynamic_img_size=False).eval()
            self.model.load_state_dict(self.resized(self.size), strict=True)
        tokens = self.model.forward_features(images)
        return tokens, tokens[:, list(self.spec.pool_tokens)].flatten(1)

    def resized(self, size) -> dict[str, torch.Tensor]:
        from timm.models.vision_transformer import _convert_radio

        lead = RADIO_LEADS[self.case.dialect]  # timm knows one of them
        file = {
            key.replace(lead, RADIO_LEADS["radio"], 1): torch.from_numpy(np.array(v))
            for key, v in self.file.items()
        }
        corners = self.case.dialect == "radio" and self.case.model in RADIO_ALIGNED
        return _convert_radio(
            file, self.create(img_size=size, dynamic_img_size=False), align_corners=corners
        )

    def load(self, file):
        return self.create(dynamic_img_size=False)

    def gradients(self):
        """Under RADIO's own names; the table's gradient is lost in timm's resampling."""
        theirs = Reference.gradients(self)
        tokens = np.concatenate([theirs.pop("cls_token")[0], theirs.pop("reg_token")[0]])
        weight = theirs.pop("patch_embed.proj.weight")
        out = {
            k.replace(".gamma", ".grandma"): v for k, v in theirs.items() if k.startswith("blocks.")
        }
        out |= {"patch_generator.cls_token.token": tokens}
        out |= {"patch_generator.embedder.weight": weight.reshape(len(weight), -1)}
        out |= {"patch_generator.pos_embed": np.zeros((1, 128 * 128, self.spec.width), np.float32)}
        return {RADIO_LEADS[self.case.dialect] + key: value for key, value in out.items()}


class TimmNpz(Timm):
    """timm, filled by its reader of Google's npz files."""

    def load(self, file):
        path = self.folder / "file.npz"
        np.savez(path, **self.file)
        model = self.create()
        model.load_pretrained(str(path))
        return model


class OpenClipTimm(Timm):
    """OpenCLIP's two towers, the image tower being timm's."""

    reads = ""

    def load(self, file):
        from open_clip.model import CustomTextCLIP

        stand_in = {
            "timm_model_name": "vit_tiny_patch16_224",
            "timm_model_pretrained": False,
            "timm_proj": None,
        }
        width = self.spec.embed_dim or self.spec.width
        model = CustomTextCLIP(width, stand_in | {"image_size": 224, "timm_pool": "token"}, TEXT)
        # the trunk, cut in depth and open to other sizes, for which open_clip's own constructor has no argument
        model.visual.trunk = self.create()
        text = {
            key: value for key, value in model.state_dict().items() if not key.startswith("visual.")
        }
        model.load_state_dict(text | file, strict=True)
        return model

    def run(self, images):
        both, self.model = self.model, self.model.visual.trunk
        try:
            return super().run(images)
        finally:
            self.model = both

    def gradients(self):
        return {
            key: value for key, value in super().gradients().items() if key.startswith("visual.")
        }


class OpenClip(Reference):
    """OpenCLIP's own vision transformer."""

    def build(self, size) -> Any:
        from open_clip.model import CLIP

        spec = self.spec
        config = {
            "layers": spec.depth,
            "width": spec.width,
            "patch_size": spec.patch_size,
            "image_size": size,
        }
        config |= {"head_width": spec.head_dim, "mlp_ratio": spec.mlp_dim / spec.width}
        if spec.norm_after_pool:
            config |= {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True}
        return CLIP(spec.embed_dim, config, TEXT, quick_gelu=spec.activation == "quick_gelu")

    def load(self, file):
        model = self.build(self.case.sizes["native"])
        text = {
            key: value for key, value in model.state_dict().items() if not key.startswith("visual.")
        }
        vision = {key: value for key, value in file.items() if key.startswith("visual.")}
        model.load_state_dict(text | vision, strict=True)
        return model

    def run(self, images):
        """A model for the size with this one's parameters, the table resized by open_clip's own function."""
        from open_clip.model import resize_pos_embed

        sized = self.build(tuple(images.shape[2:])).eval()
        state = {key: p.to(images.dtype) for key, p in self.model.named_parameters()}
        resize_pos_embed(state, sized)
        visual = {
            key.removeprefix("visual."): value
            for key, value in state.items()
            if key.startswith("visual.")
        }
        seen: list[torch.Tensor] = []
        hook = sized.visual.transformer.register_forward_hook(
            lambda module, args, out: seen.append(out)
        )
        pooled = torch.func.functional_call(sized.visual, visual, (images,))
        hook.remove()
        norm = (visual["ln_post.weight"], visual["ln_post.bias"])
        return torch.nn.functional.layer_norm(
            seen[0], norm[0].shape, *norm, eps=self.spec.norm_eps
        ), pooled

    def gradients(self):
        return {
            key: value for key, value in super().gradients().items() if key.startswith("visual.")
        }


class HuggingFace(Reference):
    """transformers, which reads a folder; its names in memory are others than on disk."""

    def classes(self) -> tuple[Any, Any, dict[str, Any]]:
        import transformers as t

        spec = self.spec
        sizes = {
            "hidden_size": spec.width,
            "num_hidden_layers": spec.depth,
            "num_attention_heads": spec.num_heads,
            "intermediate_size": spec.mlp_dim,
            "patch_size": spec.patch_size,
            "image_size": self.case.sizes["native"][0],
            "layer_norm_eps": spec.norm_eps,
        }
        swiglu = {"use_swiglu_ffn": spec.mlp == "swiglu"}
        registers = {"num_register_tokens": spec.num_registers}
        act = {"gelu": "gelu", "quick_gelu": "quick_gelu", "gelu_tanh": "gelu_pytorch_tanh"}[
            spec.activation
        ]
        clip = {"projection_dim": spec.embed_dim, "hidden_act": act}
        dinov3 = {
            "use_gated_mlp": spec.mlp == "swiglu",
            "query_bias": spec.qkv_bias,
            "value_bias": spec.qkv_bias,
        }
        dinov3 |= {"hidden_act": "silu"} if spec.mlp == "swiglu" else {}
        rms = {"rms_norm_eps": spec.norm_eps, "use_head": False}
        kinds = {
            "hf_clip": (t.CLIPVisionModelWithProjection, t.CLIPVisionConfig, clip),
            "hf_siglip": (t.SiglipVisionModel, t.SiglipVisionConfig, {"hidden_act": act}),
            "hf_dinov2": (t.Dinov2Model, t.Dinov2Config, swiglu),
            "hf_dinov2_with_registers": (
                t.Dinov2WithRegistersModel,
                t.Dinov2WithRegistersConfig,
                swiglu | registers,
            ),
            "hf_dinov3": (t.DINOv3ViTModel, t.DINOv3ViTConfig, dinov3 | registers),
            "hf_vit": (t.ViTModel, t.ViTConfig, {}),
            "hf_vit_mae": (t.ViTMAEModel, t.ViTMAEConfig, {"mask_ratio": 0.0}),
            "hf_aimv2": (t.Aimv2VisionModel, t.Aimv2VisionConfig, rms),
        }
        kind, config, more = kinds[self.case.dialect]
        return kind, config, sizes | more

    def load(self, file):
        kind, config, sizes = self.classes()
        arguments = {"add_pooling_layer": False} if self.case.dialect == "hf_vit" else {}
        config(**sizes).save_pretrained(self.folder)
        save_file(
            {k: np.ascontiguousarray(v) for k, v in self.file.items()},
            self.folder / "model.safetensors",
            {"format": "pt"},
        )
        model, info = kind.from_pretrained(
            self.folder, output_loading_info=True, dtype=torch.float32, **arguments
        )
        wrong = {key: value for key, value in info.items() if value and key != "error_msgs"}
        assert not wrong, wrong
        return model

    def run(self, images):
        other = {} if self.is_native(images) else {"interpolate_pos_encoding": True}
        dialect, model = self.case.dialect, self.model
        if dialect == "hf_clip":
            out = model(pixel_values=images, **other)
            return model.vision_model.post_layernorm(out.last_hidden_state), out.image_embeds
        if dialect == "hf_vit_mae":
            count = images.shape[2] * images.shape[3] // self.spec.patch_size**2
            other |= {"noise": torch.arange(count, dtype=torch.float32)[None]}
        if dialect in ("hf_dinov2", "hf_dinov2_with_registers", "hf_dinov3", "hf_aimv2"):
            other = {}
        out = model(pixel_values=images, **other)
        tokens = out.last_hidden_state
        if dialect == "hf_aimv2":
            return tokens, tokens.mean(1)
        return tokens, out.pooler_output if dialect not in ("hf_vit", "hf_vit_mae") else tokens[
            :, 0
        ]

    def gradients(self):
        """Saved like a model, so that they have the names of files."""
        with torch.no_grad():
            kept = [p.detach().clone() for p in self.model.parameters()]
            for p in self.model.parameters():
                p.copy_(torch.zeros_like(p) if p.grad is None else p.grad)
            self.model.save_pretrained(self.folder / "gradients")
            for p, value in zip(self.model.parameters(), kept, strict=True):
                p.copy_(value)
        return load_file(self.folder / "gradients" / "model.safetensors")


KINDS: dict[tuple[str, ...], type[Reference]] = {
    ("open_clip", "openai_jit"): OpenClip,
    ("open_clip_timm",): OpenClipTimm,
    ("timm",): Timm,
    ("augreg_npz", "big_vision_npz"): TimmNpz,
    ("radio", "radio_hub"): Radio,
    (
        "eva_clip",
        "eva02_original",
        "eva02_original_pretrain",
        "eva02_original_finetune",
        "dinov2",
        "dinov2_chunked",
        "tao_nvdinov2",
        "tips_npz",
        "hf_tipsv2",
        "dinov3",
        "mae",
        "dino",
        "pe_original",
        "aimv2",
    ): TimmFilter,
    tuple(
        name for name in wc.dialects() if name.startswith("hf_") and name != "hf_tipsv2"
    ): HuggingFace,
}
