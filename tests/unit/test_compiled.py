"""What fmjax's own step and forward pass compile to for an H100 that is not here: no more than is known of them."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import fmjax
from benchmarks.compiled import page, roofline
from benchmarks.compiled.cases import HELD, KNOWN, SPLIT
from benchmarks.compiled.program import kernels
from benchmarks.gpu.cases import MODELS, Case

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / ".aot"  # where .ci/run puts XLA's compiler for NVIDIA's devices
STORED = json.loads(page.RESULTS.read_text())
ROWS = {row["row"]: row for row in STORED["rows"]}
LARGE = next(case for case in HELD if (case.kind, case.model) == ("train", "ViT-L/14"))


def depth_of(case: Case) -> int:
    return case.blocks or fmjax.get_spec(MODELS[case.model].ours).depth


def slack() -> float:
    """By the compiler of the stored figures they are exact, but for their last digit; others fuse otherwise."""
    return 0.002 if jax.__version__ == STORED["versions"]["jax"] else 0.15


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """What is held, compiled now, and its programs."""
    if not (PLUGIN / "jax_plugins").is_dir() and not importlib.util.find_spec("jax_plugins"):
        pytest.skip("jax-cuda13-plugin is not in .aot, where .ci/run puts it")
    folder = tmp_path_factory.mktemp("compiled")
    command = [sys.executable, "-m", "benchmarks.compiled", "--held"]
    command += ["--out", str(folder / "found.json"), "--keep", str(folder)]
    paths = os.pathsep.join([str(PLUGIN), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def found(kept) -> dict[str, dict]:
    rows = json.loads((kept / "found.json").read_text())["rows"]
    return {row["row"]: row for row in rows}


@pytest.mark.parametrize("case", HELD, ids=lambda case: case.name)
def test_a_program_does_no_more_than_is_known_of_it(case, found):
    worse = list(roofline.worse(found[case.name], ROWS[case.name], slack()))
    assert not worse, f"{worse}; if it is meant, run `python -m benchmarks.compiled --held`"


@pytest.mark.parametrize("case", HELD, ids=lambda case: case.name)
def test_scores_never_leave_the_chip_and_attention_is_computed_once(case, found):
    layer, depth = found[case.name]["layer"], depth_of(case)
    assert layer["of scores"] == 0
    # but in the last block, where the class token alone asks
    calls = (depth - 1) / depth
    assert layer["attention forward"] == pytest.approx(calls)
    assert layer["attention backward"] == pytest.approx(calls * (case.kind == "train"))


def test_eight_devices_exchange_their_parameters_alone(kept):
    """A block's once for each pass, and its gradients once, all of it at once or with another's, in bfloat16; of
    activations nothing."""
    found = json.loads((kept / "found.json").read_text())["exchanges"]
    # but the class token's position and the classifier, which are in float32
    large = [each for each in found if each["bytes"] > 5e6]
    assert {each["kind"] for each in large} == {"all-gather", "reduce-scatter"}
    # 12.6 million parameters of a block of ViT-L/14, and all else that is split: patches, positions, the projection
    weights = 2 * (SPLIT.blocks * 12.58e6 + 2.4e6)
    for kind, passes in {"all-gather": 2, "reduce-scatter": 1}.items():
        rows = [each for each in large if each["kind"] == kind]
        assert sum(each["count"] for each in rows) <= passes * SPLIT.blocks + 1
        travelled = sum(each["count"] * each["bytes"] for each in rows)
        assert travelled == pytest.approx(passes * weights, rel=0.05)
        assert {each["dtypes"] for each in rows} <= {"bf16", "bf16+f32"}


def test_a_kernel_more_in_a_layer_is_found(kept, found):
    text = gzip.decompress((kept / f"{LARGE.slug}.hlo.gz").read_bytes()).decode()
    depth, tokens = depth_of(LARGE), 257
    same = roofline.figures(kernels(text), depth=depth, tokens=tokens)
    assert same["layer"] == found[LARGE.name]["layer"]

    # the kernel of attention's forward pass stands in every block: a copy of a fusion goes before it
    lines = text.splitlines()
    called = [" custom-call(" in line and "/attention/pallas_call" in line for line in lines]
    places = [n for n, found in enumerate(called) if found]
    for number, place in reversed(list(enumerate(places))):
        line = next(line for line in lines[place::-1] if " fusion(" in line)
        lines.insert(place, re.sub(r"^(\s+)(?:ROOT )?%?[\w.\-]+", rf"\1%made_up.{number}", line))
    more = roofline.figures(kernels("\n".join(lines)), depth=depth, tokens=tokens)
    assert len(places) == depth - 1  # blocks are unrolled, and no loop's body stands for all
    added = more["layer"]["kernels"] - same["layer"]["kernels"]
    assert added == pytest.approx(len(places) / depth, abs=0.01)
    assert f"{LARGE.name}: kernels a layer" in next(
        roofline.worse(found[LARGE.name] | more, found[LARGE.name], 0.002)
    )


def test_the_table_is_that_of_the_results():
    shown = page.PAGE.read_text().partition(page.START)[2].partition(page.END)[0]
    assert shown.strip() == page.table(), "run `python -m benchmarks.compiled --table`"
    assert list(ROWS) == list(KNOWN)


LIBRARY = (
    'custom_call_target="__cublas$lt$matmul", backend_config={"lhs_contracting_dimensions":["1"]}'
)
PROGRAM = """
%body (p: (s32[], f32[8,4], f32[24,8,4])) -> (s32[], f32[8,4], f32[24,8,4]) {
  %p = (s32[], f32[8,4], f32[24,8,4]) parameter(0)
  %x = f32[8,4]{1,0} get-tuple-element(%p), index=1
  %w = f32[4,4]{1,0} constant({...})
  %product = (f32[8,4]{1,0}, s8[512]{0}) custom-call(%x, %w), LIBRARY
  %moved = f32[8,4]{1,0} fusion(%x), kind=kLoop, calls=%copied
}

%copied (a: f32[8,4]) -> f32[8,4] {
  %a = f32[8,4]{1,0} parameter(0)
  ROOT %c = f32[8,4]{0,1} copy(%a)
}

ENTRY %main (x: f32[8,4]) -> f32[8,4] {
  %x.1 = f32[8,4]{1,0} parameter(0)
  %t = (s32[], f32[8,4], f32[24,8,4]) tuple(%x.1)
  %loop = (s32[], f32[8,4], f32[24,8,4]) while(%t), condition=%c, body=%body, TRIPS
  ROOT %r = f32[8,4]{1,0} get-tuple-element(%loop), index=1
}
""".replace("LIBRARY", LIBRARY).replace("TRIPS", 'backend_config={"known_trip_count":{"n":"24"}}')


def test_kernels_count_as_often_as_their_loop_runs_with_what_they_read_and_write():
    product, moved = kernels(PROGRAM)
    assert (product.kind, product.times) == ("__cublas$lt$matmul", 24)
    # two operands and a result; the work space is no part of it
    assert product.bytes == 4 * (32 + 16 + 32)
    assert product.flops == 2 * 32 * 4
    assert (moved.times, moved.bytes) == (24, 4 * 64)
    layer = roofline.figures([product, moved], depth=24, tokens=257)["layer"]
    assert (layer["kernels"], layer["copies"]) == (2, 1)
