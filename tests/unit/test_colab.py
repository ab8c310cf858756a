"""What is asked about an installation into Colab. The resolver itself is asked by .ci/run."""

from __future__ import annotations

import re
import tomllib

from packaging.requirements import Requirement

from tests.support.colab import ROOT, changed, shipped


def report(**versions: str) -> dict:
    rows = [{"metadata": {"name": name, "version": new}} for name, new in versions.items()]
    return {"install": rows}


def test_a_version_that_would_change_is_named():
    have = {"jax": "0.7.2", "huggingface_hub": "1.27"}
    same = report(jax="0.7.2", **{"huggingface-hub": "1.27.0"}, timm="1")
    assert changed(same, have) == {}
    assert changed(report(jax="0.10.2", **{"huggingface-hub": "1.27"}), have) == {"jax": "0.10.2"}


def test_a_package_that_nothing_asks_for_says_nothing_of_colab():
    assert changed(report(jax="0.7.2"), {"jax": "0.7.2", "numpy": "2.1.3"}) == {"numpy": ""}


def test_what_fmjax_asks_for_takes_what_colab_has():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {each.name: each for each in map(Requirement, project["dependencies"])}
    common = [name for name in shipped() if name in asked]
    assert len(common) >= 6
    assert [name for name in common if not asked[name].specifier.contains(shipped()[name])] == []


def test_the_oldest_jax_and_flax_that_are_supported_are_colab_s():
    project = (ROOT / "pyproject.toml").read_text()
    for name in ("jax", "flax"):
        assert re.search(rf'"{name}>={re.escape(shipped()[name])}"', project)
