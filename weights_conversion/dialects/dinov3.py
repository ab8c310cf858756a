"""DINOv3 as Meta publishes it (dinov3 vision_transformer.py, attention.py)."""

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from weights_conversion.dialect import Constant, Dialect, Rule
from weights_conversion.dialects.parts import GATE, QKV_KERNELS, linear, norm
from weights_conversion.errors import CheckpointError
from weights_conversion.transforms import CONV, LEAD_1, LEAD_2, LINEAR_SPLIT, MASKED_K


def rope_periods(periods: np.ndarray) -> Mapping[str, Any]:
    """What the stored rotary periods were rounded to. Raises CheckpointError for periods of another base."""
    exponents = np.arange(len(periods)) / len(periods)
    expected = (100.0**exponents).astype(np.float32)
    # a model that was in bfloat16 once holds them rounded, and turns by the rounded ones
    for dtype in (np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16)):
        rounded = expected.astype(dtype).astype(np.float32)
        if np.allclose(periods.astype(np.float32), rounded, rtol=1e-6, atol=0):
            return {"rope.period_dtype": dtype.name}
    raise CheckpointError(
        f"rope_embed.periods is not 100 ** (0 ... 1) as in every published DINOv3, but {periods[:4]}"
    )


DINOV3 = Dialect(
    name="dinov3",
    rules=(
        Rule("cls_token", "cls_token", LEAD_2),
        Rule("storage_tokens", "registers", LEAD_1),
        Rule("patch_embed.proj.weight", "patch_embed.kernel", CONV),
        Rule("patch_embed.proj.bias", "patch_embed.bias"),
        *norm("blocks.{i}.norm1", "blocks.{i}.norm1"),
        Rule("blocks.{i}.attn.qkv.weight", QKV_KERNELS, LINEAR_SPLIT[3]),
        Rule(
            "blocks.{i}.attn.qkv.bias",
            ("blocks.{i}.attn.q.bias", "blocks.{i}.attn.v.bias"),
            MASKED_K,
        ),
        *linear("blocks.{i}.attn.proj", "blocks.{i}.attn.out"),
        Rule("blocks.{i}.ls1.gamma", "blocks.{i}.ls1.scale"),
        *norm("blocks.{i}.norm2", "blocks.{i}.norm2"),
        *linear("blocks.{i}.mlp.fc1", "blocks.{i}.mlp.up", unless=GATE),
        *linear("blocks.{i}.mlp.fc2", "blocks.{i}.mlp.down", unless=GATE),
        *linear("blocks.{i}.mlp.w1", "blocks.{i}.mlp.gate"),
        *linear("blocks.{i}.mlp.w2", "blocks.{i}.mlp.up", when=GATE),
        *linear("blocks.{i}.mlp.w3", "blocks.{i}.mlp.down", when=GATE),
        Rule("blocks.{i}.ls2.gamma", "blocks.{i}.ls2.scale"),
        *norm("norm", "norm"),
    ),
    extras={
        "mask_token": "used in pretraining only",
        "rope_embed.periods": "rotary periods: derived, and checked",
        "local_cls_norm.*": "norm of local crops, used in pretraining only",
    },
    facts={"rope_embed.periods": rope_periods},
    constants={
        "blocks.{i}.attn.qkv.bias_mask": Constant(like="blocks.attn.q.bias", parts=(1.0, 0.0, 1.0))
    },
    requires=("storage_tokens", "rope_embed.periods"),
    read_only="Meta's files hold buffers and masked values of training; export to hf_dinov3 or timm",
)
