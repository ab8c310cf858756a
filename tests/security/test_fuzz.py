"""Whatever a file holds, it is refused as a checkpoint or gives tensors as declared; nothing else ever escapes."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.security import build as b
from tests.security import mutate

QUICK = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=150,
    suppress_health_check=list(HealthCheck),
)
KINDS = st.sampled_from(["flip", "flip", "set", "cut", "end", "insert", "overwrite"])
CHANGES = st.lists(
    st.tuples(KINDS, st.integers(0, 4095), st.integers(1, 40), st.integers(0, 4095)),
    min_size=1,
    max_size=4,
)
NUMBERS = st.lists(
    st.one_of(st.integers(-3, 9), st.integers(-(1 << 70), 1 << 70)), min_size=3, max_size=8
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "x.pt"


@pytest.mark.parametrize("container", mutate.valid())
def test_a_mutated_file_is_refused_or_gives_what_it_declares(path, container):
    whole = mutate.valid()[container]
    path.write_bytes(whole)
    assert mutate.read_all(path) > 0

    @QUICK
    @given(changes=CHANGES)
    def run(changes):
        path.write_bytes(mutate.mutated(whole, changes))
        mutate.read_all(path)

    run()


@pytest.mark.parametrize("container", ["zip", "npz", "legacy", "safetensors"])
def test_no_single_flipped_bit_of_the_front_escapes(path, container):
    whole = mutate.valid()[container]
    for place in range(min(len(whole), 400)):
        path.write_bytes(b.replaced(whole, place, bytes([whole[place] ^ (1 << place % 8)])))
        mutate.read_all(path)


@pytest.mark.parametrize("form", mutate.inner())
def test_mutations_under_a_right_checksum_do_not_escape(path, form):
    inside, wrap = mutate.inner()[form]
    path.write_bytes(wrap(inside))
    assert mutate.read_all(path) > 0

    @QUICK
    @given(changes=CHANGES)
    def run(changes):
        path.write_bytes(wrap(mutate.mutated(inside, changes)))
        mutate.read_all(path)

    run()


@pytest.mark.parametrize("form", ["zip", "script", "legacy"])
def test_random_opcodes_are_refused_or_harmless(path, form):
    forms = {
        "zip": b.torch_zip,
        "script": lambda body: b.torch_zip(body, ("x/constants.pkl", b.program(b")"))),
        "legacy": lambda body: b.legacy(body[2:-1]),
    }

    @QUICK
    @given(codes=st.lists(st.integers(0, 60), max_size=40), numbers=NUMBERS)
    def run(codes, numbers):
        path.write_bytes(forms[form](mutate.stream(codes, numbers)))
        mutate.read_all(path)

    run()


@pytest.mark.parametrize("form", ["offsets", "shapes", "strides"])
def test_random_tensor_geometry_is_refused_or_inside(path, form):
    @QUICK
    @given(shape=NUMBERS, strides=NUMBERS, offset=st.integers(-2, 1 << 66))
    def run(shape, strides, offset):
        shape, strides = shape[:3], strides[:3]
        fields = {
            "offsets": {"offset": offset % 9 - 1},
            "shapes": {"shape": shape, "strides": (0, 0, 0)},
        }
        fields["strides"] = {"shape": shape, "strides": strides, "offset": offset}
        path.write_bytes(b.torch_zip(b.program(b.pairs({"w": b.tensor(**fields[form])}))))
        mutate.read_all(path)

    run()
