"""Charts of the report: inline SVG in the page's colours.

Every chart is drawn in fixed colours, each of which is then replaced with a CSS variable of the page,
so that one drawing serves light mode, dark mode and print.
"""

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import matplotlib
import numpy as np
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from segdistill.escaping import html
from segdistill.run.reporting.notation import shortened, signed
from segdistill.run.reporting.statistics import mean
from segdistill.run.reporting.summary import (
    ClassChange,
    RunSummary,
    by_label,
    compared,
    controls,
    methods,
)
from segdistill.run.reporting.verdict import Verdict

INK, MUTED, LINE, TEACHER, CONTROL = "#1c1d21", "#676b74", "#dfe1e6", "#3a3d45", "#8b8f99"
# Okabe and Ito's palette for colour-blind readers, without its yellow, which is too faint for lines.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    LINE: "--line",
    TEACHER: "--teacher",
    CONTROL: "--control",
    **{colour: f"--series-{place}" for place, colour in enumerate(SERIES)},
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 11,
    "axes.titlesize": 11,
    "axes.titlecolor": MUTED,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 2,
    "lines.solid_capstyle": "round",
}
WIDE, NARROW = 960, 340
"""widths of a chart in pixels; a page holds both, and its style shows the one that fits the screen"""
_numbers = count()


def colours(summaries: Sequence[RunSummary]) -> dict[str, str]:
    """Colour of each label in every chart: greys for teacher and first control, hues for the others."""
    first, *others = controls(summaries) or ["control"]
    known = [*methods(summaries), *others]
    known += [label for label in compared(summaries) if label not in known]
    hues = {label: SERIES[place % len(SERIES)] for place, label in enumerate(known)}
    return {"teacher": TEACHER, first: CONTROL, **hues}


@contextmanager
def style() -> Iterator[None]:
    """The style of every chart, for drawing and for writing."""
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": f"figure-{next(_numbers)}"}):
        yield


def blank(width: float, height: float) -> Figure:
    """A figure without axes, its size in pixels of the page."""
    # 72 pixels per inch, as in SVG.
    return Figure(figsize=(width / 72, height / 72), layout="constrained")


def to_svg(figure: Figure, description: str) -> str:
    """The drawing as an inline SVG element, without ids, fonts or external references.

    Args:
        figure: Figure to draw; its colours in `VARIABLES` become the page's.
        description: Text alternative for screen readers.
    """
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # The browser's fonts draw the text. And the warning holds the character, which a terminal may obey.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing", UserWarning)
        figure.savefig(buffer, format="svg", transparent=True)
    drawing = html(buffer.getvalue())
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r' xmlns(:\w+)?="[^"]*"| version="1.1"', "", drawing).replace(
        "xlink:href", "href"
    )
    drawing = re.sub(r'<g id="[^"]*"', "<g", drawing)
    # Some Matplotlib releases write "font: 700 12px 'DejaVu Sans'", others one property each.
    drawing = re.sub(r"font: (?:(\d+) )?([\d.]+px) [^;\"]+", _font, drawing)
    drawing = re.sub(r" ?font-family: [^;\"]+;?", "", drawing)
    for colour, variable in VARIABLES.items():
        drawing = drawing.replace(colour, f"var({variable})")
    width = re.search(r'viewBox="0 0 ([\d.]+)', drawing)
    label = f'role="img" aria-label="{escape(html(description))}"'
    head = f'<svg {label} style="max-width:{width.group(1) if width else 0}px"'
    # A function, since a description may hold backslashes.
    return re.sub(r'^<svg width="[^"]*" height="[^"]*"', lambda _: head, drawing.strip())


def _font(match: re.Match[str]) -> str:
    weight = f"; font-weight: {match.group(1)}" if match.group(1) else ""
    return f"font-size: {match.group(2)}{weight}"


def forest(found: Sequence[Verdict], colour: Mapping[str, str], width: int = WIDE) -> str:
    """Each method's difference from the control: every seed, their mean, and its interval."""
    with style():
        figure = blank(width, 62 + 40 * len(found))
        axes = figure.add_subplot()
        for place, verdict in enumerate(found):
            d, hue = verdict.difference, colour[verdict.label]
            if d.half_width is not None:
                axes.plot(
                    [d.mean - d.half_width, d.mean + d.half_width],
                    [place, place],
                    color=hue,
                    lw=7,
                    alpha=0.3,
                )
            if len(d.differences) > 1:
                places = [place] * len(d.differences)
                axes.plot(d.differences, places, "o", ms=6, mfc="none", mec=hue, mew=1.5)
            axes.plot([d.mean], [place], "D", ms=8, color=hue, mew=0)
            axes.annotate(
                signed(d.mean),
                (1, place),
                xycoords=("axes fraction", "data"),
                xytext=(10, 0),
                textcoords="offset points",
                va="center",
                color=hue,
                weight="bold",
            )
        axes.axvline(0, color=MUTED, lw=1.2)
        axes.set_yticks(range(len(found)), [shortened(verdict.label) for verdict in found])
        axes.tick_params(axis="y", labelcolor=INK, labelsize=12)
        axes.set_ylim(len(found) - 0.5, -0.5)
        low, high = axes.get_xlim()
        room = 0.04 * (max(high, 0) - min(low, 0))
        axes.set_xlim(min(low, -room), max(high, room))
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        named = {verdict.control for verdict in found}
        control = f"control {named.pop()}" if len(named) == 1 else "each headline's control"
        axes.set_xlabel(
            f"mIoU points vs. {'control' if control == 'control control' else shortened(control, 40)}"
        )
        return to_svg(figure, "Differences from the control")


def validation_curves(
    summaries: Sequence[RunSummary], colour: Mapping[str, str], width: int = WIDE
) -> str | None:
    """Validation mIoU over steps: thin lines for runs, a thick line for their mean.

    None if no run was validated more than once.
    """
    groups = {label: runs for label, runs in by_label(summaries).items() if label != "teacher"}
    curves = {
        label: [_curve(run.val_rows, _miou) for run in runs] for label, runs in groups.items()
    }
    curves = {label: [one for one in many if len(one) > 1] for label, many in curves.items()}
    curves = {label: many for label, many in curves.items() if many}
    if not curves:
        return None
    with style():
        figure = blank(width, 380)
        axes = figure.add_subplot()
        ends = {}
        for label, many in curves.items():
            for one in many:
                _draw(axes, list(one), list(one.values()), color=colour[label], lw=1, alpha=0.4)
            steps, values = _mean_curve(many)
            _draw(axes, steps, values, color=colour[label], lw=2.4)
            ends[label] = values[-1]
        teachers = [run.miou for run in summaries if run.role == "teacher" and run.miou is not None]
        if teachers:
            ends["teacher"] = mean(teachers)
            axes.axhline(ends["teacher"], color=TEACHER, lw=1.2, ls=(0, (4, 3)))
        axes.margins(x=0.01)
        axes.set_xlabel("step")
        axes.set_title("validation mIoU")
        _label_ends(axes, ends, colour)
        return to_svg(figure, "Validation mIoU over steps")


def _miou(row: Mapping[str, Any]) -> float | None:
    return None if row.get("miou") is None else 100 * float(row["miou"])


def _curve(rows: Sequence[Mapping[str, Any]], read: Any) -> dict[int, float]:
    values = {int(row["step"]): read(row) for row in rows}
    return {
        step: value for step, value in values.items() if value is not None and np.isfinite(value)
    }


def _draw(axes: Axes, steps: Sequence[int], values: Sequence[float], **look: Any) -> None:
    # A single point is drawn as a dot.
    axes.plot(steps, values, marker="o" if len(steps) == 1 else "", ms=6, mew=0, **look)


def _mean_curve(many: Sequence[Mapping[int, float]]) -> tuple[list[int], list[float]]:
    # Only steps that all runs have, since the mean would jump where a run ends.
    steps = sorted(set.intersection(*(set(one) for one in many))) or sorted(many[0])
    return steps, [mean([one[step] for one in many if step in one]) for step in steps]


def _label_ends(axes: Axes, ends: Mapping[str, float], colour: Mapping[str, str]) -> None:
    low, high = axes.get_ylim()
    order = sorted(ends, key=ends.__getitem__)
    heights = apart([ends[label] for label in order], 0.055 * (high - low))
    for label, height in zip(order, heights, strict=True):
        axes.annotate(
            f"{label} {ends[label]:.1f}",
            (1, height),
            xycoords=("axes fraction", "data"),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=colour[label],
            weight="bold",
        )


def apart(heights: Sequence[float], gap: float) -> list[float]:
    """Move ascending heights as little as possible (least squares) to be at least `gap` apart."""
    blocks: list[
        tuple[float, int]
    ] = []  # mean of height - place · gap, and the number that share it
    for place, height in enumerate(heights):
        block = (height - place * gap, 1)
        while blocks and blocks[-1][0] > block[0]:
            (above, n), (below, m) = block, blocks.pop()
            block = ((above * n + below * m) / (n + m), n + m)
        blocks.append(block)
    bases = [base for base, n in blocks for _ in range(n)]
    return [base + place * gap for place, base in enumerate(bases)]


def term_curves(summaries: Sequence[RunSummary], colour: Mapping[str, str]) -> dict[str, str]:
    """Two small charts per term: its value and its gradient share over steps."""
    groups = {label: runs for label, runs in by_label(summaries).items() if label != "teacher"}
    rows = [row for runs in groups.values() for run in runs for row in run.train_rows]
    terms = list(dict.fromkeys(term for row in rows for term in row.get("terms", {})))
    return {term: _term_chart(groups, term, colour) for term in terms}


def _term_chart(
    groups: Mapping[str, Sequence[RunSummary]], term: str, colour: Mapping[str, str]
) -> str:
    with style():
        # Fixed margins, since the layout engine takes longer than the rest of the page.
        figure = Figure(figsize=(470 / 72, 180 / 72))
        for place, key in enumerate(("value", "share")):
            axes = figure.add_axes((0.08 + 0.5 * place, 0.14, 0.41, 0.73))
            values: list[float] = []
            for label, runs in groups.items():
                many = [_curve(run.train_rows, _term_reader(term, key)) for run in runs]
                many = [one for one in many if one]
                for one in many:
                    hue, numbers = colour[label], list(one.values())
                    _draw(axes, list(one), numbers, color=hue, lw=0.8, alpha=0.35)
                    values += numbers
                if many:
                    _draw(axes, *_mean_curve(many), color=colour[label], lw=1.8)
            axes.set_title("value" if key == "value" else "gradient share")
            axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(3, integer=True))
            axes.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
            positive = [value for value in values if value > 0]
            if len(positive) == len(values) > 0 and max(values) > 30 * min(values):
                axes.set_yscale("log")
                # The default labels use mathtext, which is disabled in these charts.
                axes.yaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
            elif values and min(values) >= 0:
                axes.set_ylim(bottom=0)
            if not values:
                axes.annotate(
                    "not recorded", (0.5, 0.5), xycoords="axes fraction", ha="center", color=MUTED
                )
        return to_svg(figure, f"Term {term}: value and gradient share over steps")


def _term_reader(term: str, key: str) -> Any:
    def read(row: Mapping[str, Any]) -> float | None:
        value = row.get("terms", {}).get(term, {}).get(key)
        return None if value is None else float(value)

    return read


def class_bars(
    changes: Sequence[ClassChange],
    label: str,
    colour: Mapping[str, str],
    width: int = WIDE,
    control: str = "control",
) -> str:
    """Bars of each class's IoU for a control and one method; a mark for the teacher."""
    with style():
        figure = blank(width, 66 + 34 * len(changes))
        axes = figure.add_subplot()
        for place, change in enumerate(changes):
            for offset, group in ((-0.18, control), (0.18, label)):
                value = change.iou.get(group)
                if value is not None:
                    axes.barh(place + offset, value, height=0.34, color=colour[group])
            teacher = change.iou.get("teacher")
            if teacher is not None:
                axes.plot([teacher, teacher], [place - 0.42, place + 0.42], color=TEACHER, lw=2.4)
            if change.change is not None:
                axes.annotate(
                    signed(change.change.mean),
                    (1, place),
                    xycoords=("axes fraction", "data"),
                    xytext=(10, 0),
                    textcoords="offset points",
                    va="center",
                    color=INK,
                )
        letters = 22 if width > NARROW else 13
        names = [shortened(change.name, letters) for change in changes]
        axes.set_yticks(range(len(changes)), names)
        axes.tick_params(axis="y", labelcolor=INK, labelsize=12)
        axes.set_ylim(len(changes) - 0.4, -0.6)
        axes.set_xlim(0, 100)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("IoU; right: difference from control")
        return to_svg(figure, f"IoU of each class for the control and {label}")
