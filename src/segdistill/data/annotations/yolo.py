"""Labels of YOLO's segmentation format: a text file per image, a polygon per line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from segdistill.data.annotations.drawing import Drawing, Shape
from segdistill.data.annotations.drawn import ShapesLabel, Size
from segdistill.data.annotations.json_file import read_text
from segdistill.names import hint

_SLACK = 0.01
"""Rounding in exports leaves coordinates this far outside 0..1; further ones are pixels."""


@dataclass(frozen=True)
class YoloLabel(ShapesLabel):
    """The label of an image.

    Attributes:
        file: Its text file; None: the image has none, so nothing in it is annotated.
        place: For messages.
        names: Names of the classes by their index; None: indices are their own names.
        drawing: How it is drawn.
    """

    file: Path | None
    place: str
    names: tuple[str, ...] | None
    drawing: Drawing

    @property
    def files(self) -> tuple[Path, ...]:  # type: ignore[override]
        """The text file, if there is one."""
        return () if self.file is None else (self.file,)

    def facts(self) -> str:
        """The drawing, and the names of the classes."""
        return f"{self.drawing.facts} {self.names}"

    def shapes(self, size: Size) -> tuple[None, list[Shape]]:
        """Its polygons; the format states no size."""
        if self.file is None:
            return None, []
        lines = enumerate(read_text(self.file).splitlines(), 1)
        return None, [
            self._shape(f"line {n}", line.split(), size) for n, line in lines if line.split()
        ]

    def _shape(self, place: str, words: Sequence[str], size: Size) -> Shape:
        where = f"{self.file}: {place}"
        try:
            numbers = np.array(words, np.float64)
        except ValueError:
            raise ValueError(
                f"{where} is {' '.join(words)!r:.60}; expected numbers, a class and x1 y1 x2 y2 .. Export the "
                "labels again"
            ) from None
        category, points = self._category(numbers[0], where), numbers[1:]
        if not ((points >= -_SLACK) & (points <= 1 + _SLACK)).all():
            bad = points[~((points >= -_SLACK) & (points <= 1 + _SLACK))][0]
            raise ValueError(
                f"{where} has the coordinate {bad:g}; expected fractions of width and height, 0..1. Export the "
                "labels in the normalised format"
            )
        if points.size == 4:
            (x, y), (width, height) = points.reshape(2, 2) * size
            box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            fault = "is a box (class, centre, width and height)"
            return Shape(category, place, fault=fault, box=box)
        if points.size % 2:
            raise ValueError(
                f"{where} has {points.size} coordinates; expected an even number, x1 y1 x2 y2 .. Export the "
                "labels again"
            )
        return Shape(category, place, ((points.reshape(-1, 2) * size).ravel(),))

    def _category(self, index: float, where: str) -> str:
        known = None if self.names is None else len(self.names)
        if index % 1 or index < 0 or index >= (known or 2**16):
            limit = "" if known is None else f", as {known} classes are named"
            raise ValueError(
                f"{where} has class {index:g}; expected 0..{(known or 2**16) - 1}{limit}. Export labels and names "
                "together"
            )
        return str(int(index)) if self.names is None else self.names[int(index)]


def yolo_names(root: Path, declared: str | None) -> tuple[Path, tuple[str, ...]] | None:
    """The file with the names of the classes, and the names by index; None if there is no such file.

    Args:
        root: The folder that holds it: `data.yaml`, `dataset.yaml`, the only YAML file with `names`, or
            `classes.txt`.
        declared: Another file, relative to `root`.

    Raises:
        FileNotFoundError: The declared file does not exist.
        ValueError: A file is malformed, or several could be meant.
    """
    if declared is not None:
        return root / declared, _names(root / declared)
    for name in ("data.yaml", "dataset.yaml"):
        if (root / name).is_file():
            return root / name, _names(root / name)
    others = [path for path in sorted(root.glob("*.y*ml")) if "names:" in read_text(path)]
    if len(others) > 1:
        raise ValueError(
            f"{root} holds {', '.join(path.name for path in others)}, each with names; expected one. Set "
            f"annotations: {others[0].name}"
        )
    if others:
        return others[0], _names(others[0])
    listed = root / "classes.txt"
    return (listed, _names(listed)) if listed.is_file() else None


def _names(path: Path) -> tuple[str, ...]:
    text = read_text(path)
    if path.suffix == ".txt":
        return _lines(path, text)
    content = _yaml(path, text)
    names = content.get("names") if isinstance(content, Mapping) else None
    if isinstance(names, Mapping) and sorted(names, key=str) == sorted(range(len(names)), key=str):
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names:
        raise ValueError(
            f"{path} has names {names!r:.60}; expected a list, or a mapping from 0, 1, .. to names. Correct it"
        )
    for index, name in enumerate(names):
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise ValueError(
                f"{path} has the name {name!r:.40} for class {index}; expected text{hint([name]) or '. Correct it'}"
            )
    _refuse_others(path, content, len(names))
    return tuple(str(name) for name in names)


def _lines(path: Path, text: str) -> tuple[str, ...]:
    """The names of a text file, one per line; a class without a name would move all others."""
    names = [line.strip() for line in text.rstrip().splitlines()]
    if "" in names:
        raise ValueError(
            f"{path}: line {names.index('') + 1} is blank; expected the name of class {names.index('')}. Name it, or "
            "remove the line"
        )
    return tuple(names)


def _refuse_others(path: Path, content: Mapping[str, Any], names: int) -> None:
    """Refuse labels of keypoints, whose lines would be read as polygons, and another number of classes."""
    shape, count = content.get("kpt_shape"), content.get("nc")
    if shape is not None:
        raise ValueError(
            f"{path} has kpt_shape {shape!r:.40}, so that its labels are keypoints; expected polygons. Export the "
            "labels for segmentation"
        )
    if count is not None and (count != names or isinstance(count, bool)):
        raise ValueError(
            f"{path} has nc {count!r:.40} and {names} names; expected one name for each class. Correct it"
        )


def _yaml(path: Path, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}" if mark else "somewhere"
        raise ValueError(
            f"{path}: {place} is not YAML; expected `names: [..]`. Correct it"
        ) from None
