"""docs/parity.md: what it says of the comparisons with the authors' own code, and that it is up to date."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from fmjax.errors import CheckpointError, UsageError
from fmjax.names import get_weights, list_models
from tests.conftest import pytest_ignore_collect
from tests.parity import packaged, report
from tests.parity.authors import record, run
from tests.parity.authors.compare import FOLDERS, ORIGINALS, available

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


class Config:
    """pytest's, of which one option is asked."""

    def __init__(self, authors: Path | None):
        self.authors = authors

    def getoption(self, name: str) -> Path | None:
        return getattr(self, name)


@pytest.fixture(scope="module")
def comparisons():
    return record.load(RESULTS / "authors.json")


def test_the_page_is_what_the_stored_results_say():
    page = report.page(RESULTS / "parity.json", RESULTS / "authors.json")
    assert page == (ROOT / "docs" / "parity.md").read_text(), (
        "run `python -m weights_conversion parity --page`"
    )


def test_the_figures_in_the_package_are_those_of_the_stored_results():
    assert packaged.PACKAGED.read_text() == packaged.text(), "run `python -m tests.parity.packaged`"
    # and none of them is better than what was measured
    rows = json.loads((RESULTS / "parity.json").read_text())["results"]
    shipped = json.loads(packaged.PACKAGED.read_text())["models"]
    for row in rows:
        found = shipped[row["model"]][row["dialect"]]
        assert all(row[name] <= found[name] * (1 + 1e-9) for name in packaged.ERRORS)
    assert {row["model"] for row in rows} == set(shipped)


def test_the_page_speaks_of_every_published_row_once(comparisons):
    compared = [row.name for row in comparisons]
    alike = [
        weights.name for row in comparisons for weights in record.same_function(row, comparisons)
    ]
    rows = [line.strip("| ").partition(" | ") for line in record.remaining(comparisons)]
    rest = [model + tag for model, _, tags in rows for tag in tags.split(", ")]
    published = [get_weights(name) for name in list_models(pretrained=True)]
    others = [weights.name for weights in published if record.by_open_clip(weights)]
    found = sorted([*compared, *alike, *rest, *others])
    without_weights = [
        model for model in list_models() if not any(w.model == model for w in published)
    ]
    assert found == sorted(
        [*(w.name for w in published if w.model != record.OWN), *without_weights]
    )


def test_a_row_that_was_not_compared_says_so(comparisons):
    assert (
        "| mae_vit_base_patch16 | .pretrain |"
        in record.section(comparisons).partition("**Not yet**")[2]
    )


def test_other_weights_of_the_same_code_are_told_from_those_of_another(comparisons):
    by_name = {row.name: row for row in comparisons}
    tips = record.same_function(by_name["tips_b14.tips_v1_hr"], comparisons)
    assert [weights.name for weights in tips] == ["tips_b14.tips_v2"]
    # OpenAI's code computes another activation than that of the rows of the same architecture
    assert record.same_function(by_name["ViT-L-14-336.openai"], comparisons) == []
    assert record.same_function(by_name["ViT-B-32.openai"], comparisons) == []


def test_a_comparison_beyond_the_bound_is_named_and_set_in_bold(comparisons):
    wrong = replace(comparisons[0], tokens=0.25)
    text = record.section([wrong, *comparisons[1:]])
    assert "| **2.5e-01** |" in text
    assert f"another function than that code computes: {wrong.name}" in " ".join(text.split())
    assert replace(wrong, tokens=float("nan")).over


def test_results_of_a_part_leave_the_others_as_they_were(tmp_path, comparisons):
    path = tmp_path / "authors.json"
    record.store(path, comparisons)
    record.store(path, [replace(comparisons[1], compared="2100-01-01")])
    found = record.load(path)
    assert [row.name for row in found] == [row.name for row in comparisons]
    changed = [
        new.name
        for new, old in zip(found, comparisons, strict=True)
        if new.compared != old.compared
    ]
    assert changed == [comparisons[1].name]


def test_a_comparison_that_fails_is_no_longer_in_the_page(
    tmp_path, comparisons, monkeypatch, capsys
):
    def refused(original, directory):
        raise CheckpointError(f"{original.name} is refused")

    monkeypatch.setattr(run, "compare", refused)
    (tmp_path / "CLIP").mkdir()
    path = tmp_path / "authors.json"
    record.store(path, comparisons)
    assert run.run(tmp_path, "ViT-B-16.openai", path) == 1
    assert {row.name for row in comparisons} - {row.name for row in record.load(path)} == {
        "ViT-B-16.openai"
    }
    assert (
        "fails ViT-B-16.openai: CheckpointError: ViT-B-16.openai is refused"
        in capsys.readouterr().out
    )


def test_weights_that_a_name_computes_otherwise_than_the_file_are_named(comparisons):
    same = [replace(row, by_name="") for row in comparisons]
    assert "all of these are computed the same" in record.by_name(same)
    text = record.by_name([same[0], replace(same[1], by_name="resample bicubic")])
    assert f"otherwise: {same[1].name} by resample bicubic." in " ".join(text.split())


def test_every_original_is_a_published_row_and_every_depth_fits():
    assert len({row.name for row in ORIGINALS}) == len(ORIGINALS)
    for row in ORIGINALS:
        assert row.name in list_models(pretrained=True)
        assert 1 <= row.blocks <= row.spec.depth
        for size in row.sizes:
            assert all(side % row.spec.patch_size == 0 for side in size)


def test_only_code_that_is_there_makes_cases(tmp_path):
    (tmp_path / "dinov2").mkdir()
    assert {row.repository for row in available(tmp_path)} == {"facebookresearch/dinov2"}


@pytest.mark.parametrize(
    ("name", "reason"),
    [("absent", "is no directory"), ("empty", "holds none of the authors' repositories")],
)
def test_a_directory_without_the_code_is_one_sentence(tmp_path, name, reason, capsys):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=reason) as error:
        available(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)
    assert all(folder in str(error.value) for folder in FOLDERS)
    assert report.main(["--authors", str(tmp_path / name)]) == 2
    assert capsys.readouterr().err == f"{error.value}\n"


def test_without_the_code_nothing_is_collected():
    path = ROOT / "tests" / "parity" / "test_authors.py"
    assert path.is_file()
    assert pytest_ignore_collect(path, Config(None))
    assert not pytest_ignore_collect(path, Config(Path("here")))
    assert not pytest_ignore_collect(path.with_name("test_models.py"), Config(None))


def test_a_page_is_written_from_stored_results_alone(tmp_path, comparisons, monkeypatch):
    monkeypatch.setattr(report, "measure", None)
    monkeypatch.setattr(report, "run", None)
    stored = json.loads((RESULTS / "parity.json").read_text())
    (tmp_path / "parity.json").write_text(json.dumps(stored | {"date": "2100-01-01"}))
    (tmp_path / "authors.json").write_text(json.dumps([asdict(comparisons[0])]))
    files = [
        "--json",
        str(tmp_path / "parity.json"),
        "--authors-json",
        str(tmp_path / "authors.json"),
    ]
    assert report.main(["--page", *files, "--out", str(tmp_path / "page.md")]) == 0
    text = (tmp_path / "page.md").read_text()
    assert "on 2100-01-01 with torch" in text
    assert "Compared: 1; all are within the bound." in text


def test_a_part_measured_again_is_dated_beside_the_whole(tmp_path):
    path = tmp_path / "parity.json"
    path.write_text((RESULTS / "parity.json").read_text())
    whole, found = json.loads(path.read_text()), report.stored(path)
    report.store(path, found, whole=False)
    again = json.loads(path.read_text())
    assert again["results"] == whole["results"]
    first = whole["date"].partition(",")[0]
    assert again["date"].startswith(f"{first}, some lines again on 2")
    assert again["versions"] == whole["versions"]
