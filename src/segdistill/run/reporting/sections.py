"""The sections of the report that need only the metrics of runs, as plain values for the template."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
from markupsafe import Markup

from segdistill.config import Recipe, recipe_text
from segdistill.run.reporting import charts
from segdistill.run.reporting.claims.gist import gist
from segdistill.run.reporting.claims.standing import context
from segdistill.run.reporting.claims.table import (
    ComparisonRow,
    comparison_rows,
    input_sizes,
    marked,
    placebo_name,
    reference_name,
    set_cells,
    set_headings,
    times_note,
)
from segdistill.run.reporting.notation import (
    difference_text,
    number,
    quantity,
    signed,
    spread,
    time_unit,
)
from segdistill.run.reporting.summary import (
    ClassChange,
    RunSummary,
    by_label,
    class_changes,
    compared,
    controls,
    paired_miou,
)
from segdistill.run.reporting.verdict import best, control_of, verdicts
from segdistill.run.reporting.views import css_colour

MOST_CLASSES = 40


def verdict_view(
    summaries: Sequence[RunSummary], subject: str, colour: Mapping[str, str]
) -> dict[str, Any]:
    """Verdict of each method, mIoU of teacher and control, and the chart of differences."""
    found = verdicts(summaries)
    return {
        "gist": gist(summaries, subject),
        "context": context(summaries),
        "items": found,
        "several": any(len(verdict.difference.differences) > 1 for verdict in found),
        "controls": len(controls(summaries)),
        "chart": _at_each_width(lambda width: charts.forest(found, colour, width))
        if found
        else None,
    }


def _at_each_width(draw: Callable[[int], str | None]) -> list[Markup] | None:
    """A chart for wide screens and one for telephones; None if there is nothing to draw."""
    drawn = [draw(width) for width in (charts.WIDE, charts.NARROW)]
    return [Markup(drawing) for drawing in drawn if drawing is not None] or None


def comparison_view(summaries: Sequence[RunSummary]) -> dict[str, Any]:
    """The comparison, with columns that are known for at least one row."""
    rows, winner = comparison_rows(summaries), best(verdicts(summaries))
    unit, seconds = time_unit([row.training_seconds for row in rows])
    optional: dict[str, tuple[str, Callable[[ComparisonRow], str]]] = {
        "parameters": ("parameters", lambda row: quantity(row.parameters)),
        "multiply_adds": ("multiply-adds", lambda row: quantity(row.multiply_adds)),
        "latency_ms": ("latency, ms", lambda row: number(row.latency_ms, 1)),
        "seconds_per_step": (
            "step, ms",
            lambda row: marked(
                number(row.seconds_per_step and 1000 * row.seconds_per_step, 0), row
            ),
        ),
        "training_seconds": (
            f"training, {unit}",
            lambda row: marked(
                number(row.training_seconds and row.training_seconds / seconds, 1), row
            ),
        ),
    }
    shown = [
        entry
        for key, entry in optional.items()
        if any(getattr(row, key) is not None for row in rows)
    ]
    return {
        "best": winner,
        "several": any(row.runs > 1 for row in rows),
        "has_control": any(row.role == "control" for row in rows),
        "controls": len(controls(summaries)),
        "reference": reference_name(summaries),
        "times": times_note(summaries),
        "headings": [*(heading for heading, _ in shown), *set_headings(summaries)],
        "rows": [
            {
                "label": row.label,
                "placebo": placebo_name(row),
                "runs": row.runs,
                "miou": spread(row.miou, row.miou_sd),
                "difference": difference_text(row.difference),
                "seeds": [signed(value) for value in row.difference.differences]
                if row.difference
                else [],
                "pixel_accuracy": number(row.pixel_accuracy, 1),
                "cells": [*(text(row) for _, text in shown), *set_cells(row)],
            }
            for row in rows
        ],
        "profile": _profile_text(summaries),
    }


def _profile_text(summaries: Sequence[RunSummary]) -> str:
    profile = next((run.profile for run in summaries if run.profile), None)
    if profile is None:
        return ""
    parts = [
        input_sizes(summaries),
        f"on {profile['device']}" if profile.get("device") else "",
        _threads(profile.get("threads")),
    ]
    measured = (
        "Multiply-adds"
        if profile.get("latency_ms_median") is None
        else "Multiply-adds and median latency"
    )
    return f"{measured} {' '.join(part for part in parts if part)}."


def _threads(count: int | None) -> str:
    return "" if not count else "with 1 thread" if count == 1 else f"with {count} threads"


def against_view(summaries: Sequence[RunSummary]) -> dict[str, Any] | None:
    """Differences between methods and placebos, row minus column; None for fewer than two."""
    known = compared(summaries)
    if len(known) < 2:
        return None
    rows = [
        [paired_miou(summaries, row, column) if row != column else None for column in known]
        for row in known
    ]
    cells = [[difference_text(cell) for cell in row] for row in rows]
    return {"labels": known, "rows": list(zip(known, cells, strict=True))}


def curves_view(summaries: Sequence[RunSummary], colour: Mapping[str, str]) -> dict[str, Any]:
    """Charts of validation mIoU and of each term."""
    validation = _at_each_width(lambda width: charts.validation_curves(summaries, colour, width))
    terms = charts.term_curves(summaries, colour)
    groups = {label: runs for label, runs in by_label(summaries).items() if label != "teacher"}
    return {
        "labels": list(groups),
        "several": any(len(runs) > 1 for runs in groups.values()),
        "validation": validation,
        "terms": [(term, Markup(chart)) for term, chart in terms.items()],
    }


def class_view(
    summaries: Sequence[RunSummary],
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    subject: str,
    colour: Mapping[str, str],
) -> dict[str, Any] | None:
    """IoU of each class, largest gain of `subject` first; None if no run has any."""
    groups = by_label(summaries)
    control = control_of(summaries, subject)
    changes = class_changes(summaries, classes, subject, control)
    if not any(value is not None for change in changes for value in change.iou.values()):
        return None
    known = [change for change in changes if change.change is not None]
    shown = known or changes
    if len(shown) > MOST_CLASSES:
        shown = [*shown[: MOST_CLASSES // 2], *shown[-MOST_CLASSES // 2 :]]
    shares = _class_shares(summaries, classes)
    return {
        "chart": _at_each_width(
            lambda width: charts.class_bars(shown, subject, colour, width, control)
        ),
        "control": control,
        "cut": len(shown) < len(known or changes),
        "shown": len(shown),
        "labels": list(groups),
        "has_change": bool(known),
        "has_interval": any(c.change and c.change.half_width is not None for c in known),
        "shares": shares is not None,
        "rows": [
            {
                "colour": css_colour(palette, place),
                "share": number(shares[place], 1) if shares else "",
                **_class_row(change, list(groups)),
            }
            for change in changes
            for place in [list(classes).index(change.name)]
        ],
    }


def _class_row(change: ClassChange, labels: Sequence[str]) -> dict[str, Any]:
    return {
        "name": change.name,
        "iou": [number(change.iou.get(label), 1) for label in labels],
        "change": difference_text(change.change) or "–",
        "sign": int(np.sign(change.change.mean)) if change.change and change.change.clear else 0,
    }


def _class_shares(summaries: Sequence[RunSummary], classes: Sequence[str]) -> list[float] | None:
    """Percentage of labelled pixels of each class, from a confusion matrix."""
    evaluations = [run.evaluation for run in summaries if run.evaluation]
    confusion = next((e["confusion"] for e in evaluations if e.get("confusion") is not None), None)
    if confusion is None or len(confusion) != len(classes):
        return None
    pixels = np.asarray(confusion, dtype=float).sum(1)
    return [float(value) for value in 100 * pixels / max(pixels.sum(), 1)]


SHARES_AT = (10, 25, 50, 100)
"""Percentages of the steps at which gradient shares are shown."""
_ROWS_AT = 3


def term_view(summaries: Sequence[RunSummary]) -> list[dict[str, Any]]:
    """Weight, value and gradient share of each label's terms, averaged over seeds.

    The share at a percentage of the steps is the median over the three rows of each run with a share that are
    nearest to it.
    """
    view: list[dict[str, Any]] = []
    for label, runs in by_label(summaries).items():
        rows = [row for run in runs for row in run.train_rows if row.get("terms")]
        for term in dict.fromkeys(term for row in rows for term in row["terms"]):
            series = [
                [row["terms"][term] for row in run.train_rows if term in row.get("terms", {})]
                for run in runs
            ]
            series = [entries for entries in series if entries]
            at = [
                [share for run in runs for share in _shares_at(run, term, percent)]
                for percent in SHARES_AT
            ]
            view.append(
                {
                    "label": label,
                    "first_of_label": not view or view[-1]["label"] != label,
                    "term": term,
                    "weight": _weights(entry.get("weight") for entry in series[0]),
                    "first": _figure(_mean([entries[0].get("value") for entries in series])),
                    "last": _figure(_mean([entries[-1].get("value") for entries in series])),
                    "shares": [_figure(median(each)) if each else "–" for each in at],
                }
            )
    return view


def _weights(recorded: Iterable[float | None]) -> str:
    """The weight of a term; its first and last recorded value where it follows a schedule."""
    known = [value for value in recorded if value is not None]
    ends = dict.fromkeys(known[:1] + known[-1:])
    return " → ".join(map(_figure, ends)) or "–"


def _shares_at(run: RunSummary, term: str, percent: int) -> list[float]:
    """The recorded gradient shares of a term nearest to a percentage of a run's steps."""
    rows = [row for row in run.train_rows if row.get("terms")]
    if not rows:
        return []
    wanted = rows[-1]["step"] * percent / 100
    known = [row for row in rows if row["terms"].get(term, {}).get("share") is not None]
    nearest = sorted(known, key=lambda row: abs(row["step"] - wanted))[:_ROWS_AT]
    return [float(row["terms"][term]["share"]) for row in nearest]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _figure(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "–" if value is None else str(value)
    return f"{value:.4g}".replace("-", "−")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            result.update(_flat(value, f"{prefix}{key}."))
        else:
            result[f"{prefix}{key}"] = value
    return result


def preparation_view(summaries: Sequence[RunSummary]) -> list[tuple[str, str, list[str]]]:
    """Label, key and the value in each run."""
    view = []
    for label, runs in by_label(summaries).items():
        recorded = [_flat(run.preparation) for run in runs]
        for key in dict.fromkeys(key for figures_of_run in recorded for key in figures_of_run):
            view.append((label, key, [_figure(one.get(key)) for one in recorded]))
    return view


def recipes(summaries: Sequence[RunSummary]) -> list[tuple[str, str, str]]:
    """Label, run name and recipe of the first run of each label that has one."""
    rows = []
    for label, runs in by_label(summaries).items():
        firsts = [(run.name, run.recipe) for run in runs if run.recipe is not None][:1]
        rows += [(label, name, _yaml(recipe)) for name, recipe in firsts]
    return rows


def _yaml(recipe: Recipe) -> str:
    return recipe_text(recipe)


def environment(summaries: Sequence[RunSummary]) -> list[tuple[str, str]]:
    """Each entry with its value, or with all values if the runs differ."""
    recorded = [_flat(run.environment) for run in summaries if run.environment]
    keys = dict.fromkeys(key for one in recorded for key in one)
    return [
        (key, " | ".join(dict.fromkeys(str(one[key]) for one in recorded if key in one)))
        for key in keys
    ]


def standard_notes(summaries: Sequence[RunSummary]) -> list[str]:
    """Notes on how the numbers were obtained, for every report."""
    notes = [
        "All numbers are for the weights of the last step. This report contains neither "
        "best-on-validation weights, which are biased, nor published numbers.",
        "mIoU: mean of the IoUs from one confusion matrix over the whole set, at the labels' own size, "
        "without ignored pixels. A class that is predicted but never labelled counts as 0. "
        + _counted(summaries),
        "Differences are paired by seed: same initial weights, same order of images. "
        + _intervals(summaries),
    ]
    notes += _labels_notes(summaries)
    unfinished = [run.name for run in summaries if run.evaluation is None]
    if unfinished:
        notes.append(
            "Without a final evaluation, shown with the metrics of the last validation: "
            f"{', '.join(unfinished)}."
        )
    return notes


def _labels_notes(summaries: Sequence[RunSummary]) -> list[str]:
    """Which rows were trained with labels for some of their images only."""
    rows: dict[tuple[int, int], list[str]] = {}
    for run in summaries:
        if run.labels is not None and run.labels[0] < run.labels[1]:
            rows.setdefault(run.labels, []).append(run.label)
    return [
        f"{labelled} of the {images} training images had labels: {', '.join(dict.fromkeys(labels))}."
        for (labelled, images), labels in rows.items()
    ]


def _intervals(summaries: Sequence[RunSummary]) -> str:
    if all(len(runs) < 2 for runs in by_label(summaries).values()):
        return (
            "With one seed of each there is no estimate of chance: two or more seeds give a standard "
            "deviation and, for the differences, a 95 % interval."
        )
    return (
        "After a mean over seeds, ± is the standard deviation; after a difference, ± is half the "
        "95 % interval of its mean (Student's t). The intervals cover variation between seeds, not "
        "between images."
    )


def _counted(summaries: Sequence[RunSummary]) -> str:
    evaluations = [run.evaluation for run in summaries if run.evaluation]
    rules = {str((e.get("protocol") or {}).get("absent", "undefined")) for e in evaluations}
    absent = "also counts as 0" if rules == {"zero"} else "is left out"
    text = f"A class that is neither {absent}."
    counts = sorted({e["classes_counted"] for e in evaluations if e.get("classes_counted")})
    images = sorted({e["images"] for e in evaluations if e.get("images")})
    if not counts:
        return text
    where = f" on {' / '.join(str(value) for value in images)} images" if images else ""
    return f"{text} The mean is over {' / '.join(map(str, counts))} classes{where}."
