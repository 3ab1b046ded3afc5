"""Labels of labelme: a JSON per image, with polygons, rectangles, circles and masks."""

import base64
import binascii
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from PIL import Image

from segdistill.data.annotations.drawing import Drawing, Shape, rasteriser
from segdistill.data.annotations.drawn import ShapesLabel, Size
from segdistill.data.annotations.json_file import items, read_json
from segdistill.data.annotations.scale import all_fractions
from segdistill.names import height_by_width

_CORNERS = 180
"""A circle is drawn with so many: the polygon leaves it by less than a fifth of a pixel up to a radius of 1000."""
_NO_AREA = ("point", "points", "line", "linestrip")
_KINDS = ("polygon", "rectangle", "circle", "mask", *_NO_AREA)


@dataclass(frozen=True)
class LabelmeLabel(ShapesLabel):
    """The label of an image.

    Attributes:
        file: Its JSON; None: the image has none, so nothing in it is annotated.
        place: For messages.
        drawing: How it is drawn.
    """

    file: Path | None
    place: str
    drawing: Drawing

    @property
    def files(self) -> tuple[Path, ...]:  # type: ignore[override]
        """The JSON, if there is one."""
        return () if self.file is None else (self.file,)

    def shapes(self, size: Size) -> tuple[Size | None, list[Shape]]:
        """Its shapes; the embedded image is not looked at."""
        if self.file is None:
            return None, []
        content = read_json(self.file)
        declared = _declared_size(content, self.file)
        listed = items(content, "shapes", self.file)
        place = "shapes[{}]"
        shapes = [
            _shape(one, place.format(number), self.file, declared or size)
            for number, one in enumerate(listed)
        ]
        rings = [ring for shape in shapes for ring in shape.rings]
        if rings and all_fractions(np.concatenate(rings)):
            raise ValueError(
                f"{self.file}: all points of its shapes are in 0..1; expected pixels of an image of "
                f"{height_by_width(size)} (height x width). Export the labels in pixels, not in fractions"
            )
        return declared, shapes


def _declared_size(content: dict[str, Any], file: Path) -> Size | None:
    """The size of the image that was labelled; None where old versions state none."""
    size = content.get("imageWidth"), content.get("imageHeight")
    if size == (None, None):
        return None
    if not all(type(one) is int and one > 0 for one in size):
        raise ValueError(
            f"{file}: imageWidth and imageHeight are {size[0]!r:.20} and {size[1]!r:.20}; expected positive "
            "integers. Save it again with labelme"
        )
    return int(str(size[0])), int(str(size[1]))


def _shape(one: dict[str, Any], place: str, file: Path, size: Size) -> Shape:
    category, kind = one.get("label"), one.get("shape_type") or "polygon"
    where = f"{file}: {place}"
    if not isinstance(category, str) or not category:
        raise ValueError(f"{where} has label {category!r:.40}; expected text. Name its class")
    if kind not in _KINDS:
        raise ValueError(
            f"{where} ({category!r}) has shape_type {kind!r:.40}; expected one of {', '.join(_KINDS)}. "
            "Draw it as a polygon"
        )
    if kind in _NO_AREA:
        return Shape(category, place, fault=f"is a {kind}")
    points = _points(one.get("points"), f"{where} ({category!r})")
    if kind == "mask":
        return Shape(category, place, runs=_mask(one.get("mask"), points, where, size))
    if kind == "circle":
        _require_points(points, (2,), kind, where)
        radius = float(np.hypot(*(points[1] - points[0])))
        if not radius:
            return Shape(category, place, fault="is a circle without radius")
        angles = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
        points = points[0] + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    elif kind == "rectangle":
        _require_points(points, (2, 4), kind, where)
        if len(points) == 2:
            points = np.array([[x, points[side, 1]] for side in (0, 1) for x in points[:, 0]])
            points = points[[0, 1, 3, 2]]
    return Shape(category, place, (np.ascontiguousarray(points).ravel(),))


def _points(listed: object, where: str) -> Float64[np.ndarray, "n 2"]:
    try:
        points = np.array(listed, np.float64)
    except (TypeError, ValueError):
        points = np.empty(0)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(
            f"{where} has points {listed!r:.40}; expected a list of [x, y]. Draw it again"
        )
    return points


def _require_points(
    points: Float64[np.ndarray, "n 2"], counts: Sequence[int], kind: str, where: str
) -> None:
    if len(points) not in counts:
        raise ValueError(
            f"{where} is a {kind} of {len(points)} points; expected {' or '.join(map(str, counts))}. Draw it again"
        )


def _mask(
    encoded: object, points: Float64[np.ndarray, "n 2"], where: str, size: Size
) -> dict[str, Any]:
    """The runs of a mask: a PNG in text, between two corners that belong to it."""
    _require_points(points, (2,), "mask", where)
    if not np.isfinite(points).all():
        raise ValueError(f"{where} is a mask between {points.tolist()}; expected numbers")
    (left, top), (right, bottom) = points.astype(np.int64).tolist()
    box = (right - left + 1, bottom - top + 1)
    if not (0 <= left <= right < size[0] and 0 <= top <= bottom < size[1]):
        raise ValueError(
            f"{where} is a mask from ({left}, {top}) to ({right}, {bottom}); expected it inside its image of "
            f"{height_by_width(size)} (height x width). Draw it again"
        )
    try:
        stored = io.BytesIO(base64.b64decode(str(encoded), validate=True))
        with Image.open(stored, formats=("PNG",)) as picture:
            if picture.size != box:
                raise ValueError(f"it has {height_by_width(picture.size)} pixels")
            inside = np.asarray(picture.convert("L")) > 0
    except (binascii.Error, OSError, SyntaxError, ValueError) as error:
        raise ValueError(
            f"{where} has a mask that cannot be read ({error!s:.60}); expected a PNG of "
            f"{height_by_width(box)} (height x width) as text. Draw it again"
        ) from None
    pixels = np.zeros(size[::-1], np.uint8, order="F")
    pixels[top : bottom + 1, left : right + 1] = inside
    runs: dict[str, Any] = rasteriser().encode(pixels)
    return runs
