"""What devices can compute at most: by the names that jax gives them, and nothing where that is not known."""

from __future__ import annotations

import re

import pytest

from fmjax.models.peaks import PEAKS, TERA, peak

# name -> 10^12 operations a second in bfloat16 and in float32; of the sheets' figures those for dense matrices
KNOWN = {
    "NVIDIA B200": (2250, 1125),
    "NVIDIA H100 80GB HBM3": (989.4, 494.7),
    "NVIDIA H100 PCIe": (756.5, 378),
    "NVIDIA H100 NVL": (835.5, 417.5),
    "NVIDIA H200": (989.4, 494.7),
    "NVIDIA H200 NVL": (835.5, 417.5),
    "NVIDIA GH200 480GB": (989.4, 494.7),
    "NVIDIA A100-SXM4-40GB": (312, 156),
    "NVIDIA A100 80GB PCIe": (312, 156),
    "NVIDIA A30": (165, 82),
    "NVIDIA A40": (149.7, 74.8),
    "NVIDIA A10": (125, 62.5),
    "NVIDIA A10G": (70, 35),
    "NVIDIA L40S": (362.05, 183),
    "NVIDIA L40": (181.05, 90.5),
    "NVIDIA L4": (121, 60),
    "NVIDIA RTX A6000": (154.8, 77.4),
    "NVIDIA GeForce RTX 3090": (71, 35.6),
    "NVIDIA GeForce RTX 4080": (97.5, 48.7),
    "NVIDIA GeForce RTX 4090": (165.2, 82.6),
    "NVIDIA GeForce RTX 5090": (209.5, 104.8),
    "Tesla T4": (None, 8.1),
    "Tesla V100-SXM2-16GB": (None, 15.7),
    "Tesla V100-PCIE-16GB": (None, 14),
    "TPU v2": (22.5, 22.5),
    "TPU v3": (61.5, 61.5),
    "TPU v4": (275, 275),
    "TPU v5 lite": (197, 197),
    "TPU v5": (459, 459),
    "TPU v5p": (459, 459),
    "TPU v6 lite": (918, 918),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_device_has_its_makers_figures(name):
    found = [peak(name, dtype) for dtype in ("bfloat16", "float32")]
    wanted = [None if figure is None else figure * TERA for figure in KNOWN[name]]
    assert found == wanted


def test_every_row_is_the_first_of_some_device():
    firsts = {
        next(pattern for pattern, *_ in PEAKS if re.fullmatch(pattern, name)) for name in KNOWN
    }
    assert firsts == {pattern for pattern, *_ in PEAKS}


@pytest.mark.parametrize(
    "name",
    ["cpu", "", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA A100-SXM4-40GB MIG 3g.20gb", "Quadro"],
)
def test_nothing_is_said_of_parts_of_a_card_and_of_others(name):
    assert [peak(name, dtype) for dtype in ("bfloat16", "float16", "float32")] == [None] * 3


def test_types_that_a_device_does_not_have_are_not_known():
    assert peak("Tesla T4", "float16") == 65 * TERA
    assert peak("TPU v4", "float16") is None
    assert peak("NVIDIA L4", "float64") is None
