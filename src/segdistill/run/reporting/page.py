"""The report's page: plain data in, one HTML text out that needs nothing but itself."""

import importlib.resources
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from segdistill.config import Recipe, to_dict
from segdistill.run.reporting import charts
from segdistill.run.reporting.notation import (
    difference_text,
    duration,
    number,
    quantity,
    signed,
    spread,
)
from segdistill.run.reporting.summary import (
    ClassChange,
    ComparisonRow,
    RunSummary,
    by_label,
    class_changes,
    comparison_rows,
    input_sizes,
    methods,
    paired_miou,
)
from segdistill.run.reporting.verdict import context, verdicts
from segdistill.run.reporting.views import (
    Distances,
    Panel,
    PositionMasks,
    css_colour,
    matrix_view,
    panel_view,
    position_view,
)

MOST_CLASSES = 40


@dataclass(frozen=True)
class Report:
    """Everything the page shows. Only the runs and the classes must be there."""

    summaries: Sequence[RunSummary]
    classes: Sequence[str]
    palette: Sequence[Sequence[int]]
    """red, green, blue of each class, 0 to 255"""
    title: str = "Distillation report"
    made: str = ""
    """when and by which version"""
    focus: str | None = None
    """method that the pictures are about; None: the first called idd, or else the last"""
    panels: Sequence[Panel] = ()
    panel_rule: str = ""
    """how the images of the panels were chosen"""
    distances: Sequence[Distances] = ()
    distances_note: str = ""
    """which set, tap and seed the distances are from"""
    positions: Sequence[PositionMasks] = ()
    positions_note: str = ""
    """what the readout was fitted to and scored on"""
    notes: Sequence[str] = ()
    """remarks, such as what the validation set is"""

    def subject(self) -> str:
        """Label of the method that the pictures are about; the control where none was distilled."""
        known = methods(self.summaries)
        if self.focus is not None:
            return self.focus
        idd = [label for label in known if label.startswith("idd")]
        return idd[0] if idd else known[-1] if known else "control"


def render(report: Report) -> str:
    """The page as HTML text.

    Text from runs, such as names of classes and images, is escaped; charts are inline SVG, pictures
    are inline PNG, and the page asks for nothing outside itself.

    Raises:
        ValueError: There are no runs, or two of them cannot be told apart.
    """
    if not report.summaries:
        raise ValueError("a report needs at least one run: give the folder of a finished run")
    colour = charts.colours(report.summaries)
    return fill(
        "reporting/report.html.j2",
        title=report.title,
        made=report.made,
        colour={label: f"var({charts.VARIABLES[value]})" for label, value in colour.items()},
        subject=report.subject(),
        verdict=_verdict_view(report, colour),
        comparison=_comparison_view(report),
        against=_against_view(report),
        curves=_curves_view(report, colour),
        by_class=_class_view(report, colour),
        panels=panel_view(report.panels, report.classes, report.palette),
        panel_rule=report.panel_rule,
        matrices=matrix_view(report.distances, report.classes),
        distances_note=report.distances_note,
        positions=position_view(report.positions),
        positions_note=report.positions_note,
        terms=_term_view(report),
        preparation=_preparation_view(report),
        recipes=_recipes(report),
        environment=_environment(report),
        notes=[*report.notes, *_standard_notes(report)],
    )


def fill(template: str, **values: Any) -> str:
    """A template, by its path inside `run`, as HTML text in the style of all pages; values are escaped."""
    folder = importlib.resources.files("segdistill.run")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = Markup(folder.joinpath("reporting/page.css").read_text().rstrip())
    source = folder.joinpath(template).read_text()
    return environment.from_string(source).render(style=style, **values)


def _verdict_view(report: Report, colour: Mapping[str, str]) -> dict[str, Any]:
    found = verdicts(report.summaries)
    return {
        "context": context(report.summaries),
        "items": found,
        "chart": Markup(charts.forest(found, colour)) if found else None,
    }


def _comparison_view(report: Report) -> dict[str, Any]:
    rows = comparison_rows(report.summaries)
    optional: dict[str, tuple[str, Callable[[ComparisonRow], str]]] = {
        "parameters": ("parameters", lambda row: quantity(row.parameters)),
        "multiply_adds": ("multiply-adds", lambda row: quantity(row.multiply_adds)),
        "latency_ms": ("latency, ms", lambda row: number(row.latency_ms, 1)),
        "seconds_per_step": ("s / step", lambda row: number(row.seconds_per_step, 3)),
        "training_seconds": ("training", lambda row: duration(row.training_seconds)),
    }
    shown = [
        entry
        for key, entry in optional.items()
        if any(getattr(row, key) is not None for row in rows)
    ]
    return {
        "headings": [heading for heading, _ in shown],
        "rows": [
            {
                "label": row.label,
                "runs": row.runs,
                "miou": spread(row.miou, row.miou_sd),
                "difference": difference_text(row.difference),
                "seeds": [signed(value) for value in row.difference.differences]
                if row.difference
                else [],
                "pixel_accuracy": number(row.pixel_accuracy, 1),
                "cells": [text(row) for _, text in shown],
            }
            for row in rows
        ],
        "profile": _profile_text(report.summaries),
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
    what = (
        "Multiply-adds"
        if profile.get("latency_ms_median") is None
        else "Multiply-adds and median latency"
    )
    return f"{what} {' '.join(part for part in parts if part)}."


def _threads(count: int | None) -> str:
    return "" if not count else "with 1 thread" if count == 1 else f"with {count} threads"


def _against_view(report: Report) -> dict[str, Any] | None:
    """Each method against each other one, row minus column; None for fewer than two methods."""
    known = methods(report.summaries)
    if len(known) < 2:
        return None
    rows = [
        [paired_miou(report.summaries, row, column) if row != column else None for column in known]
        for row in known
    ]
    cells = [[difference_text(cell) for cell in row] for row in rows]
    return {"labels": known, "rows": list(zip(known, cells, strict=True))}


def _curves_view(report: Report, colour: Mapping[str, str]) -> dict[str, Any]:
    validation = charts.validation_curves(report.summaries, colour)
    terms = charts.term_curves(report.summaries, colour)
    return {
        "labels": [label for label in by_label(report.summaries) if label != "teacher"],
        "validation": Markup(validation) if validation else None,
        "terms": [(term, Markup(chart)) for term, chart in terms.items()],
    }


def _class_view(report: Report, colour: Mapping[str, str]) -> dict[str, Any] | None:
    subject, groups = report.subject(), by_label(report.summaries)
    changes = class_changes(report.summaries, report.classes, subject)
    if not any(value is not None for change in changes for value in change.iou.values()):
        return None
    known = [change for change in changes if change.change is not None]
    shown = known or changes
    if len(shown) > MOST_CLASSES:
        shown = [*shown[: MOST_CLASSES // 2], *shown[-MOST_CLASSES // 2 :]]
    shares = _class_shares(report)
    return {
        "chart": Markup(charts.class_bars(shown, subject, colour)),
        "cut": len(shown) < len(known or changes),
        "shown": len(shown),
        "labels": list(groups),
        "has_change": bool(known),
        "shares": shares is not None,
        "rows": [_class_row(report, change, list(groups), shares) for change in changes],
    }


def _class_row(
    report: Report, change: ClassChange, labels: Sequence[str], shares: Sequence[float] | None
) -> dict[str, Any]:
    index = list(report.classes).index(change.name)
    return {
        "name": change.name,
        "colour": css_colour(report.palette, index),
        "share": number(shares[index], 1) if shares else "",
        "iou": [number(change.iou.get(label), 1) for label in labels],
        "change": difference_text(change.change) or "–",
        "sign": int(np.sign(change.change.mean)) if change.change and change.change.clear else 0,
    }


def _class_shares(report: Report) -> list[float] | None:
    """Share of each class in the labelled pixels, in per cent, from a confusion matrix."""
    evaluations = [run.evaluation for run in report.summaries if run.evaluation]
    confusion = next((e["confusion"] for e in evaluations if e.get("confusion") is not None), None)
    if confusion is None or len(confusion) != len(report.classes):
        return None
    pixels = np.asarray(confusion, dtype=float).sum(1)
    return [float(value) for value in 100 * pixels / max(pixels.sum(), 1)]


def _term_view(report: Report) -> list[dict[str, Any]]:
    """Weight, value and gradient share of each label's terms, in the mean over its seeds."""
    view: list[dict[str, Any]] = []
    for label, runs in by_label(report.summaries).items():
        rows = [row for run in runs for row in run.train_rows if row.get("terms")]
        for term in dict.fromkeys(term for row in rows for term in row["terms"]):
            series = [
                [row["terms"][term] for row in run.train_rows if term in row.get("terms", {})]
                for run in runs
            ]
            series = [entries for entries in series if entries]
            shares = [
                e["share"] for entries in series for e in entries if e.get("share") is not None
            ]
            view.append(
                {
                    "label": label,
                    "first_of_label": not view or view[-1]["label"] != label,
                    "term": term,
                    "weight": _figure(series[0][-1].get("weight")),
                    "first": _figure(_mean([entries[0].get("value") for entries in series])),
                    "last": _figure(_mean([entries[-1].get("value") for entries in series])),
                    "share": _figure(median(shares)) if shares else "–",
                }
            )
    return view


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


def _preparation_view(report: Report) -> list[tuple[str, str, list[str]]]:
    """Label, figure and its value in each run."""
    view = []
    for label, runs in by_label(report.summaries).items():
        recorded = [_flat(run.preparation) for run in runs]
        for key in dict.fromkeys(key for figures_of_run in recorded for key in figures_of_run):
            view.append((label, key, [_figure(one.get(key)) for one in recorded]))
    return view


def _recipes(report: Report) -> list[tuple[str, str, str]]:
    """Label, run name and recipe of the first run of each label that has one."""
    found = []
    for label, runs in by_label(report.summaries).items():
        firsts = [(run.name, run.recipe) for run in runs if run.recipe is not None][:1]
        found += [(label, name, _yaml(recipe)) for name, recipe in firsts]
    return found


def _yaml(recipe: Recipe) -> str:
    return yaml.safe_dump(to_dict(recipe), sort_keys=False, allow_unicode=True)


def _environment(report: Report) -> list[tuple[str, str]]:
    """Each entry with its value; with all values where the runs differ."""
    recorded = [_flat(run.environment) for run in report.summaries if run.environment]
    keys = dict.fromkeys(key for one in recorded for key in one)
    return [
        (key, " | ".join(dict.fromkeys(str(one[key]) for one in recorded if key in one)))
        for key in keys
    ]


def _standard_notes(report: Report) -> list[str]:
    notes = [
        "Figures are those of the weights of the last step. Best-on-validation weights, which "
        "flatter, are nowhere in this report; nor are published figures.",
        "mIoU: one confusion matrix over the whole set at the labels' own size, ignored pixels "
        "left out; the mean of the IoUs. A class that is predicted but never labelled counts as 0. "
        + _counted(report.summaries),
        "Differences are paired by seed: same initial weights, same order of images. ± beside a "
        "mean over seeds is the standard deviation; ± beside a difference is half the 95 % "
        "interval of its mean (Student's t). The intervals speak of seeds, not of other images.",
    ]
    unfinished = [run.name for run in report.summaries if run.evaluation is None]
    if unfinished:
        notes.append(
            "Without a final evaluation, so that figures of the last validation stand in: "
            f"{', '.join(unfinished)}."
        )
    return notes


def _counted(summaries: Sequence[RunSummary]) -> str:
    evaluations = [run.evaluation for run in summaries if run.evaluation]
    rules = {str((e.get("protocol") or {}).get("absent", "undefined")) for e in evaluations}
    absent = "counts as 0 too" if rules == {"zero"} else "is left out"
    text = f"One that is neither {absent}."
    counts = sorted({e["classes_counted"] for e in evaluations if e.get("classes_counted")})
    images = sorted({e["images"] for e in evaluations if e.get("images")})
    if not counts:
        return text
    where = f" on {' / '.join(str(value) for value in images)} images" if images else ""
    return f"{text} Here the mean is over {' / '.join(map(str, counts))} classes{where}."
