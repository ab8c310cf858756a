"""C-RADIO as NVIDIA publishes it on the hub (RADIO radio/radio_model.py, vit_patch_generator.py), and for torch.hub
(hubconf.py): class tokens, one for each teacher, and registers in one table."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from weights_conversion.dialect import Dialect, Fact, Rule
from weights_conversion.dialects.parts import QKV, joined_linear, linear, norm
from weights_conversion.errors import CheckpointError
from weights_conversion.transforms import LEAD_1, PATCH_LINEAR, ROWS

_NORMALISER = (
    "RADIO rotates and scales the features of the backbone by it, and fmjax does not, so its numbers would be others; "
    "pass a file without it"
)
# OpenAI CLIP's
_MEAN, _STD = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def summary_tokens(indices: np.ndarray) -> Mapping[str, Any]:
    """Which class tokens the summary joins."""
    return {"pool_tokens": [int(i) for i in indices.ravel()]}


def conditioner(expected: tuple[float, ...]) -> Fact:
    """Holds the statistics in a file against those that the preprocessing uses."""

    def check(values: np.ndarray) -> Mapping[str, Any]:
        if not np.allclose(values.astype(np.float32).ravel(), expected, rtol=1e-2):
            raise CheckpointError(
                f"input_conditioner holds {values.ravel()}, expected {expected} as in all C-RADIO"
            )
        return {}

    return check


RADIO = Dialect(
    name="radio",
    prefix="model.",
    rules=(
        Rule("patch_generator.cls_token.token", ("cls_token", "summary_tokens", "registers"), ROWS),
        Rule("patch_generator.pos_embed", "pos_embed", LEAD_1),
        Rule("patch_generator.embedder.weight", "patch_embed.kernel", PATCH_LINEAR),
        *norm("blocks.{i}.norm1", "blocks.{i}.norm1"),
        *joined_linear("blocks.{i}.attn.qkv", "blocks.{i}.attn", QKV),
        *linear("blocks.{i}.attn.proj", "blocks.{i}.attn.out"),
        Rule("blocks.{i}.ls1.grandma", "blocks.{i}.ls1.scale"),
        *norm("blocks.{i}.norm2", "blocks.{i}.norm2"),
        *linear("blocks.{i}.mlp.fc1", "blocks.{i}.mlp.up"),
        *linear("blocks.{i}.mlp.fc2", "blocks.{i}.mlp.down"),
        Rule("blocks.{i}.ls2.grandma", "blocks.{i}.ls2.scale"),
    ),
    extras={
        "input_conditioner.norm_*": "mean and standard deviation: part of the preprocessing here",
        "summary_idxs": "which class tokens the summary joins",
        "model.reg_token": "left over, used by nothing",
        "adaptors.*": "adaptor to a teacher",
        "_adaptors.*": "adaptor to a teacher",
    },
    refuses={"*feature_normalizer.*": _NORMALISER},  # of the last block, and of those before it
    facts={
        "summary_idxs": summary_tokens,
        "input_conditioner.norm_mean": conditioner(_MEAN),
        "input_conditioner.norm_std": conditioner(_STD),
    },
    requires=("model.patch_generator.cls_token.token", "model.patch_generator.embedder.weight"),
    containers=("radio_model.", ""),
)
# the heads of the teachers and the statistics stand outside the container
RADIO_HUB = replace(
    RADIO,
    name="radio_hub",
    prefix="",
    extras={"reg_token": "left over, used by nothing"},
    requires=("patch_generator.cls_token.token", "patch_generator.embedder.weight"),
    containers=("base_model.",),
)
