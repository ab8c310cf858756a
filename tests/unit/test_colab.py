"""What is asked about an installation into Colab. The installation itself is a step of .ci/run."""

from __future__ import annotations

import re
import tomllib

from packaging.requirements import Requirement

from tests.support.colab import ROOT, changed, installation, shipped


def test_a_version_that_an_installation_changes_or_removes_is_named():
    have = {"jax": "0.7.2", "numpy": "2.1.3"}
    assert changed(have, {**have, "timm": "1"}) == {}
    assert changed(have, {"jax": "0.10.2", "numpy": "2.1.3"}) == {"jax": "0.10.2"}
    assert changed(have, {"jax": "0.7.2"}) == {"numpy": ""}


def test_what_is_installed_is_the_notebook_s_own_line_with_this_checkout():
    assert installation() == ["install", "-q", str(ROOT)]


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
