"""A program has the flags that it reads, and no others."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from fmjax import config as c
from fmjax.config.presets import load_preset
from fmjax.programs.average import main as average
from fmjax.programs.backbones import main as backbones
from fmjax.programs.bench import main as bench
from fmjax.programs.data_check import main as check
from fmjax.programs.data_pack import main as pack
from fmjax.programs.embed import main as embed_main
from fmjax.programs.evaluate import main as evaluate
from fmjax.programs.features import knn_main, probe_main
from fmjax.programs.finetune import finetune
from fmjax.programs.predict import main as predict
from fmjax.programs.report import main as report
from tests.support.sets import folder

COLUMNS = {
    f"data.{name}" for name in ("image_column", "label_column", "split_column", "label_separator")
}
MASKS = {"data.ignore"}
STREAMS = {"data.stream_window_mib", "data.stream_cache_gib"}
ELSEWHERE = COLUMNS | MASKS | STREAMS | {"data.data_dir", "hosts.join_timeout_s"}
FEW = c.ImagesConfig(source="digits")
MODEL = c.ModelConfig(name="demo_vit_ti4.fashion_mnist")


def kinds() -> list[type]:
    return [
        kind
        for kind in vars(c).values()
        if isinstance(kind, type) and dataclasses.is_dataclass(kind)
    ]


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(path, class and name) of every field that is a flag."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", f"{type(config).__name__}.{field.name}"


@pytest.fixture
def reads(monkeypatch) -> set[str]:
    """What is read of every config from now on, as class and name."""
    seen: set[str] = set()

    def watched(self: Any, name: str) -> Any:
        seen.add(f"{type(self).__name__}.{name}")
        return object.__getattribute__(self, name)

    for kind in kinds():
        monkeypatch.setattr(kind, "__getattribute__", watched, raising=False)
    return seen


@pytest.mark.parametrize(
    ("program", "kind", "options"),
    [
        (knn_main, c.KnnConfig, {"k": 3}),
        (probe_main, c.ProbeConfig, {"folds": 2, "max_iter": 50, "c": 0.01}),
        (embed_main, c.EmbedConfig, {}),
    ],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_program_reads_every_flag_that_it_has(
    tmp_path, reads, program: Callable, kind: type, options: dict
):
    if kind is c.EmbedConfig:
        options = {"out": str(tmp_path / "x.npz")}
    config = kind(model=MODEL, data=FEW, batch_size=256, **options)
    flags = dict(leaves(config))
    reads.clear()
    program(config)
    # no table, mask, stream or TensorFlow set is read here, nor where the latter lies; nor do several processes join
    unread = {path for path, field in flags.items() if field not in reads} - ELSEWHERE
    assert unread == set()


def test_training_reads_every_flag_that_it_has(tmp_path, reads):
    config = replace(load_preset("quickstart"), out=str(tmp_path / "run"), steps=2, batch_size=16)
    flags = dict(leaves(config))
    reads.clear()
    finetune(config)
    unread = {path for path, field in flags.items() if field not in reads} - ELSEWHERE
    assert unread == set()

    # and evaluation, which a run's own file gives most of what it needs
    evaluation = c.EvalConfig()
    flags = dict(leaves(evaluation))
    reads.clear()
    evaluate(str(tmp_path / "run"), evaluation)
    assert {path for path, field in flags.items() if field not in reads} == set()

    # and answers about a picture
    picture = tmp_path / "picture.png"
    Image.new("RGB", (8, 8)).save(picture)
    asked = c.PredictConfig(images=(str(picture),))
    flags = dict(leaves(asked))
    reads.clear()
    predict(str(tmp_path / "run"), asked)
    assert {path for path, field in flags.items() if field not in reads} == set()

    # and a report
    page = c.ReportConfig(maps=1, atlas=4)
    flags = dict(leaves(page))
    reads.clear()
    report(str(tmp_path / "run"), page)
    assert {path for path, field in flags.items() if field not in reads} == set()

    # and an average of runs
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    both = [str(tmp_path / name) for name in ("run", "other")]
    mean = c.AverageConfig(out=str(tmp_path / "mean"), greedy=True)
    flags = dict(leaves(mean))
    reads.clear()
    average(both, mean)
    assert {path for path, field in flags.items() if field not in reads} == set()


def test_a_page_of_several_backbones_reads_every_flag_that_it_has(tmp_path, reads):
    given = {"backbones": (MODEL.name, "demo_vit_ti4"), "checkpoints": ("published",) * 2}
    # as few as two folds have an image of every class for
    data = replace(FEW, source=f"folder:{folder(tmp_path / 'set')}")
    page = c.BackbonesConfig(**given, data=data, out=str(tmp_path / "x.html"), folds=2, maps=1)
    flags = dict(leaves(page))
    reads.clear()
    backbones(page)
    assert {path for path, field in flags.items() if field not in reads} - ELSEWHERE == set()


def test_timing_reads_every_flag_that_it_has(tmp_path, reads):
    given = {"kinds": ("forward", "weights"), "batch_size": 2, "seconds": 0.01}
    asked = c.BenchConfig(model=MODEL, out=str(tmp_path / "x.json"), **given)
    flags = dict(leaves(asked))
    reads.clear()
    bench(asked)
    assert {path for path, field in flags.items() if field not in reads} == set()


def test_looking_at_a_set_and_packing_it_read_every_flag_that_they_have(tmp_path, reads):
    data = c.ImagesConfig(source=f"folder:{folder(tmp_path / 'set')}")
    programs = (
        (
            check,
            c.DataCheckConfig(data=data, page=str(tmp_path / "page.html"), embed=MODEL.name),
            set(),
        ),
        (
            pack,
            c.DataPackConfig(data=data, out=str(tmp_path / "packed")),
            {"workers", "max_pixels"},
        ),
    )
    for program, config, refused in programs:
        flags = dict(leaves(config))
        reads.clear()
        program(config)
        unread = {path for path, field in flags.items() if field not in reads} - ELSEWHERE
        # which may only be as they are
        assert unread == {f"data.{name}" for name in refused}
