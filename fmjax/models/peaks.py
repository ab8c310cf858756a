"""What devices can compute at most, by their makers' own sheets. Imports no jax."""

from __future__ import annotations

import re

TERA = 1e12
HALVES, BRAIN, SINGLE = ("bfloat16", "float16"), ("bfloat16",), "float32"

# Name of a device, as jax has it -> 10^12 operations a second of its matrix units, dense (sheets also tell the double,
# for matrices half of which are zeros): in 16 bits, summed in float32, and in float32 as jax multiplies it unless it is
# told otherwise. That is TF32 on NVIDIA's cards from Ampere on, and one pass in bfloat16 on a TPU.
PEAKS: tuple[tuple[str, tuple[str, ...], float, float], ...] = (
    (r"NVIDIA B200", HALVES, 2250, 1125),  # HGX B200 data sheet, an eighth of the board's
    (r"NVIDIA H200 NVL", HALVES, 835.5, 417.5),  # H200 data sheet
    (r"NVIDIA (H200|GH200.*)", HALVES, 989.4, 494.7),  # H200 and GH200 data sheets
    (r"NVIDIA H100 NVL", HALVES, 835.5, 417.5),  # H100 data sheet
    (r"NVIDIA H100 PCIe", HALVES, 756.5, 378),  # H100 data sheet
    (r"NVIDIA H100( 80GB HBM3| SXM.*)?", HALVES, 989.4, 494.7),  # H100 data sheet
    (r"NVIDIA A100.*", HALVES, 312, 156),  # A100 data sheet, the same for all of them
    (r"NVIDIA A30", HALVES, 165, 82),  # A30 data sheet
    (r"NVIDIA A40", HALVES, 149.7, 74.8),  # A40 data sheet
    (r"NVIDIA A10", HALVES, 125, 62.5),  # A10 data sheet
    (r"NVIDIA A10G", HALVES, 70, 35),  # A10G data sheet
    (r"NVIDIA L40S", HALVES, 362.05, 183),  # L40S data sheet
    (r"NVIDIA L40", HALVES, 181.05, 90.5),  # L40 data sheet
    (r"NVIDIA L4", HALVES, 121, 60),  # L4 data sheet, whose figures are those with zeros
    (r"NVIDIA RTX A6000", HALVES, 154.8, 77.4),  # GA102 white paper
    (r"NVIDIA GeForce RTX 3090", HALVES, 71, 35.6),  # GA102 white paper, table 3
    (r"NVIDIA GeForce RTX 4080", HALVES, 97.5, 48.7),  # Ada white paper, appendix A
    (r"NVIDIA GeForce RTX 4090", HALVES, 165.2, 82.6),  # Ada white paper, appendix A
    (r"NVIDIA GeForce RTX 5090", HALVES, 209.5, 104.8),  # RTX Blackwell white paper, appendix A
    # before Ampere no bfloat16, and float32 outside of the matrix units
    (r"(NVIDIA )?Tesla T4", ("float16",), 65, 8.1),  # T4 data sheet
    (r"(NVIDIA )?Tesla V100-SXM.*", ("float16",), 125, 15.7),  # V100 data sheet
    (r"(NVIDIA )?Tesla V100-PCIE.*", ("float16",), 112, 14),  # V100 data sheet
    # cloud.google.com/tpu/docs: a chip, and for v2 and v3 a core, which is what jax counts there; float16 is not theirs
    (r"TPU v2", BRAIN, 22.5, 22.5),
    (r"TPU v3", BRAIN, 61.5, 61.5),
    (r"TPU v4", BRAIN, 275, 275),
    (r"TPU v5 lite|TPU v5e", BRAIN, 197, 197),
    (r"TPU v5|TPU v5p", BRAIN, 459, 459),
    (r"TPU v6 lite|TPU v6e", BRAIN, 918, 918),
)
# a part of a card has a part of its peak, which its name does not say
PARTS = re.compile(r"\bMIG\b")


def peak(device: str, dtype: str) -> float | None:
    """Operations a second of a device by its name; None where it is not known, or computes nothing in that type."""
    if PARTS.search(device):
        return None
    for pattern, short, in_16_bits, in_float32 in PEAKS:
        if re.fullmatch(pattern, device):
            rows = dict.fromkeys(short, in_16_bits) | {SINGLE: in_float32}
            return rows[dtype] * TERA if dtype in rows else None
    return None
