"""`fmjax models`: what is found, filtered and sorted, and a table that fits where it is shown."""

from __future__ import annotations

import io
import json
from typing import get_args

import pytest

from fmjax import console
from fmjax.cli import main
from fmjax.commands.files import Sort
from fmjax.console import Column, SafeConsole, fitting
from fmjax.errors import UsageError
from fmjax.names import list_models
from fmjax.programs import listing
from fmjax.programs.listing import FAMILY, KEYS, SCORES, found, score


def names(rows) -> list[str]:
    return [row["name"] for row in rows]


def test_the_flag_knows_every_field_that_rows_are_sorted_by():
    assert set(get_args(Sort)) == {FAMILY, *KEYS, *SCORES}


@pytest.mark.parametrize("field", [*KEYS, *SCORES])
@pytest.mark.parametrize("reverse", [False, True])
def test_rows_are_sorted_and_those_without_a_value_come_last(field, reverse):
    rows = found(pretrained=True, sort=field, reverse=reverse)
    assert sorted(names(rows)) == sorted(list_models(pretrained=True))
    values = [KEYS[field](row) if field in KEYS else score(row, field)[0] for row in rows]
    known = [value for value in values if value is not None]
    assert values[: len(known)] == known
    assert known == sorted(known, reverse=(field in SCORES) != reverse)


def test_filters_leave_out_what_they_say():
    small = found(pretrained=True, max_params="90M", licence="apache")
    assert 0 < len(small) < len(list_models(pretrained=True))
    assert all(row["parameters"] <= 90e6 and "Apache" in row["licence"] for row in small)
    both = [row for row in found(pretrained=True) if row["parameters"] <= 90e6]
    assert names(small) == [row["name"] for row in both if "apache" in row["licence"].lower()]
    assert names(found(max_params="0.09b")) == names(found(max_params="90 M"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_params": "lots"}, "--max-params is 'lots'; it must be a number such as 90M or 1.1B"),
        ({"max_params": "1k"}, "the smallest of the 113 that match is demo_vit_ti4 with 0.7 M"),
        ({"licence": "GPL"}, "--licence is 'GPL'; what matches has MIT"),
        ({"pattern": "dinov9"}, "no model matches 'dinov9'; did you mean"),
    ],
)
def test_what_leaves_nothing_says_what_there_is(options, said):
    with pytest.raises(UsageError) as error:
        found(**options)
    assert said in str(error.value)


def test_every_published_score_has_a_column():
    shown = {name for choices in SCORES.values() for name, _ in choices}
    assert {name for row in found() for name in row["accuracy"]} == shown


@pytest.fixture
def terminal(monkeypatch):
    """What is printed on a terminal of so many columns."""

    def printed(width: int, *args: str, **options) -> list[str]:
        out = io.StringIO()
        options = {"force_terminal": True, "color_system": None} | options
        shown = SafeConsole(file=out, width=width, soft_wrap=True, highlight=False, **options)
        for module in (console, listing):
            monkeypatch.setattr(module, "console", shown)
        assert main(list(args)) == 0
        return out.getvalue().splitlines()

    return printed


@pytest.mark.parametrize("flags", [(), ("--pretrained",)])
@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_table_fits_its_terminal_a_row_a_line(terminal, width, flags):
    lines = terminal(width, "models", *flags)
    assert max(map(len, lines)) <= width
    rows = list_models(pretrained=bool(flags))
    assert [line.split()[0] for line in lines[1 : 1 + len(rows)]] == rows
    assert "params" in lines[0]


def test_a_narrow_terminal_goes_without_the_columns_that_matter_least(terminal):
    titles = {width: terminal(width, "models", "dinov2")[0].split() for width in (60, 80, 100)}
    assert titles[60] == ["name", "params", "licence", "probe"]
    assert set(titles[60]) < set(titles[80]) < set(titles[100])
    assert titles[100][-3:] == ["parity", "knn", "probe"]


def test_a_pipe_has_all_columns_and_no_colours(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["models", "dinov2", "--pretrained"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.splitlines()[0].split() == [
        *("name", "params", "px", "GFLOPs", "size", "licence", "parity", "knn", "probe")
    ]
    assert len(out.splitlines()) == 1 + 10


def test_colours_stay_off_where_nobody_wants_them(terminal, monkeypatch):
    coloured = "\n".join(terminal(80, "models", "demo", color_system="standard"))
    assert "\x1b[36m" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    plain = "\n".join(terminal(80, "models", "demo", color_system="standard"))
    assert "\x1b[3" not in plain


def test_a_page_is_folded_below_its_beginning(terminal):
    lines = terminal(60, "info", "dinov2_vits14.lvd142m")
    assert max(map(len, lines)) <= 60
    start = next(i for i, line in enumerate(lines) if line.startswith("  fine-tuning"))
    assert lines[start + 1].startswith(" " * 16)


def test_the_least_that_is_shown_are_the_names():
    columns = [Column("name", ["x" * 30]), Column("a", ["1"], 1), Column("b", ["2"])]
    assert [column.title for column in fitting(columns, 10)] == ["name", "b"]


def test_the_record_of_a_list_has_what_the_table_shows(capsys):
    assert main(["models", "aimv2_large.224px", "--pretrained", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    [row] = found("aimv2_large.224px", pretrained=True)
    assert told == json.loads(json.dumps([row]))
    cells = {column.title: column.cells[0] for column in listing.table([row])}
    assert cells["probe"] == f"{row['accuracy']['imagenet1k_attentive_probe']}a"
    assert cells["parity"] == f"{row['parity']:.1e}"
    assert cells["licence"] == "Apple ASCL"
