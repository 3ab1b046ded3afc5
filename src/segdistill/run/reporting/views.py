"""The pictures of a report: images, class distances, position masks."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.colors import Colormap
from PIL import Image

from segdistill.escaping import html
from segdistill.labels import IGNORED
from segdistill.run.evaluation.distances import edge_correlation, edges, normalised
from segdistill.run.reporting.findings import Distances, Panel, PositionMasks
from segdistill.run.reporting.notation import number, shortened, signed

SEQUENTIAL, DIVERGING = matplotlib.colormaps["viridis"], matplotlib.colormaps["PuOr_r"]


def css_colour(palette: Sequence[Sequence[int]], index: int) -> str:
    """A class's colour in CSS; grey for a class beyond the palette."""
    red, green, blue = palette[index] if index < len(palette) else (128, 128, 128)
    return f"rgb({int(red)} {int(green)} {int(blue)})"


def panel_view(
    panels: Sequence[Panel], classes: Sequence[str], palette: Sequence[Sequence[int]]
) -> dict[str, Any] | None:
    """Rows of pictures with captions, and a legend of the classes that occur in them."""
    if not panels:
        return None
    labels = list(panels[0].predictions)
    seen = {int(value) for panel in panels for value in np.unique(panel.label)}
    seen |= {
        int(v) for panel in panels for mask in panel.predictions.values() for v in np.unique(mask)
    }
    return {
        "labels": labels,
        "rows": [_panel_row(panel, labels, palette) for panel in panels],
        "legend": [
            (name, css_colour(palette, index))
            for index, name in enumerate(classes)
            if index in seen
        ],
        "ignored": IGNORED in seen,
    }


def _panel_row(
    panel: Panel, labels: Sequence[str], palette: Sequence[Sequence[int]]
) -> dict[str, Any]:
    counted = panel.label != IGNORED
    cells = []
    for label in labels:
        mask = panel.predictions[label]
        right = float((mask == panel.label)[counted].mean()) if counted.any() else None
        caption = "" if right is None else f"{100 * right:.1f} %"
        cells.append((mask_png(mask, palette), caption))
    return {
        "name": panel.name,
        "image": png(panel.image),
        "label": mask_png(panel.label, palette),
        "cells": cells,
    }


def matrix_view(found: Sequence[Distances], classes: Sequence[str]) -> dict[str, Any] | None:
    """The distance matrices on one scale, their statistics, and their differences from the teacher's."""
    if not found:
        return None
    tables = {entry.label: normalised(entry.table) for entry in found}
    reference = tables.get("teacher")
    limit = max(float(np.nanmax(table, initial=0.0)) for table in tables.values()) or 1.0
    cards = []
    for entry in found:
        facts = [
            (
                "variance within / between classes (lower: better separated)",
                number(entry.within_between, 2),
            )
        ]
        if reference is not None and entry.label != "teacher":
            correlation = edge_correlation(tables[entry.label], reference)
            facts.append(("correlation with the teacher's distances", number(correlation, 3)))
        chart = matrix(tables[entry.label], classes, limit, SEQUENTIAL)
        cards.append((entry.label, Markup(chart), facts))
    return {
        "cards": cards,
        "scale": (
            scale_png(SEQUENTIAL),
            ("0", number(limit, 1)),
            "distance / mean distance",
        ),
        "gaps": _gap_cards(tables, reference, classes),
        "blank": [
            name
            for name, row in zip(classes, found[0].table, strict=True)
            if not np.isfinite(row).any()
        ],
    }


def _gap_cards(
    tables: Mapping[str, np.ndarray], reference: np.ndarray | None, classes: Sequence[str]
) -> dict[str, Any] | None:
    """Differences between each network's normalised distances and the teacher's."""
    if reference is None or len(tables) < 2:
        return None
    gaps = {label: table - reference for label, table in tables.items() if label != "teacher"}
    limit = max(float(np.nanmax(np.abs(gap), initial=0.0)) for gap in gaps.values()) or 1.0
    cards = [
        (
            label,
            Markup(matrix(gap, classes, limit, DIVERGING, signed_values=True)),
            [("mean absolute difference", number(_mean_size(edges(gap)), 3))],
        )
        for label, gap in gaps.items()
    ]
    ends = (signed(-limit), "0", signed(limit))
    return {
        "cards": cards,
        "scale": (
            scale_png(DIVERGING),
            ends,
            "difference in distance / mean distance",
        ),
    }


def _mean_size(values: np.ndarray) -> float | None:
    known = np.abs(values[np.isfinite(values)])
    return float(known.mean()) if len(known) else None


def position_view(positions: Sequence[PositionMasks]) -> list[dict[str, Any]]:
    """The ramp and the networks' masks with their R², per image and axis."""
    views = []
    for entry in positions:
        axes = []
        for place, axis in enumerate("xy"):
            cells = [("ramp", field_png(entry.ramps[place]), "")]
            for label, mask in entry.masks.items():
                score = f"R² {entry.r2[label][place]:.2f}" if label in entry.r2 else ""
                cells.append((label, field_png(mask[place]), score))
            axes.append((axis, cells))
        views.append({"name": entry.name, "axes": axes})
    return views


def matrix(
    values: np.ndarray,
    classes: Sequence[str],
    limit: float,
    colour_map: Colormap,
    signed_values: bool = False,
) -> str:
    """A class-by-class matrix as SVG; the diagonal and unknown classes are blank.

    Args:
        values: k by k, NaN where unknown.
        classes: Names of the k classes; not shown for more than 24.
        limit: Value at the end of the colour scale; use the same for matrices that are compared.
        colour_map: Colour map of the values.
        signed_values: Whether the scale starts at -limit instead of 0.
    """
    shown = np.where(np.eye(len(values), dtype=bool), np.nan, values)
    low = -limit if signed_values else 0.0
    names = [shortened(html(name), 12) for name in classes] if len(classes) <= 24 else []
    margin, side = (72, 228) if names else (0, 300)
    cell = side / max(len(values), 1)
    size = min(10.0, 0.8 * cell)
    texts = []
    for place, name in enumerate(names):
        middle = (place + 0.5) * cell
        texts.append(f'<text x="{margin - 5}" y="{middle + 0.35 * size:.1f}">{escape(name)}</text>')
        x = margin + middle + 0.35 * size
        texts.append(
            f'<text transform="translate({x:.1f} {side + 6}) rotate(-90)">{escape(name)}</text>'
        )
    return (
        '<svg role="img" aria-label="Matrix over pairs of classes" style="max-width:360px" '
        f'viewBox="0 0 300 {side + margin}">'
        f'<image x="{margin}" y="0" width="{side}" height="{side}" preserveAspectRatio="none" '
        f'style="image-rendering:pixelated" href="{field_png(shown, low, limit, colour_map)}"/>'
        f'<g style="font-size:{size:.1f}px;text-anchor:end;fill:var(--muted)">'
        f"{''.join(texts)}</g></svg>"
    )


def png(pixels: np.ndarray, width: int = 480) -> str:
    """A picture as a data URI.

    Args:
        pixels: h w 3, uint8.
        width: Wider pictures are scaled down to this width; narrower ones are not scaled.
    """
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if picture.width > width:
        height = max(1, round(picture.height * width / picture.width))
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    return _data_uri(picture)


def mask_png(mask: np.ndarray, palette: Sequence[Sequence[int]], width: int = 480) -> str:
    """A label mask in the data set's colours as a data URI; ignored pixels (255) are transparent.

    Args:
        mask: h w of class ids.
        palette: Red, green and blue, 0 to 255, of each class.
        width: As in `png`; scaled by nearest neighbour, so that no new colours appear.
    """
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(palette)] = np.asarray(palette, dtype=np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(mask).astype(np.uint8)).convert("P")
    picture.putpalette(table.tobytes())
    if picture.width > width:
        height = max(1, round(picture.height * width / picture.width))
        picture = picture.resize((width, height), Image.Resampling.NEAREST)
    return _data_uri(picture, transparency=IGNORED)


def field_png(
    values: np.ndarray, low: float = 0.0, high: float = 1.0, colour_map: Colormap = SEQUENTIAL
) -> str:
    """A map of numbers (h w) as a data URI, one pixel each, coloured from `low` to `high`.

    NaN is transparent.
    """
    share = np.clip((np.asarray(values, dtype=float) - low) / max(high - low, 1e-12), 0, 1)
    pixels = colour_map(np.ma.masked_invalid(share), bytes=True)
    return _data_uri(Image.fromarray(pixels))


def scale_png(colour_map: Colormap) -> str:
    """A colour map from low to high as a strip, as a data URI."""
    return field_png(np.linspace(0, 1, 128)[None], colour_map=colour_map)


def _data_uri(picture: Image.Image, **options: int) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", **options)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
