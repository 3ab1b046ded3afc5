"""Charts of published and measured values."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from segdistill.run.reporting.charts import CONTROL, INK, SERIES, blank, style, to_svg

PUBLISHED = "published"


@dataclass(frozen=True)
class Chart:
    """A chart as SVG for a page, and as PNG."""

    svg: str
    png: bytes


@dataclass(frozen=True)
class Dot:
    """A network: its parameters in millions, its mIoU, and the source of these numbers."""

    name: str
    parameters: float
    miou: float
    series: str


def bars(groups: Mapping[str, Mapping[str, float]], label: str, description: str) -> Chart | None:
    """A bar chart with one bar per series in each group; None without values.

    Args:
        groups: Group (a row, a class) -> series -> value.
        label: Label of the value axis.
        description: Text alternative for screen readers.
    """
    series = list(dict.fromkeys(name for values in groups.values() for name in values))
    if not series:
        return None
    colour = _colours(series)
    with style():
        room = 12 * len(series) + 14
        figure = blank(960, 96 + room * len(groups))
        axes = figure.add_subplot()
        height = 0.8 / len(series)
        for place, name in enumerate(series):
            own = [(y, values[name]) for y, values in enumerate(groups.values()) if name in values]
            places = [y + (place - (len(series) - 1) / 2) * height for y, _ in own]
            values = [value for _, value in own]
            axes.barh(places, values, height=0.9 * height, color=colour[name], label=name)
            for y, value in zip(places, values, strict=True):
                axes.annotate(
                    f"{value:.2f}",
                    (max(value, 0), y),
                    xytext=(4, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=9,
                )
        axes.set_yticks(range(len(groups)), list(groups))
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_ylim(len(groups) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.08)
        return _finish(figure, axes, label, description)


def dots(points: Sequence[Dot], label: str, description: str) -> Chart | None:
    """mIoU over parameters on a logarithmic axis; None without points."""
    if not points:
        return None
    series = list(dict.fromkeys(point.series for point in points))
    colour = _colours(series)
    with style():
        figure = blank(960, 460)
        axes = figure.add_subplot()
        for name in series:
            own = [point for point in points if point.series == name]
            axes.plot(
                [point.parameters for point in own],
                [point.miou for point in own],
                "o",
                ms=8,
                mew=0,
                color=colour[name],
                label=name,
            )
        for point in points:
            axes.annotate(
                point.name,
                (point.parameters, point.miou),
                xytext=(8, 0),
                textcoords="offset points",
                va="center",
            )
        axes.set_xscale("log")
        # The default labels use mathtext, which is disabled in these charts.
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.margins(x=0.15, y=0.1)
        axes.set_ylabel(label)
        return _finish(figure, axes, "parameters, millions", description)


def _colours(series: Sequence[str]) -> dict[str, str]:
    ours = [name for name in series if not name.startswith(PUBLISHED)]
    hues = {name: SERIES[place % len(SERIES)] for place, name in enumerate(ours)}
    return {**dict.fromkeys(series, CONTROL), **hues}


def _finish(figure: Figure, axes: Axes, label: str, description: str) -> Chart:
    axes.set_xlabel(label)
    axes.legend(frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=144, facecolor="white")
    return Chart(to_svg(figure, description), picture.getvalue())
