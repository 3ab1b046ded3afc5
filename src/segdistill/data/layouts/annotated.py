"""Pairs of images and the labels of annotation tools."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from segdistill.data.annotations.categories import IGNORE, Categories, unannotated_number
from segdistill.data.annotations.drawing import Crowds, Drawing, Overlap, Undrawable, rasteriser
from segdistill.data.label_map import IGNORED, MAX_CLASSES, LabelMap
from segdistill.data.layouts.coco import CocoSamples, coco_samples
from segdistill.data.layouts.files import FileSamples, file_samples
from segdistill.data.layouts.pairs import FolderPairs, Missing
from segdistill.data.pair import Pair

Labels = Literal["masks", "coco", "yolo", "labelme"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelOptions:
    """Options of `Folder` for labels of annotation tools; see there."""

    labels: Labels = "masks"
    annotations: str | None = None
    label_dir: str | None = None
    unannotated: str = "background"
    overlap: Overlap = "later"
    crowds: Crowds = "ignore"
    undrawable: Undrawable = "refuse"
    missing: Missing = "refuse"

    def refuse_for_masks(self) -> None:
        """Refuse options that mean nothing for masks.

        Raises:
            ValueError: One is set.
        """
        plain = LabelOptions()
        for option, value in vars(self).items():
            if value != getattr(plain, option):
                raise ValueError(
                    f"{option} is {value!r}, and labels is masks; expected it only with the labels of an "
                    "annotation tool. Set `labels` to coco, yolo or labelme, or remove it"
                )


def annotated_pairs(
    finder: FolderPairs,
    split: str,
    options: LabelOptions,
    classes: Sequence[str] | int | None,
    mapping: Mapping[Any, int | str | None] | None,
    held_out: tuple[float, int],
) -> tuple[list[Pair], list[str]]:
    """The samples of a split, and the names of the classes.

    Args:
        finder: Finds the images.
        split: Name of the split.
        options: Which labels, and how they are drawn.
        classes: Names of the classes; None: those of the file.
        mapping: Class of each category that has not the name of a class.
        held_out: Fraction of the names that is held out where there are no split folders, and the seed.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged, or a category is not declared.
    """
    if isinstance(classes, int):
        raise ValueError(
            f"classes is {classes} with labels {options.labels}; expected names, by which categories are found. "
            "Name them, or remove `classes` to use those of the labels"
        )
    if (options.labels, options.missing) == ("coco", "empty"):
        raise ValueError(
            "missing is 'empty' with labels coco; expected 'refuse' or 'skip', as an image without annotations "
            "is one that the file lists. Remove it"
        )
    rasteriser()
    samples = _samples(finder, split, options, held_out)
    first = [] if options.unannotated == IGNORE else [options.unannotated]
    if classes is None and not samples.classes:
        raise ValueError(
            f"classes is missing, and {samples.source} names none; expected a list of names. Set `classes`"
        )
    names = list(dict.fromkeys([*first, *samples.classes])) if classes is None else list(classes)
    if not 1 <= len(names) <= MAX_CLASSES:
        raise ValueError(f"{len(names)} classes declared; expected 1 to {MAX_CLASSES}")
    drawing = Drawing(
        Categories(names, mapping),
        unannotated_number(options.unannotated, names),
        options.overlap,
        options.crowds,
        options.undrawable,
    )
    samples.check(drawing.categories)
    if classes is None:
        _say_once(f"{samples.source}: the classes are those of the file: {', '.join(names)}")
    _say_once(f"{samples.source}: {_assumed(options)}")
    return samples.pairs(drawing), names


def _samples(
    finder: FolderPairs, split: str, options: LabelOptions, held_out: tuple[float, int]
) -> CocoSamples | FileSamples:
    if options.labels == "coco":
        skip = options.missing == "skip"
        return coco_samples(finder, split, options.annotations, held_out, skip)
    return file_samples(
        finder,
        split,
        options.labels,
        options.label_dir,
        options.annotations,
        options.missing,
        held_out,
    )


def drawn_classes(count: int) -> LabelMap:
    """The mapping of labels that are drawn as class numbers."""
    return LabelMap({**{number: number for number in range(count)}, IGNORED: None}, count)


def _assumed(options: LabelOptions) -> str:
    """How labels are read, in one line."""
    rest = "ignored" if options.unannotated == IGNORE else f"of class {options.unannotated!r}"
    top = {
        "later": "later shapes lie over earlier ones",
        "smaller": "smaller shapes lie over larger ones",
        "ignore": "pixels of two classes are ignored",
    }
    crowds = (
        "crowds are ignored, " if (options.labels, options.crowds) == ("coco", "ignore") else ""
    )
    return f"pixels without annotation are {rest}, {top[options.overlap]}, {crowds}photographs are upright"


@cache
def _say_once(line: str) -> None:
    _log.info("%s", line)
