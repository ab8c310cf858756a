"""What people type finds what they mean: parts of names, families, tags, timm's names."""

from __future__ import annotations

import json

import pytest

import fmjax
from fmjax import names
from fmjax.cli import main

TIMM = sorted(
    {
        source.location
        for name in fmjax.list_models(pretrained=True)
        for source in fmjax.get_weights(name).sources
        if source.kind == "hf" and source.location.startswith("timm/")
    }
)


@pytest.mark.parametrize("pattern", ["clip", "*clip*", "CLIP"])
def test_clip_finds_every_clip(pattern):
    found = fmjax.list_models(pattern)
    assert {
        "ViT-B-16",
        "ViT-L-14",
        "EVA02-L-14",
        "ViT-L-14-CLIPA",
        "ViT-H-14-SigLIP-CLIPA-224",
    } <= set(found)
    assert not any(name.startswith("ViT-B-16-SigLIP") or "dino" in name for name in found)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (
            "openai",
            ["ViT-B-32.openai", "ViT-B-16.openai", "ViT-L-14.openai", "ViT-L-14-336.openai"],
        ),
        (
            "*openai*",
            ["ViT-B-32.openai", "ViT-B-16.openai", "ViT-L-14.openai", "ViT-L-14-336.openai"],
        ),
        ("dinov2_vits14_reg", ["dinov2_vits14_reg.lvd142m"]),
        ("vit_base_patch16_clip_224.openai", ["ViT-B-16.openai"]),
    ],
)
def test_weights_are_found_by_tag_and_by_other_names(pattern, expected):
    assert fmjax.list_models(pattern, pretrained=True) == expected


def test_an_architecture_is_found_by_its_tags_and_family():
    assert "ViT-B-16" in fmjax.list_models("openai")
    assert all("siglip" in name.lower() for name in fmjax.list_models("siglip"))
    assert set(fmjax.list_models("mae")) == {s for s in fmjax.list_models() if s.startswith("mae_")}
    assert fmjax.list_models("nothing") == []


def test_rows_of_an_architecture_are_its_own():
    assert [w.tag for w in names.weights_of("aimv2_large")] == ["224px", "336px", "448px"]
    assert names.weights_of("ViT-B-16.openai") == []


@pytest.mark.parametrize("location", TIMM)
def test_timms_own_names_are_understood(location):
    plain = location.removeprefix("timm/")
    assert names.resolve(plain) == names.resolve(location) == names.resolve(f"hf-hub:{location}")


def test_timms_architecture_with_our_tag_is_understood():
    assert (
        names.resolve("vit_base_patch16_clip_224.laion2b_s34b_b88k") == "ViT-B-16.laion2b_s34b_b88k"
    )


def test_a_search_without_a_hit_does_not_offer_a_random_model(capsys):
    assert main(["models", "*nothing*"]) == 2
    error = capsys.readouterr().err
    assert "did you mean" not in error
    assert "`fmjax models` lists all" in error


def test_info_is_a_page_for_people_and_json_for_machines(capsys):
    assert main(["info", "vit_base_patch16_clip_224.openai"]) == 0
    page = capsys.readouterr().out
    assert len(page.splitlines()) < 25
    for fact in (
        "ViT-B-16.openai",
        "86.2 M, 345 MB in float32",
        "35.1 GFLOPs",
        "MIT",
        "quick_gelu",
        "224 x 224",
    ):
        assert fact in page
    assert main(["info", "ViT-B-16.openai", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["gflops"] == 35.13
    assert facts["weights"]["mean"][0] == 0.48145466
