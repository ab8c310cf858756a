"""A task of a user's own, as the documentation shows it: trained, resumed, evaluated; and what is wrong with one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fmjax.cli import main
from tests.support.runs import SHORT, rows

GUIDE = (Path(__file__).parents[2] / "docs" / "adding_a_task.md").read_text()
CODE = re.search(r"```python\n(.*?)```", GUIDE, re.S).group(1)


def numbers(run: Path) -> list[dict[str, float]]:
    return [
        {name: value for name, value in row.items() if name not in ("images_per_s", "data_wait")}
        for row in rows(run)
    ]


@pytest.fixture
def preset(tmp_path) -> Path:
    path = tmp_path / "angle.py"
    path.write_text(CODE)
    return path


def test_it_is_short():
    assert len([line for line in CODE.splitlines() if line.strip()]) <= 40


def test_it_trains_resumes_and_is_evaluated(preset, tmp_path, capsys):
    run, stopped = tmp_path / "run", tmp_path / "stopped"
    command = ["finetune", str(preset), *SHORT, "--task.most", "45", "--out"]
    assert main([*command, str(run)]) == 0
    assert [row["step"] for row in numbers(run) if "val_mean_error" in row] == [3, 6]
    assert re.search(r"val     mean_error [\d.]+ \(359 images\)", capsys.readouterr().out)
    assert json.loads((run / "config.json").read_text())["task"] == {
        "home": "angle:Angle",
        "most": 45.0,
    }

    # a run that lost its last checkpoint comes to the same numbers
    assert main([*command, str(stopped)]) == 0
    for path in sorted((stopped / "checkpoints" / "6").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert main([*command, str(stopped)]) == 0
    assert "resumed from step 4" in capsys.readouterr().out
    assert numbers(stopped) == numbers(run)

    # other settings of the task are another run
    assert main(["finetune", str(preset), *SHORT, "--task.most", "30", "--out", str(run)]) == 2
    assert "task.most: 45.0 -> 30.0" in capsys.readouterr().err
    assert main(["eval", str(run), "--preset", str(preset)]) == 0
    final = numbers(run)[-1]["val_mean_error"]
    assert f"mean_error {final:.4g} (359 images)" in capsys.readouterr().out


def test_a_run_s_record_never_runs_the_code_that_it_names(preset, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["finetune", str(preset), *SHORT, "--out", str(run)]) == 0
    capsys.readouterr()
    assert main(["eval", str(run)]) == 4
    assert "learns 'angle:Angle', which is no task of fmjax" in capsys.readouterr().err
    values = json.loads((run / "config.json").read_text())
    values["task"] = {"home": "os:system"}
    (run / "config.json").write_text(json.dumps(values))
    assert main(["eval", str(run)]) == 4
    assert "'os:system', which is no task of fmjax" in capsys.readouterr().err


def without(method: str) -> str:
    """The guide's task without one of its methods."""
    return re.sub(rf"    def {method}\(.*?\n\n(?=    def |\n@)", "", CODE, flags=re.S)


def with_(old: str, new: str) -> str:
    """The guide's task, wrong in one place."""
    return CODE.replace(old, new)


WRONG = {
    "no method": (without("scores"), "the task Angle has no scores"),
    "two methods": (
        with_("def loss", "def lose").replace("def outputs", "def out"),
        "has no loss and no outputs",
    ),
    "no backbone": (
        with_('"backbone": backbone, ', ""),
        r"returns \['head'\]; the backbone must be among them",
    ),
    "no rows": (
        with_('{"found": self.found(net, batch)', '{"found": self.found(net, batch).mean()'),
        r"of shape \(\)",
    ),
    "no task": (with_("home = Angle", "home = 'angle'"), "the home of AngleConfig is 'angle'"),
    "no loss and logs": (
        with_("/ now.count, {}", "/ now.count"),
        r"Angle.loss returns .*; it must return \(loss, \{name: number\}\)",
    ),
    "a loss for each": (
        with_('(squares * batch["weight"]).sum() / now.count', "squares"),
        r"gives the loss of shape \(16,\); it must be one number",
    ),
    "large rows": (
        with_(
            '"angle": batch["angle"]}\n',
            '"angle": batch["angle"], "x": np.zeros((16, 50_000), np.float32)}\n',
        ),
        "200,008 bytes an example",
    ),
    "nothing depends": (
        with_('(squares * batch["weight"]).sum() / now.count', 'batch["angle"].sum()'),
        "the loss depends on no parameter",
    ),
    "no average": (
        with_("    watch =", "    learns_from_average = True\n    watch ="),
        "Angle learns from an average; set --recipe.ema",
    ),
    "a picture": (
        with_(
            'self.views({"image": turned, "angle": np.float32(angle)}, None)', '{"image": turned}'
        ),
        "the task's view gives 'image' as Image; it must be an array",
    ),
    "a taken name": (
        with_('"angle": np.float32(angle)}, None)', '"weight": np.float32(1)}, None)'),
        "the task's view gives a field 'weight'",
    ),
    "no Python": (
        with_("class Angle(Task):", "class Angle(Task)"),
        r"is no Python: expected ':' in line \d+",
    ),
    "no such field": (
        with_('needs = ("image",)', 'needs = ("image", "depth")'),
        "no depth, which is needed here",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_task_is_one_sentence_before_anything_is_written(
    tmp_path, capsys, name
):
    code, said = WRONG[name]
    assert code != CODE
    path = tmp_path / "angle.py"
    path.write_text(code)
    assert main(["finetune", str(path), *SHORT, "--out", str(tmp_path / "run")]) in (2, 3)
    text = capsys.readouterr().err
    assert len(text.splitlines()) == 1
    assert re.search(said, text), text
    assert not (tmp_path / "run").exists()


def test_a_loss_that_needs_all_examples_is_not_computed_in_parts(tmp_path, capsys):
    path = tmp_path / "angle.py"
    path.write_text(CODE.replace("    watch = ", "    separable = False\n    watch = "))
    assert (
        main(
            [
                "finetune",
                str(path),
                *SHORT,
                "--recipe.accumulate",
                "2",
                "--out",
                str(tmp_path / "run"),
            ]
        )
        == 2
    )
    assert "Angle needs all examples of a batch at once" in capsys.readouterr().err


LATER = {
    "other shapes": (
        with_(
            '"angle": np.float32(angle)}, None)',
            '"angle": np.float32(angle), "x": np.zeros(1 + int(4 * abs(angle)))}, None)',
        ),
        "they must be alike",
        3,
    ),
    "no watch": (
        with_('watch = "mean_error"', 'watch = "error"'),
        "Angle.watch is 'error'; it must be one of",
        2,
    ),
    "no numbers": (
        with_("float(np.abs(", "np.asarray(np.abs("),
        "Angle.scores returns .* it must return",
        2,
    ),
    "no number": (
        with_("/ now.count, {}", "/ 0 * now.count, {}"),
        r"all \d+ steps were skipped, as their loss or gradient is not finite",
        6,
    ),
}


@pytest.mark.parametrize("name", LATER)
def test_what_only_shows_later_is_one_sentence_too(tmp_path, capsys, name):
    code, said, exit_code = LATER[name]
    assert code != CODE
    path = tmp_path / "angle.py"
    path.write_text(code)
    assert main(["finetune", str(path), *SHORT, "--out", str(tmp_path / "run")]) == exit_code
    text = capsys.readouterr().err
    assert re.search(said, text), text
    assert "Traceback" not in text


def test_its_settings_are_flags_with_help(preset, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["finetune", str(preset), "--help"])
    assert stopped.value.code == 0
    assert "--task.most FLOAT" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["finetune", str(preset), "--task.mots", "3"])
    assert "--task.most" in capsys.readouterr().err


def test_another_preset_s_task_is_not_taken_for_the_run_s(preset, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["finetune", str(preset), *SHORT, "--out", str(run)]) == 0
    other = tmp_path / "other.py"
    other.write_text(CODE)
    assert main(["eval", str(run), "--preset", str(other)]) == 4
    assert (
        "learns 'angle:Angle', which is no task of fmjax, nor the other:Angle that was passed"
        in capsys.readouterr().err
    )
