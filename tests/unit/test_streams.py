"""Sets that are read from a web server as they are needed: the same examples as fetched ones, an order that depends on
the seed and the place alone, and one sentence for whatever the server does."""

from __future__ import annotations

import io
import re
import threading

import cloudpickle
import numpy as np
import pyarrow.parquet as pq
import pytest

from fmjax.config.data import DataConfig
from fmjax.data import groups
from fmjax.data.batches import eval_batches, train_batches
from fmjax.data.example import Examples, Stream
from fmjax.data.sampling import check_sampling, epoch_of, groups_of, mixing_note, streamed
from fmjax.data.sources import open_source
from fmjax.data.split import divide, joined
from fmjax.data.streams import MIB
from fmjax.errors import DataError, UsageError
from tests.support import hub, sets
from tests.support.misbehaving_server import Reply
from tests.unit.test_sources_kinds import size

NAME = "hf:me/pets"


@pytest.fixture
def server(online, tmp_path, monkeypatch):
    monkeypatch.setenv("FMJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FMJAX_TIMEOUT_S", "0.3")
    with hub.reached(monkeypatch) as server:
        hub.publish(server)
        yield server


def opened(source: str = NAME, **options):
    return open_source(DataConfig(source=source, stream=True, **options))


def parts(splits) -> list[Examples]:
    return [splits.train, splits.val]


# -- what comes


def test_a_stream_has_the_examples_names_and_classes_of_the_fetched_set(server, tmp_path):
    splits = opened()
    pictures = {seen.headers.get("Range") for seen in server.gets("parquet")}
    for name, part in zip(("train", "val"), parts(splits), strict=True):
        assert sets.contents(part) == [(content, label) for _, content, label in sets.images(name)]
    assert splits.train.classes == sets.CLASSES
    assert [splits.train.names(i) for i in (0, 4)] == [
        "train/0000.parquet:0",
        "train/0001.parquet:0",
    ]
    # one request a row group brings its pictures, and nothing was asked for before one of them was needed
    later = [seen.headers.get("Range") for seen in server.gets("parquet")][len(pictures) :]
    assert len(later) == len(set(later)) == 6
    assert len(list((tmp_path / "cache" / "stream").iterdir())) == 6
    assert re.search(
        r"is read as it is needed: .* in 6 row groups, of which 256 MiB", splits.notes[1]
    )


def test_footers_and_labels_of_a_commit_are_asked_for_once(server):
    opened()
    server.seen.clear()
    again = opened(f"{NAME}@{hub.COMMIT}")
    assert server.seen == []
    assert again.train.labels.tolist() == [0, 1, 2] * 3


def test_one_part_and_one_file_of_any_host_are_streamed_too(server):
    splits = open_source(DataConfig(source=f"{NAME}#val", stream=True), sets.CLASSES)
    expected = [(content, label) for _, content, label in sets.images("val")]
    assert (sets.contents(splits.train), splits.val) == (expected, None)
    server.files["/x/set.parquet?key=secret"] = hub.parquet(sets.images("train"))
    plain = opened(f"parquet:{server.base}/x/set.parquet?key=secret").train
    assert plain.names(8) == "set.parquet:8"
    with pytest.raises(UsageError, match=r"is read from there with --data.stream; else download"):
        open_source(DataConfig(source=f"parquet:{server.base}/x/set.parquet"))


def test_every_example_comes_once_in_an_evaluation_and_in_an_epoch(server):
    train, val = opened().both(0.2, 0)
    found = list(eval_batches(val, size, DataConfig(threads=3), batch_size=3))
    assert sorted(np.concatenate([batch["size"] for batch in found]).tolist()) == [0] * 2 + [
        40,
        41,
        42,
        43,
    ]
    batches = train_batches(train, size, DataConfig(), batch_size=3, seed=0)
    epochs = [np.concatenate([next(batches)["index"] for _ in range(3)]) for _ in range(3)]
    assert [sorted(epoch.tolist()) for epoch in epochs] == [list(range(9))] * 3


def test_a_part_that_is_drawn_and_one_that_is_recorded_know_their_groups(server):
    config = DataConfig(source=f"{NAME}#train", stream=True, val_fraction=0.4)
    splits = open_source(config)
    first = divide(splits, config, None)
    again = divide(opened(f"{NAME}#train"), config, first.split)
    for one, other in ((first.train, again.train), (first.val, again.val)):
        assert one.stream is not None
        assert other.stream is not None
        assert np.array_equal(one.stream.groups, other.stream.groups)
        assert sets.contents(one) == sets.contents(other)
    # a picture's own size is in no footer: that of its row group stands for it
    assert first.train.stream is not None
    assert np.array_equal(first.split.train.sizes, first.train.stream.weights)
    both = joined(opened())
    assert both.stream is not None
    assert np.unique(both.stream.groups).tolist() == list(range(6))


def test_worker_processes_and_threads_give_the_same_batches(server):
    options = {"batch_size": 4, "seed": 3}
    streams = []
    for config in (DataConfig(threads=1), DataConfig(threads=4), DataConfig(workers=1)):
        batches = train_batches(opened().train, size, config, **options)
        streams.append([next(batches)["index"].tolist() for _ in range(5)])
    assert streams[0] == streams[1] == streams[2]
    # all they share is on disk: another process gets no connection of this one
    pictures = cloudpickle.loads(cloudpickle.dumps(opened().train.fields["image"]))
    assert pictures(8) == sets.images("train")[8][1]


# -- in which order


def lying(counts: list[int], *, window: int, weight: int = 10) -> Examples:
    """Examples in row groups of these numbers of rows and of one size, each of a class of its own."""
    numbers = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    weights = np.full(len(numbers), weight, np.int64)
    asked: list[int] = []
    stream = Stream(numbers, weights, window, asked.append)
    classes = tuple(map(str, range(len(counts))))
    return Examples({"image": lambda i: i}, numbers, classes, str, stream=stream)


COUNTS = [7, 1, 4, 9, 2, 5, 6, 3, 8, 4]


def test_an_epoch_has_every_example_once_and_windows_of_whole_groups():
    examples = lying(COUNTS, window=30)
    order, count = streamed(examples, 5), sum(COUNTS)
    stream = examples.stream
    assert stream is not None
    orders = set()
    for epoch in range(3):
        found = [order[epoch * count + place] for place in range(count)]
        assert sorted(found) == list(range(count))
        orders.add(tuple(found))
        plan = epoch_of(stream, groups_of(stream)[0], (5, epoch))
        assert [len(window) for window in plan.windows] == [3, 3, 3, 1]
        starts = [0, *plan.ends]
        for window, start, end in zip(plan.windows, starts, starts[1:], strict=False):
            assert set(stream.groups[found[start:end]]) == set(window)
    assert len(orders) == 3


def test_the_order_is_a_function_of_the_seed_and_the_place_alone():
    order = [streamed(lying(COUNTS, window=30), 5)[place] for place in range(120)]
    again = streamed(lying(COUNTS, window=30), 5)
    assert [again[place] for place in reversed(range(120))] == order[::-1]
    assert [streamed(lying(COUNTS, window=30), 6)[place] for place in range(120)] != order
    assert [streamed(lying(COUNTS, window=50), 5)[place] for place in range(120)] != order

    def view(example, rng):
        return {"label": example["label"], "drawn": np.float64(0 if rng is None else rng.random())}

    blank = np.zeros((8, 8, 3), np.uint8)
    examples = lying(COUNTS, window=30)
    examples = Examples(
        {"image": lambda i: blank},
        examples.labels,
        examples.classes,
        str,
        stream=examples.stream,
    )
    options = {"batch_size": 6, "seed": 5}
    whole = train_batches(examples, view, DataConfig(), **options)
    # two hosts with their rows of every batch, one of which goes on at the third
    hosts = [
        train_batches(examples, view, DataConfig(threads=2), rows=rows, **options)
        for rows in ([0, 1, 2], [3, 4, 5])
    ]
    for _ in range(2):
        next(whole), next(hosts[0])
    hosts[1].set_state(hosts[0].get_state())
    for _ in range(12):
        expected, got = next(whole), [next(host) for host in hosts]
        for name in ("index", "label", "drawn"):
            found = np.concatenate([batch[name] for batch in got])
            assert np.array_equal(found, expected[name])


def test_the_next_window_is_asked_for_while_one_is_used():
    examples, asked = lying(COUNTS, window=30), []
    stream = examples.stream
    assert stream is not None
    examples = Examples(
        examples.fields,
        examples.labels,
        examples.classes,
        str,
        stream=Stream(stream.groups, stream.weights, stream.window, asked.append),
    )
    order, plan = streamed(examples, 5), epoch_of(stream, groups_of(stream)[0], (5, 0))
    for place in range(int(plan.ends[0])):
        order[place]
    assert set(asked) == {*plan.windows[0], *plan.windows[1]}


def test_a_window_of_few_classes_is_said():
    (note,) = mixing_note(lying([5] * 40, window=4 * MIB, weight=MIB))
    assert note.startswith(
        "the rows of a class lie together: a window of 4 MiB has 4 of 40 classes"
    )
    assert mixing_note(lying([5] * 4, window=4 * MIB, weight=MIB)) == []


# -- within which room


def test_row_groups_that_were_used_longest_ago_are_thrown_out(server, tmp_path, monkeypatch):
    part = opened().train
    monkeypatch.setattr(part.fields["image"].__closure__[1].cell_contents, "_limit", 4_000)
    folder = tmp_path / "cache" / "stream"
    for index in (*range(9), 0, 8, 0):
        part.read(index)
        assert sum(path.stat().st_size for path in folder.iterdir()) <= 4_000
    # those of the last two rows are still there
    server.seen.clear()
    assert part.read(8)["image"] == sets.images("train")[8][1]
    assert server.seen == []


def test_groups_that_do_not_fit_are_refused_with_the_size_that_would(server, monkeypatch):
    big = groups.Group(0, 0, 1, 0, 2 << 30)
    with pytest.raises(
        DataError, match=r"row groups of up to 2.15 GB, .* raise --data.stream-cache-gib to 12.5 or"
    ):
        groups.check_room([big], 256 << 20, 4 << 30, "hf:x/y")


def test_a_cache_that_cannot_be_written_is_told(server, tmp_path, monkeypatch):
    part = opened().train
    (tmp_path / "file").touch()
    monkeypatch.setenv("FMJAX_CACHE", str(tmp_path / "file" / "x"))
    with pytest.raises(DataError, match=r"cannot be written to .*Not a directory.*; free some"):
        part.read(0)


def test_many_threads_fetch_a_group_once(server):
    part = opened().train
    server.seen.clear()
    threads = [threading.Thread(target=part.read, args=(0,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.seen) == 1


# -- what goes wrong

TRAIN = hub.path("train/0000")


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(404), r"answered 404 \(not there\)"),
        (Reply(403), r"answered 403 \(forbidden\)"),
        (Reply(500), r"answered 500 for .*, 6 times: run the same command"),
        (Reply(cut=100), r"broke after 100 of 1,244 bytes"),
        (Reply(ranges=False), r"answers 200 and not with the part of .*: download the whole"),
        (Reply(wait_s=0.3), r"the connection to 127.0.0.1 broke \(ReadTimeout\), 6 times"),
        (Reply(headers={"Content-Encoding": "gzip"}), r"comes packed \('gzip'\)"),
        (Reply(headers={"Content-Range": "bytes 0-9/9450"}), r"has 9,450 bytes, not \d"),
        (Reply(headers={"X-Repo-Commit": hub.LATER}), r"is of the commit 'b{40}': the file has"),
        (Reply(302, {"Location": "file:///etc/passwd"}), r"which is no web address"),
        (Reply(headers={"Content-Type": "text/html"}), r"answered with a web page, not a file"),
    ],
)
def test_what_a_server_does_in_the_middle_ends_a_run_in_a_sentence(
    server, monkeypatch, reply, said
):
    part = opened().train
    server.always[TRAIN] = reply
    monkeypatch.setenv("FMJAX_TIMEOUT_S", "0.1")
    batches = train_batches(part, size, DataConfig(threads=2), batch_size=9, seed=0)
    with pytest.raises(DataError, match=said) as caught:
        next(batches)
    text = str(caught.value)
    assert text.startswith("hf:me/pets@aaaa")
    assert text.isprintable()
    assert "the same command goes on from the last checkpoint" in text


def test_a_server_that_recovers_loses_no_example(server):
    part = opened().train
    server.replies[TRAIN] = [Reply(500), Reply(cut=50), Reply(503)]
    assert sets.contents(part) == [(c, label) for _, c, label in sets.images("train")]


def test_a_plain_file_that_changes_is_not_read_on(server):
    place = "/x/set.parquet"
    server.files[place] = hub.parquet(sets.images("train"))
    part = opened(f"parquet:{server.base}{place}").train
    rows = sets.images("train")
    # of the same size, with another ETag
    content = bytearray(server.files[place])
    content[30] ^= 1
    server.files[place] = bytes(content)
    with pytest.raises(DataError, match="has another ETag or date: the file has changed since"):
        part.read(0)
    server.files[place] = hub.parquet(rows[:5])
    with pytest.raises(DataError, match=r"has [\d,]+ bytes, not [\d,]+: the file has changed"):
        part.read(0)
    assert len(opened(f"parquet:{server.base}{place}").train) == 5


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_cut, "train/0000.parquet is damaged: it is no whole Parquet file"),
        (lambda c: b"", "answers 206 and not with the part of .* that was asked for"),
        (lambda c: c[:-300] + b"\xff" * 250 + c[-50:], "train/0000.parquet is damaged: "),
        (lambda c: c[:-8] + b"\xff\xff\xff\x7fPAR1", "is damaged: it is no whole Parquet file"),
    ],
)
def test_a_file_of_something_else_is_refused_at_the_start(server, change, said):
    server.files[TRAIN] = change(server.files[TRAIN])
    with pytest.raises(DataError, match=said) as caught:
        opened()
    assert str(caught.value).isprintable()


def test_a_damaged_row_group_is_named_and_no_row_of_it_is_left_out(server):
    content = bytearray(server.files[TRAIN])
    content[4:200] = bytes(196)
    server.files[TRAIN] = bytes(content)
    part = opened().train
    with pytest.raises(DataError, match=r"train/0000.parquet is damaged: .*; tell its publisher"):
        part.read(1)


def test_files_of_other_columns_are_refused_as_of_any_parquet(server):
    table = sets.arrow(sets.images("train")[:2])
    other = sets.metadata()[b"huggingface"].replace(b"eel", b"owl")
    file = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({b"huggingface": other}), file)
    server.files[TRAIN] = file.getvalue()
    with pytest.raises(DataError, match=r"0001.parquet has other names for its labels than 0000"):
        opened()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"stream_window_mib": 0}, "--data.stream-window-mib is 0"),
        ({"stream_cache_gib": 0.5}, r"it must be room for three windows \(--data"),
    ],
)
def test_what_a_stream_cannot_be_is_refused_before_anything_is_asked(options, said):
    with pytest.raises(UsageError, match=said):
        DataConfig(source=NAME, stream=True, **options)


def test_a_stream_is_not_balanced():
    config = DataConfig(source=NAME, stream=True, sampling="balanced")
    with pytest.raises(UsageError, match=r"it must be 'shuffled' with --data\.stream"):
        check_sampling(lying(COUNTS, window=30), config)


def test_what_is_on_this_machine_is_no_stream(tmp_path):
    with pytest.raises(UsageError, match=r"hf:.* is on this machine; leave it out"):
        opened(f"hf:{sets.saved_to_disk(tmp_path / 'x')}")
    for source in (f"parquet:{tmp_path}", "digits"):
        with pytest.raises(UsageError, match=r"--data.stream is for hf:OWNER/NAME and .* leave it"):
            opened(source)
