"""Labels of a COCO file: one JSON for all images of a split."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from segdistill.data.annotations.drawing import Drawing, Shape
from segdistill.data.annotations.drawn import ShapesLabel, Size
from segdistill.data.annotations.json_file import items, read_json
from segdistill.data.annotations.runs import checked_runs
from segdistill.data.annotations.scale import all_fractions, mostly_scaled
from segdistill.data.reading.opening import stamp

_MOST = 2**62
"""Ids and sizes from here on are mistakes, and do not fit the arrays."""


class CocoFile:
    """The images, categories and annotations of a COCO file, checked and held in arrays.

    It is read once per process: whoever opens a split again gets the same, and processes that load samples
    share its arrays or receive them.

    Attributes:
        path: The file.
        images: Name of the image's file, width and height, in the order of the file.
        categories: Name of each category, by id.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged; the message names the place.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Before it is read: whoever keeps what is drawn from it must know of a change meanwhile.
        self.stamp = stamp(path) if path.is_file() else ""
        content = read_json(path)
        self.categories = self._read_categories(items(content, "categories", path))
        places = self._read_images(items(content, "images", path))
        annotations = items(content, "annotations", path)
        images = array("q")
        self._category, self._ids, self._crowds = array("q"), array("q"), array("b")
        self._runs: dict[int, dict[str, Any]] = {}
        self._boxes: dict[int, tuple[float, float, float, float]] = {}
        # Polygons one after the other: a list of Python's numbers would take eight times the memory.
        self._coordinates, self._ring_ends, self._ring_counts = array("d"), array("q"), array("q")
        boxes = array("d")
        for number, one in enumerate(annotations):
            place = f"annotations[{number}]"
            images.append(self._known(one, "image_id", places, place))
            self._category.append(self._known(one, "category_id", self.categories, place))
            own = one.get("id", number)
            self._ids.append(own if _whole(own) else number)
            self._crowds.append(self._is_crowd(one.get("iscrowd"), place))
            self._ring_counts.append(self._read_segmentation(one, number, self.images[images[-1]]))
            boxes.extend(_numbers(one.get("bbox")))
        self._refuse_other_scale(np.asarray(boxes).reshape(-1, 4), images)
        self._ring_starts = np.cumsum([0, *self._ring_counts])
        order = np.argsort(np.asarray(images), kind="stable")
        self._order = order
        self._starts = np.searchsorted(np.asarray(images)[order], np.arange(len(self.images) + 1))

    def _read_categories(self, listed: list[dict[str, Any]]) -> dict[int, str]:
        found: dict[int, str] = {}
        self._parents = {str(one.get("supercategory")): one.get("id") for one in listed}
        for number, one in enumerate(listed):
            place = f"{self.path}: categories[{number}]"
            key, name = one.get("id"), one.get("name")
            if not _whole(key) or not isinstance(name, str) or not name:
                raise ValueError(f"{place} is {one!r:.60}; expected an integer id and a name")
            if key in found:
                raise ValueError(f"{place} has the id {key} again; expected every id once")
            found[int(str(key))] = name
        return dict(sorted(found.items()))

    def _read_images(self, listed: list[dict[str, Any]]) -> dict[Any, int]:
        """Fills `images`; returns their places by id."""
        self.images: list[tuple[str, int, int]] = []
        places: dict[Any, int] = {}
        names: set[str] = set()
        for number, one in enumerate(listed):
            place = f"{self.path}: images[{number}]"
            name, width, height = (one.get(key) for key in ("file_name", "width", "height"))
            if not isinstance(name, str) or not name:
                raise ValueError(f"{place} has file_name {name!r:.40}; expected text")
            if not (_whole(width) and _whole(height)) or min(width or 0, height or 0) < 1:
                raise ValueError(
                    f"{place} ({name}) has width {width!r:.20} and height {height!r:.20}; expected positive "
                    "integers. Export the labels again"
                )
            key = one.get("id")
            if not isinstance(key, int | str):
                raise ValueError(f"{place} ({name}) has id {key!r:.20}; expected an integer")
            for what, known in ((f"the id {key!r:.40}", key in places), (name, name in names)):
                if known:
                    raise ValueError(f"{place} has {what} again; expected every image once")
            places[key] = number
            names.add(name)
            self.images.append((name, int(str(width)), int(str(height))))
        return places

    def _known(self, one: dict[str, Any], key: str, known: Mapping[Any, Any], place: str) -> int:
        """What an annotation refers to: the place of its image, or the id of its category."""
        value = one.get(key)
        if not isinstance(value, int | str) or value not in known:
            what = key.removesuffix("_id")
            raise ValueError(
                f"{self.path}: {place} has {key} {value!r:.40}, and no {what} has this id; expected one of the "
                f"{len(known)} {'images' if what == 'image' else 'categories'}. Remove it, or export again"
            )
        return int(known[value]) if key == "image_id" else int(value)

    def _is_crowd(self, value: object, place: str) -> bool:
        if value not in (None, 0, 1):  # true and false are 1 and 0
            raise ValueError(
                f"{self.path}: {place} has iscrowd {value!r:.40}; expected 0 or 1. Export the labels again"
            )
        return value == 1

    def _read_segmentation(
        self, one: dict[str, Any], number: int, image: tuple[str, int, int]
    ) -> int:
        """Keep the outline of an annotation; returns how many polygons it has."""
        outline = one.get("segmentation")
        if not _drawable(outline) and (box := _box(one.get("bbox"))) is not None:
            self._boxes[number] = box
        place = f"{self.path}: annotations[{number}] of {image[0]}"
        if isinstance(outline, dict):
            self._runs[number] = checked_runs(outline, image[1:], place)
            return 0
        if outline is None:
            return 0
        if not isinstance(outline, list):
            raise ValueError(f"{place} has segmentation {outline!r:.40}; expected polygons or RLE")
        for ring in outline:
            self._read_ring(ring, place)
        return len(outline)

    def _read_ring(self, ring: object, place: str) -> None:
        before = len(self._coordinates)
        try:
            if not isinstance(ring, list):
                raise TypeError
            self._coordinates.extend(ring)
        except (TypeError, OverflowError):
            raise ValueError(
                f"{place} has the polygon {ring!r:.40}; expected a list of numbers x1, y1, x2, y2, .."
            ) from None
        if (len(self._coordinates) - before) % 2:
            raise ValueError(
                f"{place} has a polygon of {len(self._coordinates) - before} numbers; expected an even "
                "number, x1, y1, x2, y2, .."
            )
        self._ring_ends.append(len(self._coordinates))

    def _refuse_other_scale(self, boxes: Float64[np.ndarray, "m 4"], images: Sequence[int]) -> None:
        coordinates = np.asarray(self._coordinates)
        if all_fractions(coordinates):
            name, width, height = self.images[images[0]]
            raise ValueError(
                f"{self.path}: all coordinates of its polygons are in 0..1; expected pixels, as of {name} with "
                f"{height}x{width} (height x width). Export the labels in pixels, not in fractions"
            )
        scaled = mostly_scaled(coordinates, self._ring_ends, self._ring_counts, boxes)
        if scaled is None:
            return
        left, top, right, bottom = scaled.extent
        name = self.images[images[scaled.first]][0]
        raise ValueError(
            f"{self.path}: the polygons of {scaled.number} of {scaled.compared} annotations compared are at another "
            f"scale than their bbox, as annotations[{scaled.first}] of {name} from ({left:g}, {top:g}) "
            f"to ({right:g}, {bottom:g}) with bbox {boxes[scaled.first].tolist()}; expected pixels of the image for "
            "both. Export the labels at the size of the images"
        )

    def classes(self) -> list[str]:
        """Names of the categories in the order of their ids, each once.

        A category without annotations that is the supercategory of others, as in exports of Roboflow, is
        left out.
        """
        used = self.used()
        return list(
            dict.fromkeys(
                name
                for key, name in self.categories.items()
                if key in used or self._parents.get(name, key) == key
            )
        )

    def used(self) -> set[int]:
        """Ids of the categories that have annotations."""
        return set(self._category)

    def shapes(self, position: int) -> list[Shape]:
        """The annotations of an image, in the order of the file."""
        numbers = self._order[self._starts[position] : self._starts[position + 1]]
        return [self._shape(int(number)) for number in numbers]

    def _shape(self, number: int) -> Shape:
        first, last = self._ring_starts[number : number + 2]
        flat = np.frombuffer(self._coordinates, np.float64) if last > first else np.empty(0)
        ends = [0 if ring < 0 else self._ring_ends[ring] for ring in range(first - 1, last)]
        rings = tuple(flat[a:b] for a, b in pairwise(ends))
        runs = self._runs.get(number)
        return Shape(
            self.categories[self._category[number]],
            f"annotation {self._ids[number]}",
            rings,
            runs,
            bool(self._crowds[number]),
            "" if rings or runs else "has no segmentation, only a box or points",
            self._boxes.get(number),
        )


@dataclass(frozen=True)
class CocoLabel(ShapesLabel):
    """The label of an image of a COCO file."""

    coco: CocoFile
    position: int
    drawing: Drawing

    @property
    def files(self) -> tuple[Path, ...]:  # type: ignore[override]
        """The COCO file."""
        return (self.coco.path,)

    @property
    def place(self) -> str:  # type: ignore[override]
        """The file and the image."""
        return f"{self.coco.path} ({self.coco.images[self.position][0]})"

    def stamps(self) -> list[str]:
        """The stamp of the COCO file when it was read, once for all images."""
        return [self.coco.stamp]

    def shapes(self, size: Size) -> tuple[Size, list[Shape]]:
        """Its annotations."""
        _, width, height = self.coco.images[self.position]
        return (width, height), self.coco.shapes(self.position)


def open_coco(path: Path) -> CocoFile:
    """A COCO file, read again only where it was changed.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged.
    """
    if not path.is_file():
        return CocoFile(path)  # says what it is
    return _opened(path, stamp(path))


@lru_cache(maxsize=4)
def _opened(path: Path, content: str) -> CocoFile:
    return CocoFile(path)


def _drawable(outline: object) -> bool:
    """Whether an outline has an area, as far as its kind tells."""
    rings = outline if isinstance(outline, list) else []
    return isinstance(outline, dict) or any(isinstance(r, list) and len(r) >= 6 for r in rings)


def _box(stated: object) -> tuple[float, float, float, float] | None:
    """Left, top, right and bottom of a bbox; None where it is none."""
    left, top, width, height = _numbers(stated)
    return (left, top, left + width, top + height) if width > 0 and height > 0 else None


def _numbers(stated: object) -> tuple[float, float, float, float]:
    """The four numbers of a bbox; NaN where it is none."""
    try:
        one, two, three, four = (float(value) for value in stated)  # type: ignore[attr-defined]
    except (TypeError, ValueError, OverflowError):
        return nan, nan, nan, nan
    finite = all(map(isfinite, (one, two, three, four)))
    return (one, two, three, four) if finite else (nan, nan, nan, nan)


def _whole(value: object) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole and abs(int(str(value))) < _MOST
