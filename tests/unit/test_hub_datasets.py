"""Datasets of the hub: fetched as Parquet, taken at a commit that stays, and there without the network."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants

from fmjax.config.data import DataConfig
from fmjax.config.run import RunConfig
from fmjax.data.commits import as_recorded, commit_of, unpinned
from fmjax.data.sources import open_source
from fmjax.engine import reruns
from fmjax.engine.records import CLASSES, CONFIG, config_record
from fmjax.errors import DataError
from fmjax.programs.finetune import examined
from fmjax.store import datasets
from tests.support import hub, sets
from tests.support.misbehaving_server import Reply

NAME = "hf:me/pets"
PINNED = f"{NAME}@{hub.COMMIT}"
FACTS = "/api/datasets/me/pets/revision/refs%2Fconvert%2Fparquet?blobs=true"


@pytest.fixture
def server(online, tmp_path, monkeypatch):
    monkeypatch.setenv("FMJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FMJAX_TIMEOUT_S", "0.3")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with hub.reached(monkeypatch) as server:
        hub.publish(server)
        yield server


def opened(source: str = NAME, **options):
    return open_source(DataConfig(source=source, **options))


@pytest.fixture
def stays(monkeypatch, server):
    """What makes the hub one that cannot be reached any more."""

    def cut() -> None:
        def refused(address: str) -> None:
            raise datasets.UnreachableError("127.0.0.1 cannot be reached (no network)")

        monkeypatch.setattr(datasets, "contact", refused)

    return cut


def test_a_dataset_of_the_hub_is_fetched_as_parquet(server):
    splits = opened()
    for name, part in (("train", splits.train), ("val", splits.val)):
        assert sets.contents(part) == [(content, label) for _, content, label in sets.images(name)]
    assert splits.train.names(0) == "train/0000.parquet:0"
    assert splits.source == PINNED
    assert splits.notes[0] == (
        f"hf:me/pets is taken at the commit {hub.COMMIT}, the newest one; a run goes on with it"
    )
    # named with its commit there is nothing to say, and nothing to ask
    server.seen.clear()
    again = opened(f"{PINNED}#val")
    assert (len(again.train), again.source, again.notes) == (4, f"{PINNED}#val", ())
    assert server.seen == []


def test_one_of_several_configurations_is_named(server):
    hub.publish(server, config="small")
    assert len(opened().train) == 9
    assert len(opened(f"{NAME}:small").train) == 9
    assert opened(f"{NAME}:small").source == f"{NAME}:small@{hub.COMMIT}"
    hub.publish(server, hub.LATER, config="small")
    hub.publish(server, hub.LATER, config="large")
    with pytest.raises(
        DataError,
        match=r"hf:me/pets has the configurations large, small; .* as in hf:me/pets:large",
    ):
        opened()
    server.publish(hub.REPO, hub.LATER, "small/partial-train/0000.parquet", b"x")
    with pytest.raises(DataError, match="has only the first 5 GB of partial-train"):
        opened(f"{NAME}:small")


def test_a_commit_stays_what_it_is_when_the_dataset_changes(server):
    before = opened()
    rows = sets.images("train")[:3]
    server.publish(hub.REPO, hub.LATER, "default/train/0000.parquet", hub.parquet(rows))
    assert len(opened().train) == 3
    assert sets.contents(opened(before.source).train) == sets.contents(before.train)
    assert len(opened(PINNED, stream=True).train) == 9


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (NAME, NAME),
        (PINNED, NAME),
        (f"{NAME}:small@{hub.COMMIT}#val", f"{NAME}:small#val"),
        (f"folder:x@{hub.COMMIT}", f"folder:x@{hub.COMMIT}"),
        (f"{NAME}@main", f"{NAME}@main"),
    ],
)
def test_a_commit_is_told_from_the_rest_of_a_source(source, expected):
    assert unpinned(source) == expected
    assert bool(commit_of(source)) == (source != expected)
    other = f"{NAME}@{hub.LATER}"
    assert as_recorded(NAME, PINNED) == PINNED
    assert as_recorded(other, PINNED) == other
    assert as_recorded("digits", PINNED) == "digits"


def test_a_run_goes_on_with_the_commit_that_it_began_with(tmp_path):
    config = RunConfig(data=DataConfig(source=NAME))
    assert reruns.as_pinned(tmp_path, config) == config
    recorded = reruns.with_source(config, PINNED)
    (tmp_path / CONFIG).write_text(json.dumps(config_record(recorded)))
    (tmp_path / CLASSES).write_text(json.dumps(sets.CLASSES))
    assert reruns.as_pinned(tmp_path, config) == config
    # a run that has saved nothing binds nobody
    (tmp_path / "checkpoints" / "2").mkdir(parents=True)
    (tmp_path / "checkpoints" / "2" / "commit_success.txt").touch()
    assert reruns.as_pinned(tmp_path, config).data.source == PINNED
    assert reruns.as_pinned(tmp_path, replace(config, fresh=True)).data.source == NAME
    assert reruns.as_pinned(tmp_path / "x", config, tmp_path).data.source == PINNED
    other = reruns.with_source(config, f"{NAME}@{hub.LATER}")
    assert reruns.as_pinned(tmp_path, other) == other


def test_a_new_run_records_the_commit_and_says_it(server, tmp_path, capsys):
    config, images = examined(RunConfig(out=str(tmp_path / "run"), data=DataConfig(source=NAME)))
    assert config.data.source == PINNED
    assert len(images.train) == 9
    assert f"hf:me/pets is taken at the commit {hub.COMMIT}" in " ".join(
        capsys.readouterr()[0].split()
    )


def test_what_is_here_starts_without_a_network(server, stays, monkeypatch):
    expected = sets.contents(opened().train)
    stays()
    server.seen.clear()
    found = opened()
    assert sets.contents(found.train) == expected
    assert "the last that is known, as 127.0.0.1 cannot be reached (no network)" in found.notes[0]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "nothing is fetched offline (FMJAX_OFFLINE or HF_HUB_OFFLINE" in opened().notes[0]
    assert server.seen == []


def test_what_another_program_left_in_the_hubs_cache_is_used_and_said(server, stays, tmp_path):
    opened()
    shutil.rmtree(tmp_path / "cache" / "hub")
    reference = tmp_path / "hub" / "datasets--me--pets" / "refs" / "refs" / "convert" / "parquet"
    reference.parent.mkdir(parents=True)
    reference.write_text(hub.COMMIT)
    stays()
    found = opened()
    assert len(found.train) == 9
    assert (
        found.notes[1] == "whether these are all files of hf:me/pets is not known without the hub"
    )
    assert len(opened(PINNED).train) == 9
    with pytest.raises(DataError, match=r"hf:me/pets@b{40} cannot be fetched: .*\(no network\)"):
        opened(f"{NAME}@{hub.LATER}")


def test_a_download_that_was_not_finished_is_not_taken_for_the_set(server, stays, tmp_path):
    opened()
    (gone, *_) = sorted((tmp_path / "hub").rglob("snapshots/*/default/train/*.parquet"))
    gone.unlink()
    stays()
    server.always[hub.path("train/0000")] = Reply(404)
    with pytest.raises(DataError, match=r"hf:me/pets cannot be fetched: .*; check the name and"):
        opened()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("hf:no/body", "127.0.0.1 has no such dataset for you: check the name and HF_ENDPOINT"),
        (f"{NAME}@{hub.LATER}", "has no commit b{40} of it any more: leave @COMMIT out"),
        ("hf:../x y", "is no folder and no name of a dataset"),
        (f"{NAME}@abc", "where a COMMIT has 40 hexadecimal digits"),
    ],
)
def test_what_the_hub_has_not_is_said_in_a_sentence(server, source, said):
    for stream in (False, True):
        with pytest.raises(DataError, match=said) as caught:
            opened(source, stream=stream)
        assert str(caught.value).isprintable()


def _facts(**changes) -> Reply:
    facts = {"id": "me/pets", "sha": hub.COMMIT, "siblings": []} | changes
    return Reply(body=json.dumps(facts).encode())


def _file(name: str, size) -> Reply:
    return _facts(siblings=[{"rfilename": name, "size": size}])


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (_facts(sha="../../../pwned"), "with the commit '../../../pwned', not refs/convert"),
        (_file("../../x.parquet", 1), "lists '../../x.parquet' of me/pets, with '1' bytes"),
        (_file("default/train/0.parquet", -5), "with '-5' bytes, which is no file"),
        (_file("default/train/0.parquet", None), "with 'None' bytes, which is no file"),
        (_facts(), "has no CONFIG/PART/0000.parquet at the commit"),
        (Reply(403, {"X-Error-Code": "GatedRepo"}), "it is gated: accept its licence at"),
        (Reply(404, {"X-Error-Code": "RevisionNotFound"}), "has not made Parquet files of it"),
        (Reply(500), "answered 500 .*, 6 times"),
        (Reply(body=b"<html>"), "cannot be fetched: 127.0.0.1: "),
    ],
)
def test_what_a_hub_says_is_not_believed(server, tmp_path, reply, said):
    server.always[FACTS] = reply
    with pytest.raises(DataError, match=said) as caught:
        opened()
    assert str(caught.value).isprintable()
    assert not list(tmp_path.rglob("*pwned*"))


def test_a_list_that_was_kept_and_is_damaged_is_asked_for_again(server, tmp_path):
    opened()
    for path in Path(tmp_path / "cache" / "hub").iterdir():
        path.write_text('{"commit": "' + hub.COMMIT + '", "files": {"../x": 1}}')
    server.seen.clear()
    assert len(opened(PINNED).train) == 9
    assert len([seen for seen in server.seen if seen.path.startswith("/api/")]) == 1
