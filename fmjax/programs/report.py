"""`fmjax report`: a run's folder -> one page of its scores, mistakes, data, and what its network sees."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from fmjax.config.presets import load_preset
from fmjax.config.report import ReportConfig
from fmjax.config.run import RunConfig
from fmjax.config.tasks import TaskConfig
from fmjax.console import console
from fmjax.data.split import Images, Split
from fmjax.engine import predictions as saved
from fmjax.engine.backbone import preprocessing
from fmjax.engine.metrics import METRICS, rows_in
from fmjax.engine.plan import make_task
from fmjax.engine.predictions import Predictions
from fmjax.engine.records import read_run, split_of
from fmjax.errors import CheckpointError, amount, escaped, in_bytes, sentence
from fmjax.programs.report_facts import data_facts, run_parts
from fmjax.programs.report_images import Gallery, of_images, opened
from fmjax.programs.report_progress import Progress, progress_parts
from fmjax.programs.report_scores import prediction_parts
from fmjax.report.pages import Page, made, write_page
from fmjax.targets import check_target

REPORT = "report.html"


def main(run: str, config: ReportConfig) -> Path:
    """Writes the report of a run and returns its path.

    What a run has not, or not any more, is said on the page and ends nothing. Raises CheckpointError where the folder
    holds no run, and FilesError where the page cannot be written.
    """
    folder = Path(run)
    own = load_preset(config.preset).task if config.preset else None
    trained, classes = read_run(folder, own)
    # before any work: hours later is too late to refuse
    path = check_target(config.out or folder / REPORT, ".html", flag="--out", force=True)
    split = split_of(folder, classes)
    gallery = opened(trained, classes, split)
    page = gathered(folder, trained, classes, split=split, gallery=gallery, own=own, asked=config)
    write_page(path, page)
    console.print(f"report  {path} ({in_bytes(path.stat().st_size)})")
    for note in page.notes:
        console.print(f"note    {note}")
    return path


def at_end(folder: Path, config: RunConfig, images: Images) -> str:
    """Writes the report of a run that has just finished, without what needs the model, and returns the line that says
    so. It raises nothing: a finished run does not fail over its page."""
    # its data are at hand, and were compared with the record when it began
    try:
        classes, own = images.split.classes, config.task
        page = gathered(
            folder,
            config,
            classes,
            split=images.split,
            gallery=of_images(images, config.data.max_pixels),
            own=own,
            asked=ReportConfig(pictures=False),
        )
        write_page(folder / REPORT, page)
    except Exception as error:  # whatever it is
        reason = escaped(sentence(error) or type(error).__name__, 200)
        return f"note    {REPORT} could not be made: {reason}"
    return f"report  {folder / REPORT}; `fmjax report {folder}` adds what the network sees"


def gathered(
    folder: Path,
    config: RunConfig,
    classes: tuple[str, ...],
    *,
    split: Split | None,
    gallery: Gallery,
    own: TaskConfig | None,
    asked: ReportConfig,
) -> Page:
    """The page of a run, of whatever is there."""
    # the records first, which are there in any case; then what may be lacking, each for itself
    task = make_task(config, preprocessing(config))
    progress = Progress.of(config, rows_in(folder / METRICS), task)
    predictions, notes = _predictions(folder, progress)
    notes = [*progress.notes, *notes, *gallery.notes]
    parts = progress_parts(progress, task)
    if predictions is not None:
        parts |= prediction_parts(predictions, config, classes, gallery)
    parts |= data_facts(config, classes, split, gallery, task)
    parts |= run_parts(folder, config, task, predictions)
    page = Page(
        title=folder.resolve().name,
        lead=_lead(config, classes, split),
        made=made(),
        class_count=len(classes),
        **parts,
    )
    if asked.pictures:
        pictures = _pictures(folder, config, classes, predictions, gallery, own, asked, split)
        page = replace(page, **pictures)
    return replace(page, notes=tuple(notes))


def _pictures(
    folder: Path,
    config: RunConfig,
    classes: tuple[str, ...],
    predictions: Predictions | None,
    gallery: Gallery,
    own: TaskConfig | None,
    asked: ReportConfig,
    split: Split | None,
) -> dict[str, Any]:
    """What needs the model, or why it is not there."""
    from fmjax.programs.report_pictures import picture_parts

    # the names are those of the record: predictions may be lacking, or of a part of the images
    labels = (
        {} if split is None else dict(zip(split.val.names, split.val.labels.tolist(), strict=True))
    )
    try:
        return picture_parts(
            folder,
            config,
            classes,
            predictions=predictions,
            labels=labels,
            gallery=gallery,
            own=own,
            asked=asked,
        )
    except CheckpointError as error:
        return {"pictures_note": f"Nothing can be shown of it: {sentence(error)}."}


def _predictions(folder: Path, progress: Progress) -> tuple[Predictions | None, list[str]]:
    """The predictions that the run has kept, and what is to be said of them."""
    try:
        found = saved.read(folder)
    except CheckpointError as error:
        return None, [sentence(error)]
    if found is None:
        again = f"`fmjax eval {folder}` makes them" if progress.scored else "it was not scored yet"
        return None, [f"the run has no predictions to look at: {again}"]
    # a run that went back to an older step may have come to another best one
    step = found.about.step
    if step != progress.best:
        told = f"the predictions are those of step {step}, and the best step is {progress.best}"
        return found, [f"{told}; {saved.AGAIN}"]
    return found, []


def _lead(config: RunConfig, classes: tuple[str, ...], split: Split | None) -> str:
    began = {"random": ", from random weights"}.get(config.model.init, "")
    model = f"{config.model.name}{began}, fine-tuned on {config.data.source}"
    known = amount(len(classes), "class", "classes")
    if split is None:
        return f"{model}: {known}."
    counts = f"{amount(len(split.train), 'image')} to learn from, {len(split.val):,} held out"
    return f"{model}: {counts}, {known}."
