"""DINOv2 as Meta publishes it; its training checkpoints; TIPS, which has its names; and NVIDIA's, which has timm's MLP
names and the registers' own (TAO dino_v2.py)."""

from dataclasses import replace

from weights_conversion.dialect import Dialect, Rule
from weights_conversion.dialects.parts import GATE, QKV, gate_and_up, joined_linear, linear, norm
from weights_conversion.dialects.timm import TIMM_VIT, TIMM_VIT_LAYERS
from weights_conversion.transforms import CONV, LEAD_1, LEAD_2

_PRETRAINING = {"mask_token": "used in pretraining only"}
_HEADS = {"dino_head.*": "training head", "ibot_head.*": "training head"}

_LAYERS = (
    Rule("patch_embed.proj.weight", "patch_embed.kernel", CONV),
    Rule("patch_embed.proj.bias", "patch_embed.bias"),
    *norm("blocks.{i}.norm1", "blocks.{i}.norm1"),
    *joined_linear("blocks.{i}.attn.qkv", "blocks.{i}.attn", QKV),
    *linear("blocks.{i}.attn.proj", "blocks.{i}.attn.out"),
    Rule("blocks.{i}.ls1.gamma", "blocks.{i}.ls1.scale"),
    *norm("blocks.{i}.norm2", "blocks.{i}.norm2"),
    *linear("blocks.{i}.mlp.fc1", "blocks.{i}.mlp.up", unless=GATE),
    *linear("blocks.{i}.mlp.fc2", "blocks.{i}.mlp.down", unless=GATE),
    *gate_and_up("blocks.{i}.mlp.w12"),
    *linear("blocks.{i}.mlp.w3", "blocks.{i}.mlp.down", when=GATE),
    Rule("blocks.{i}.ls2.gamma", "blocks.{i}.ls2.scale"),
    *norm("norm", "norm"),
)

DINOV2 = Dialect(
    name="dinov2",
    rules=(
        Rule("cls_token", "cls_token", LEAD_2),
        Rule("pos_embed", "pos_embed", LEAD_1),
        Rule("register_tokens", "registers", LEAD_1),
        *_LAYERS,
    ),
    extras=_PRETRAINING | _HEADS,
    requires=("mask_token", "pos_embed", "blocks.0.ls1.gamma"),
    forbids=("visual.*",),
    sized={"register_tokens": (1, 4, None)},
    # backbone.: the teacher as its trainer saves it, teacher_checkpoint.pth
    containers=("", "backbone."),
)

# blocks.{chunk}.{block}, where the second number counts through all chunks (dinov2 vision_transformer.py, BlockChunk)
DINOV2_CHUNKED = replace(
    DINOV2,
    name="dinov2_chunked",
    requires=("pos_embed", "blocks.*.0.ls1.gamma"),
    renames=((r"(^|\.)blocks\.\d+\.(\d+)\.", r"\1blocks.\2."),),
    read_only="training checkpoints are not written; export to dinov2",
)

TIPS_NPZ = replace(
    DINOV2,
    name="tips_npz",
    rules=(
        Rule("cls_token", "cls_token", LEAD_2),
        Rule("pos_embed", "pos_embed", LEAD_1),
        Rule("register_tokens", "summary_tokens", LEAD_1),
        *_LAYERS,
    ),
    extras=_PRETRAINING,
    requires=(*DINOV2.requires, "register_tokens"),
    forbids=("visual.*", "vision_encoder.*"),
    sized={"register_tokens": (1, 1, None)},
    containers=("",),
)
HF_TIPSV2 = replace(
    TIPS_NPZ,
    name="hf_tipsv2",
    prefix="vision_encoder.",
    extras={
        "vision_encoder.mask_token": "used in pretraining only",
        "text_encoder.*": "text tower",
    },
    requires=("vision_encoder.mask_token", "vision_encoder.pos_embed"),
    forbids=(),
    sized={},
)

TAO_NVDINOV2 = replace(
    TIMM_VIT,
    name="tao_nvdinov2",
    code="tao",
    rules=(
        Rule("cls_token", "cls_token", LEAD_2),
        Rule("pos_embed", "pos_embed", LEAD_1),
        Rule("register_tokens", "registers", LEAD_1),
        *TIMM_VIT_LAYERS,
    ),
    requires=("cls_token", "pos_embed", "blocks.0.ls1.gamma", "blocks.0.mlp.fc1.weight"),
    forbids=("mask_token", "reg_token", "visual.*"),
    containers=(
        "",
        "backbone.",
        "model.model.backbone.",
        "model.backbone.",
        "model.encoder.",
        "model.",
    ),
)
# the trainer's Lightning checkpoint (TAO ssl/nvdinov2 pl_model.py): what its exports leave out is still there. Of its
# networks the one is taken that TAO goes on with: the average of a distilled student, else the teacher (export.py)
TAO_NVDINOV2_TRAINER = replace(
    TAO_NVDINOV2,
    extras=_PRETRAINING,
    requires=(*TAO_NVDINOV2.requires, "mask_token"),
    forbids=("reg_token", "visual.*"),
    containers=("student_ema.backbone.", "teacher.backbone.", "student.backbone."),
)
