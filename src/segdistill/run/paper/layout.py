"""Lay out a table or figure of the paper: published values with measurements of runs beside them."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rich.table import Table

from segdistill.config import Recipe, to_dict
from segdistill.escaping import terminal_line
from segdistill.run.console import render
from segdistill.run.paper.charts import PUBLISHED, Chart, Dot, bars, dots
from segdistill.run.paper.costs import counted, digits
from segdistill.run.paper.published import COST, Exhibit, Row
from segdistill.run.reporting import RunSummary, mean, number, sd, spread

OURS = "measured"
_ELSEWHERE = "In columns with other data or networks than the paper's, compare the order and the gains, not the values."


@dataclass(frozen=True)
class Placed:
    """A run and the row that it fills, or the reason why it fills none."""

    run: RunSummary
    row: Row | None = None
    column: str = OURS
    """column of the paper's setting, or the run's own: "camvid, compact"; "camvid" for its teacher"""
    reason: str = ""


@dataclass(frozen=True)
class Layout:
    """The laid-out table or figure; everything but the chart is text."""

    title: str
    source: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]
    runs: Sequence[Sequence[str]]
    """for each run: its row, or the reason why it has none, its mIoU, its training"""
    missing: Sequence[Sequence[str]]
    """for each row without a run: its network and the command that trains it"""
    chart: Chart | None


def lay_out(
    wanted: Exhibit, placed: Sequence[Placed], missing: Sequence[Sequence[str]] = ()
) -> Layout:
    """The rows of an exhibit with published and measured values.

    Measured values are means ± standard deviation (number of seeds) of runs that differ only in the seed;
    if runs of several recipes fill one row, they are shown side by side.
    """
    cells = _Cells(wanted, placed)
    return Layout(
        wanted.title,
        wanted.source,
        cells.headings(),
        cells.rows(),
        [*(wanted.notes[note] for note in cells.notes), *([_ELSEWHERE] if cells.elsewhere else [])],
        [_run_line(one) for one in placed],
        missing,
        cells.chart(),
    )


def as_text(layout: Layout) -> str:
    """The layout for a terminal."""
    table = Table(box=None, pad_edge=False, header_style="", padding=(0, 2, 0, 0))
    for place, heading in enumerate(layout.headings):
        table.add_column(heading, justify="right" if place else "left", no_wrap=True)
    for row in layout.rows:
        table.add_row(*row)
    parts = [
        f"{layout.title}\nPublished: {layout.source}. Measured: the runs below.",
        render(table, 220),
    ]
    parts.append("\n".join(f"[{place}] {note}" for place, note in enumerate(layout.notes, 1)))
    for heading, lines in (("Runs", layout.runs), ("Without a run", layout.missing)):
        if lines:
            parts.append(
                "\n".join(
                    [heading, *("  " + terminal_line("  ".join(filter(None, x))) for x in lines)]
                )
            )
    return "\n\n".join(filter(None, parts))


class _Cells:
    """The cells of an exhibit, from its published values and the runs in its rows."""

    def __init__(self, wanted: Exhibit, placed: Sequence[Placed]) -> None:
        self.wanted = wanted
        self.placed = [one for one in placed if one.row is not None]
        columns = dict.fromkeys(one.column for one in self.placed)
        covered = {column.partition(",")[0] for column in columns if "," in column}
        self.elsewhere = [c for c in columns if c != OURS and c not in covered]
        self.columns = [OURS, *self.elsewhere]
        further = self.elsewhere if "val" in wanted.columns else self.columns
        self.further = [] if wanted.chart == "classes" else further
        # The figure needs parameters, which the paper does not print with it.
        self.sized = wanted.chart == "dots" and "params" not in wanted.columns
        self.notes = list(dict.fromkeys(row.note for row in wanted.rows if row.note))

    def groups(self, row: Row, column: str = OURS) -> list[list[RunSummary]]:
        """Runs of a row, grouped by recipe, most seeds first."""
        # A teacher on other data is shown with each student on the same data.
        columns = {column, column.partition(",")[0]}
        by_recipe: dict[str, list[RunSummary]] = {}
        for one in self.placed:
            if one.row is row and one.column in columns:
                by_recipe.setdefault(_recipe_key(one.run), []).append(one.run)
        return sorted(by_recipe.values(), key=len, reverse=True)

    def miou(self, row: Row, column: str = OURS) -> float | None:
        """Mean over the seeds of the recipe with the most seeds."""
        known = [_mious(group) for group in self.groups(row, column)]
        return mean(known[0]) if known and known[0] else None

    def lead(self, row: Row) -> float | None:
        """Gain of IDD over a row, in points."""
        network = self.wanted.leader or row.network
        leader = next(r for r in self.wanted.rows if (r.network, r.method) == (network, "idd"))
        best, here = self.miou(leader), self.miou(row)
        return None if row is leader or best is None or here is None else best - here

    def headings(self) -> list[str]:
        """Published columns with ours beside them if any, then columns that only we have."""
        if self.wanted.chart == "classes":
            return ["class", *(f"{row.name}\n{OURS}" for row in self.wanted.rows)]
        headings = [""]
        for key, heading in self.wanted.columns.items():
            headings.append(f"{heading}\n{PUBLISHED}")
            if key != "test":  # its labels are not public
                headings.append(f"{heading}\n{OURS}")
        headings += ["params, M\ncounted"] if self.sized else []
        return [*headings, *(f"mIoU, val\n{column}" for column in self.further)]

    def rows(self) -> list[list[str]]:
        """The cells below the headings."""
        if self.wanted.chart == "classes":
            return [
                [name, *(number(values.get(row.name), 2) for row in self.wanted.rows)]
                for name, values in self._class_iou().items()
            ]
        return [self._row(row) for row in self.wanted.rows]

    def _row(self, row: Row) -> list[str]:
        mark = f" [{self.notes.index(row.note) + 1}]" if row.note else ""
        cells = [row.name + mark]
        for key in self.wanted.columns:
            cells.append(row.printed.get(key, "–"))
            if key in COST:
                cells.append(_count(row, key))
            elif key == "lead":
                cells.append(number(self.lead(row), 2).replace("-", "−"))
            elif key == "val":
                cells.append(self._measured(row, OURS))
        if self.sized:
            cells.append(_count(row, "params"))
        return [*cells, *(self._measured(row, column) for column in self.further)]

    def _measured(self, row: Row, column: str) -> str:
        return " | ".join(map(_spread, self.groups(row, column))) or "–"

    def _class_iou(self) -> dict[str, dict[str, float]]:
        """Class -> row -> mean IoU over the seeds."""
        result: dict[str, dict[str, float]] = {}
        for row in self.wanted.rows:
            runs = [run for group in self.groups(row)[:1] for run in group if run.evaluation]
            names = (runs[0].evaluation or {})["classes"] if runs else []
            for place, name in enumerate(names):
                known = [value for run in runs if (value := run.iou[place]) is not None]
                if known:
                    result.setdefault(name, {})[row.name] = mean(known)
        return result

    def chart(self) -> Chart | None:
        """The chart; None if neither the paper nor a run has values to draw."""
        title = self.wanted.title
        if self.wanted.chart == "classes":
            return bars(self._class_iou(), "IoU", title)
        if self.wanted.chart == "dots":
            return dots(self._dots(), "mIoU", title)
        key, heading = next(iter(self.wanted.columns.items()))
        groups: dict[str, dict[str, float]] = {}
        student = ""
        for row in self.wanted.rows:
            # A row named only after a method belongs to the student above it.
            below = row.name.startswith("+")
            student = student if below else row.name
            values = {PUBLISHED: float(row.printed[key])} if key in row.printed else {}
            ours = {OURS: self.lead(row)} if key == "lead" else self._by_column(row)
            known = {column: value for column, value in ours.items() if value is not None}
            groups[f"{student} {row.name}" if below else row.name] = values | known
        return bars(groups, heading, title)

    def _by_column(self, row: Row) -> dict[str, float | None]:
        return {column: self.miou(row, column) for column in self.columns}

    def _dots(self) -> list[Dot]:
        points = []
        for row in self.wanted.rows:
            if {"params", "test"} <= set(row.printed):
                size, miou = float(row.printed["params"]), float(row.printed["test"])
                points.append(Dot(row.name, size, miou, f"{PUBLISHED}, test"))
            ours, cost = self.miou(row), counted(row.network)
            if ours is not None and cost is not None:
                points.append(Dot(row.name, cost["params"], ours, f"{OURS}, val"))
        return points


def _count(row: Row, key: str) -> str:
    cost = counted(row.network)
    return digits(cost[key]) if cost else "not built here"


def _mious(runs: Iterable[RunSummary]) -> list[float]:
    return [run.miou for run in runs if run.miou is not None]


def _spread(runs: Sequence[RunSummary]) -> str:
    values, recipe = _mious(runs), runs[0].recipe
    if not values or recipe is None:
        return "–"
    text = spread(mean(values), sd(values), 2)
    text = text if len(values) == 1 else f"{text} ({len(values)})"
    return text if recipe.data.val_split == "val" else f"{text} on {recipe.data.val_split}"


def _recipe_key(run: RunSummary) -> str:
    recipe = run.recipe or Recipe()
    train = replace(recipe.train, seed=0)
    kept = replace(recipe, train=train, out=None, label=None, role=None, tests=None, variants={})
    return json.dumps(to_dict(kept), sort_keys=True)


def _run_line(placed: Placed) -> tuple[str, str, str, str]:
    run = placed.run
    where = f"no row: {placed.reason}" if placed.row is None else placed.row.name
    where += "" if placed.column == OURS else f" on {placed.column}"
    if run.recipe is None:
        return run.name, where, "", ""
    train, size = run.recipe.train, run.recipe.data.size
    crop = "×".join(map(str, train.crop))
    training = f"{train.steps:,} steps of {train.batch}, crops of {crop}"
    training += f", images at {size[0]}×{size[1]}" if size else ""
    return run.name, where, number(run.miou, 2), training
