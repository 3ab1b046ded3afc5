"""The comparison as a table: means over seeds, differences from the first control, marked times."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from segdistill.run.environment import timing_differences
from segdistill.run.reporting.notation import difference_text, number, quantity, signed, spread
from segdistill.run.reporting.statistics import Paired
from segdistill.run.reporting.summary import (
    Role,
    RunSummary,
    by_label,
    controls,
    mean_and_sd,
    mean_of_known,
    on_set,
    on_thin,
    paired_miou,
    set_names,
)


@dataclass(frozen=True)
class OnSet:
    """One label on a further evaluation set, in mIoU points."""

    miou: float | None
    miou_sd: float | None
    by_seed: Mapping[str, float | None]
    difference: Paired | None
    """from the first control"""


@dataclass(frozen=True)
class ComparisonRow:
    """One row of the comparison: a label, its means over seeds, its difference from the first control."""

    label: str
    role: Role
    runs: int
    miou: float | None
    miou_sd: float | None
    difference: Paired | None
    pixel_accuracy: float | None
    parameters: float | None
    multiply_adds: float | None
    latency_ms: float | None
    seconds_per_step: float | None
    training_seconds: float | None
    times_differ: Sequence[str]
    """why its times cannot be compared with the first control's; empty if they can"""
    tests: str | None
    """label of the method that a placebo tests"""
    random_teacher: bool
    """whether its teacher has random weights"""
    sets: Mapping[str, OnSet]
    """by the name of each further evaluation set"""
    thin: Mapping[str, OnSet]
    """the thin classes on the evaluation split, as "", and on each set; empty without thin classes"""


def times_differ(summaries: Sequence[RunSummary]) -> dict[str, list[str]]:
    """Labels whose times cannot be compared with those of the first control, with reasons.

    Times of two machines, thread counts or loads differ whatever is trained. The first control itself is
    among them if its own runs differ. Runs without times do not count.
    """
    first, others = _timed(summaries)
    found = {label: timing_differences(first, *there) for label, there in others.items()}
    return {label: reasons for label, reasons in found.items() if reasons}


def why_times_differ(summaries: Sequence[RunSummary]) -> str:
    """The reasons of `times_differ` over all labels, in words; "" if all times can be compared."""
    first, others = _timed(summaries)
    return "; ".join(
        timing_differences(first, *(one for there in others.values() for one in there))
    )


def _timed(
    summaries: Sequence[RunSummary],
) -> tuple[Mapping[str, Any], dict[str, list[Mapping[str, Any]]]]:
    """The environment of the first control's first run, and those of all other runs by label."""
    groups = by_label(run for run in summaries if run.seconds_per_step is not None)
    order = [label for label in groups if label != "teacher"] or list(groups)
    if not order:
        return {}, {}
    first = groups[order[0]][0]
    return first.environment, {
        label: [run.environment for run in runs if run is not first]
        for label, runs in groups.items()
    }


def comparison_rows(summaries: Sequence[RunSummary]) -> list[ComparisonRow]:
    """The comparison as data: teacher, controls, then each method followed by its placebos.

    mIoU, its sd and difference in points; latency in ms; times in seconds, mean over the seeds.
    """
    rows, incomparable = [], times_differ(summaries)
    measured = {name: on_set(summaries, name) for name in set_names(summaries)}
    sets = {name: _on_set(runs) for name, runs in measured.items()}
    thin = {
        name: _on_set(runs)
        for name, whole in {"": summaries, **measured}.items()
        if (runs := on_thin(whole)) is not None
    }
    main = next(iter(controls(summaries)), None)
    for label, runs in by_label(summaries).items():
        miou, miou_sd = mean_and_sd(runs)
        profiles = [run.profile for run in runs if run.profile]
        profile = profiles[0] if profiles else {}
        rows.append(
            ComparisonRow(
                label=label,
                role=runs[0].role,
                runs=len(runs),
                miou=miou,
                miou_sd=miou_sd,
                difference=None
                if label in ("teacher", main)
                else paired_miou(summaries, label, main),
                pixel_accuracy=mean_of_known(run.pixel_accuracy for run in runs),
                parameters=profile.get("parameters"),
                multiply_adds=profile.get("multiply_adds"),
                latency_ms=profile.get("latency_ms_median"),
                seconds_per_step=mean_of_known(run.seconds_per_step for run in runs),
                training_seconds=mean_of_known(run.training_seconds for run in runs),
                times_differ=incomparable.get(label, ()),
                tests=runs[0].tests,
                random_teacher=runs[0].random_teacher,
                sets={name: found[label] for name, found in sets.items()},
                thin={name: found[label] for name, found in thin.items()},
            )
        )
    return rows


def _on_set(summaries: Sequence[RunSummary]) -> dict[str, OnSet]:
    """Each label's metrics, from runs as measured on one set."""
    main = next(iter(controls(summaries)), None)
    found = {}
    for label, runs in by_label(summaries).items():
        plain = label in ("teacher", main)
        found[label] = OnSet(
            *mean_and_sd(runs),
            by_seed(runs),
            None if plain else paired_miou(summaries, label, main),
        )
    return found


def by_seed(runs: Sequence[RunSummary]) -> dict[str, float | None]:
    """The mIoU of each run of a label by its seed, `FOLD/SEED` where there are folds."""
    return {f"{run.fold}/{run.seed}".lstrip("/"): run.miou for run in runs}


def input_sizes(summaries: Sequence[RunSummary]) -> str:
    """The input size for multiply-adds, with labels if it differs between runs; "" if unknown."""
    sizes: dict[tuple[int, ...], list[str]] = {}
    for label, runs in by_label(summaries).items():
        profile = next((run.profile for run in runs if run.profile), None)
        if profile and profile.get("size"):
            sizes.setdefault(tuple(profile["size"]), []).append(label)
    texts = {f"{size[0]} × {size[1]}": labels for size, labels in sizes.items()}
    if len(texts) < 2:
        return next((f"at {size} input" for size in texts), "")
    return "at " + ", ".join(f"{size} ({', '.join(labels)})" for size, labels in texts.items())


def comparison_table(summaries: Sequence[RunSummary]) -> Table:
    """The comparison for a terminal: mean ± sd over seeds, paired difference from the first control."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("")
    for heading in (
        "mIoU",
        f"vs. {reference_name(summaries)}",
        "each seed",
        "pixel acc.",
        "params",
        "mult-adds",
        "s/step",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in comparison_rows(summaries):
        table.add_row(
            row_name(row),
            spread(row.miou, row.miou_sd),
            difference_text(row.difference),
            " ".join(signed(value) for value in row.difference.differences)
            if row.difference
            else "",
            number(row.pixel_accuracy, 1),
            quantity(row.parameters),
            quantity(row.multiply_adds),
            marked(number(row.seconds_per_step, 3), row),
        )
    sizes = input_sizes(summaries)
    notes = [f"mult-adds {sizes}" if sizes else "", times_note(summaries)]
    table.caption = "; ".join(filter(None, notes)) or None
    return table


def further_table(summaries: Sequence[RunSummary]) -> Table | None:
    """The thin classes and the further sets for a terminal, one below the other; None without any.

    Beside the other figures they would leave no room for the labels at 80 columns.
    """
    rows = comparison_rows(summaries)
    names = list(_further(rows[0])) if rows else []
    if not names:
        return None
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("measured on")
    table.add_column("", no_wrap=True)
    for heading in ("mIoU", f"vs. {reference_name(summaries)}"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name in names:
        for place, row in enumerate(rows):
            found = _further(row)[name]
            cells = spread(found.miou, found.miou_sd), difference_text(found.difference)
            table.add_row(name if place == 0 else "", row_name(row), *cells)
    return table


def set_headings(summaries: Sequence[RunSummary]) -> list[str]:
    """Headings of the columns of `set_cells`."""
    against = f"vs. {reference_name(summaries)}"
    first = next(iter(comparison_rows(summaries)), None)
    names = [] if first is None else list(_further(first))
    return [text for name in names for text in (name, f"{name}, {against}")]


def set_cells(row: ComparisonRow) -> list[str]:
    """mIoU and its difference from the first control, for the thin classes and for each further set."""
    return [
        text
        for found in _further(row).values()
        for text in (spread(found.miou, found.miou_sd), difference_text(found.difference))
    ]


def _further(row: ComparisonRow) -> dict[str, OnSet]:
    """Everything beside the mIoU on the evaluation split, under the names of the columns."""
    found = {"thin classes": row.thin[""]} if "" in row.thin else {}
    for name, whole in row.sets.items():
        found[name] = whole
        if name in row.thin:
            found[f"{name}, thin classes"] = row.thin[name]
    return found


def reference_name(summaries: Sequence[RunSummary]) -> str:
    """What the column of differences calls the first control: its label if there are several."""
    known = controls(summaries)
    return known[0] if len(known) > 1 else "control"


def row_name(row: ComparisonRow) -> str:
    """The label of a row; for a placebo with that of its method, and whether its teacher is random."""
    return f"{row.label} ({placebo})" if (placebo := placebo_name(row)) else row.label


def placebo_name(row: ComparisonRow) -> str:
    """What a placebo tests, and whether its teacher has random weights; "" for any other row."""
    if row.role != "placebo":
        return ""
    of = f"placebo of {row.tests}" if row.tests else "placebo"
    return f"{of}, random teacher" if row.random_teacher else of


def marked(time: str, row: ComparisonRow) -> str:
    """A time of a row, with an asterisk if it cannot be compared with the first control's."""
    return f"{time}*" if row.times_differ and time != "–" else time


def times_note(summaries: Sequence[RunSummary]) -> str:
    """Which times cannot be compared, and why; "" if all can."""
    why = why_times_differ(summaries)
    return f"* times are not comparable ({why})" if why else ""
