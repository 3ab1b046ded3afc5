"""Drawing the shapes of an image as a label map, by the rasteriser of COCO's own tools."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, UInt8

from segdistill.data.annotations.categories import Categories
from segdistill.extras import require
from segdistill.labels import IGNORED
from segdistill.names import height_by_width

Overlap = Literal["later", "smaller", "ignore"]
"""Which shape a pixel of several has: the later one in the file, the smaller one, or none."""
Crowds = Literal["ignore", "draw"]
Undrawable = Literal["refuse", "skip"]
Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels."""

_REACH = 1
"""A coordinate further outside than this many image sizes is a mistake, and costs memory to draw."""


class Shape(NamedTuple):
    """One annotation of an image.

    Attributes:
        category: Name of its category.
        place: Where it stands in its file, for messages.
        rings: Polygons x1 y1 x2 y2 .. in pixels; pixel i spans i to i + 1. Together they are the shape.
        runs: Runs of pixels, as pycocotools holds them, in place of rings.
        crowd: Whether it is a group of objects that are not told apart.
        fault: Why it has no area, such as "is a point"; "" if it has one.
        box: Left, top, right and bottom that its file states, in pixels; None: it states none.
    """

    category: str
    place: str
    rings: tuple[Float64[np.ndarray, " n"], ...] = ()
    runs: dict[str, Any] | None = None
    crowd: bool = False
    fault: str = ""
    box: Box | None = None


class LeftOut(NamedTuple):
    """A shape that is not drawn: the name of its category, and why, such as "is a point"."""

    category: str
    why: str


class Drawn(NamedTuple):
    """Class numbers, 255 ignored, and the shapes that are not among them."""

    label: UInt8[np.ndarray, "h w"]
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True)
class Drawing:
    """How shapes become a label map.

    Attributes:
        categories: The class of each category.
        unannotated: Class number of pixels without annotation, 255 to ignore them.
        overlap: What a pixel of several shapes is.
        crowds: Whether pixels of crowds are ignored, where no other shape lies, or drawn as others.
        undrawable: Whether shapes without area are refused or left out. The boxes of those left out are
            ignored, where no other shape lies.
    """

    categories: Categories
    unannotated: int
    overlap: Overlap = "later"
    crowds: Crowds = "ignore"
    undrawable: Undrawable = "refuse"

    @cached_property
    def facts(self) -> str:
        """What tells one drawing from another."""
        numbers = sorted(self.categories.numbers.items())
        skip = "skip, boxes are ignored" if self.undrawable == "skip" else self.undrawable
        return json.dumps([numbers, self.unannotated, self.overlap, self.crowds, skip])


def rasteriser() -> Any:
    """The module `pycocotools.mask`.

    Raises:
        ValueError: It is not installed.
    """
    return require("pycocotools.mask", "polygons")


def draw(
    shapes: Sequence[Shape], size: tuple[int, int], drawing: Drawing, file: Path | str
) -> Drawn:
    """A label map.

    Args:
        shapes: The shapes, in the order of their file.
        size: Width and height of the image that they were drawn on.
        drawing: How they are drawn.
        file: Their file, for messages.

    Raises:
        ValueError: A shape has no area or lies outside the image, and these are refused; its coordinates
            are no numbers or far outside; its category is not declared.
    """
    painted, left_out, boxes = _sorted_out(shapes, size, drawing, file)
    numbers = [drawing.categories.number(s.category, f"{file}: {s.place}") for s in painted]
    below = [shape.crowd and drawing.crowds == "ignore" for shape in painted]
    encoded = _encoded(painted, size)
    areas = rasteriser().area(encoded).tolist() if encoded else []
    parts = [_Part(*one) for one in zip(numbers, encoded, areas, below, strict=True)]
    # In Fortran's order, as the rasteriser works column by column.
    label = np.full(size[::-1], drawing.unannotated, np.uint8, order="F")
    for box in boxes:
        label[_inside(box, size)] = IGNORED
    crowds = [part._replace(number=IGNORED) for part in parts if part.below]
    objects = [part for part in parts if not part.below]
    if drawing.overlap == "smaller":
        objects.sort(key=lambda part: -part.area)
    for number, mask in _painted([*crowds, *objects]):
        label[mask] = number
    if drawing.overlap == "ignore":
        label[_disputed(objects, size)] = IGNORED
    empty = [
        LeftOut(shape.category, "covers the centre of no pixel")
        for shape, part in zip(painted, parts, strict=True)
        if not part.area
    ]
    return Drawn(np.ascontiguousarray(label), (*left_out, *empty))


def _sorted_out(
    shapes: Sequence[Shape], size: tuple[int, int], drawing: Drawing, file: Path | str
) -> tuple[list[Shape], list[LeftOut], list[Box]]:
    """The shapes that can be drawn, the others, and the boxes of those."""
    painted, left_out, boxes = [], [], []
    for whole in shapes:
        shape = _without_short_parts(whole, drawing)
        short = len(whole.rings) - len(shape.rings)
        left_out += [LeftOut(shape.category, "has a part of less than three points")] * short
        fault = _without_area(shape, drawing, file) or _outside(shape, size, drawing, file)
        if fault:
            left_out.append(LeftOut(shape.category, fault))
            boxes += [] if shape.box is None else [shape.box]
        else:
            painted.append(shape)
    return painted, left_out, boxes


def _without_short_parts(shape: Shape, drawing: Drawing) -> Shape:
    """A shape without those of its polygons that have no area, if these are left out and others have one."""
    full = tuple(ring for ring in shape.rings if ring.size >= 6)
    return shape._replace(rings=full) if full and drawing.undrawable == "skip" else shape


class _Part(NamedTuple):
    """A shape as class number, runs of pixels and their number, and whether it lies below all others."""

    number: int
    runs: dict[str, Any]
    area: int
    below: bool


def _inside(box: Box, size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the pixels whose centres lie in a box."""
    left, top, right, bottom = (
        int(np.clip(np.ceil(edge - 0.5), 0, size[place % 2])) for place, edge in enumerate(box)
    )
    return slice(top, bottom), slice(left, right)


def _without_area(shape: Shape, drawing: Drawing, file: Path | str) -> str:
    """Why a shape without area is left out; "" if it has one."""
    fault = shape.fault
    lengths = [ring.size for ring in shape.rings]
    if not fault and lengths and min(lengths) < 6:
        fault = f"is a polygon of {min(lengths) // 2} points"
    if fault and drawing.undrawable == "refuse":
        raise ValueError(
            f"{file}: {shape.place} ({shape.category!r}) {fault}, which covers no pixels; expected a polygon of "
            "at least 3 points. Correct or remove it, or set undrawable: skip to leave such shapes out"
        )
    return fault


def _outside(shape: Shape, size: tuple[int, int], drawing: Drawing, file: Path | str) -> str:
    """Why a shape outside the image is left out, or ""; refuses coordinates that are mistakes."""
    if not shape.rings:
        return ""
    points = np.concatenate(shape.rings).reshape(-1, 2)
    low, high, limit = points.min(axis=0), points.max(axis=0), np.array(size)
    where = f"{file}: {shape.place} ({shape.category!r})"
    # Written so that NaN, too, is refused.
    if not ((low >= -_REACH * limit) & (high <= (1 + _REACH) * limit)).all():
        raise ValueError(
            f"{where} reaches from ({low[0]:g}, {low[1]:g}) to ({high[0]:g}, {high[1]:g}); expected pixels of an "
            f"image of {height_by_width(size)} (height x width). Check that the labels belong to this image, at this "
            "size"
        )
    if not ((high <= 0) | (low >= limit)).any():
        return ""
    if drawing.undrawable == "refuse":
        raise ValueError(
            f"{where} lies outside its image of {height_by_width(size)} (height x width); expected a part inside. "
            "Correct or remove it, or set undrawable: skip to leave such shapes out"
        )
    return "lies outside its image"


def _encoded(shapes: Sequence[Shape], size: tuple[int, int]) -> list[dict[str, Any]]:
    """The runs of pixels of each shape; all polygons of an image are rasterised by one call."""
    api = rasteriser()
    rings = [ring for shape in shapes for ring in shape.rings]
    runs = iter(api.frPyObjects(rings, size[1], size[0]) if rings else ())
    encoded = []
    for shape in shapes:
        own = [next(runs) for _ in shape.rings]
        encoded.append(shape.runs or (own[0] if len(own) == 1 else api.merge(own)))
    return encoded


def _painted(parts: Sequence[_Part]) -> Iterator[tuple[int, Bool[np.ndarray, "h w"]]]:
    """Masks to paint in turn; shapes of one class that follow one another are one mask."""
    api = rasteriser()
    for number, group in groupby(parts, lambda part: part.number):
        runs = [part.runs for part in group]
        yield number, api.decode(runs[0] if len(runs) == 1 else api.merge(runs)).view(bool)


def _disputed(parts: Sequence[_Part], size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Pixels that shapes of different classes cover."""
    taken, disputed = (np.zeros(size[::-1], bool, order="F") for _ in range(2))
    for _, mask in _painted(sorted(parts, key=lambda part: part.number)):
        disputed |= taken & mask
        taken |= mask
    return disputed
