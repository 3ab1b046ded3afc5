"""Pairs of images and the labels of annotation tools."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from segdistill.data.annotations.categories import IGNORE, Categories, unannotated_number
from segdistill.data.annotations.drawing import Crowds, Drawing, Overlap, Undrawable, rasteriser
from segdistill.data.label_map import IGNORED, MAX_CLASSES, LabelMap
from segdistill.data.layouts.coco import CocoSamples, coco_samples
from segdistill.data.layouts.files import FileSamples, file_samples
from segdistill.data.layouts.layers import LayerPairs, LayerSamples
from segdistill.data.layouts.pairs import FolderPairs, Missing
from segdistill.data.pair import Pair
from segdistill.data.reading.listing import tell_once

Labels = Literal["masks", "layers", "coco", "yolo", "labelme"]

_SHAPES = ("coco", "yolo", "labelme")
_MEANT_FOR: dict[str, tuple[str, ...]] = {
    "annotations": ("layers", "coco", "yolo"),
    "label_dir": ("yolo", "labelme"),
    "unannotated": ("layers", *_SHAPES),
    "overlap": ("layers", *_SHAPES),
    "crowds": ("coco",),
    "undrawable": _SHAPES,
}
"""The labels that an option is for."""

_MISSING: dict[str, tuple[Missing, ...]] = {
    "masks": ("refuse", "unlabelled"),
    "coco": ("refuse", "skip"),
    **dict.fromkeys(("layers", "yolo", "labelme"), ("refuse", "skip", "empty")),
}
"""What `missing` may be for each kind of labels."""


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

    def refuse_others(self) -> None:
        """Refuse options that mean nothing for these labels.

        Raises:
            ValueError: One is set.
        """
        plain = LabelOptions()
        for option, kinds in _MEANT_FOR.items():
            value = getattr(self, option)
            if self.labels not in kinds and value != getattr(plain, option):
                *others, last = kinds
                raise ValueError(
                    f"{option} is {value!r}, and labels is {self.labels}; expected it only with "
                    f"{', '.join(others)}{' or ' * bool(others)}{last}. Set `labels`, or remove it"
                )
        if self.missing not in _MISSING[self.labels]:
            *others, last = map(repr, _MISSING[self.labels])
            because = (
                ", as an image without annotations is one that the file lists"
                if (self.labels, self.missing) == ("coco", "empty")
                else ""
            )
            raise ValueError(
                f"missing is {self.missing!r} with labels {self.labels}; expected {', '.join(others)} or "
                f"{last}{because}. Change or remove it"
            )


def annotated_pairs(
    finder: FolderPairs,
    split: str,
    options: LabelOptions,
    classes: Sequence[str] | int | None,
    mapping: Mapping[Any, int | str | None] | None,
    held_out: tuple[float, int],
    threshold: int | None = None,
) -> tuple[list[Pair], list[str]]:
    """The samples of a split, and the names of the classes.

    Args:
        finder: Finds the images.
        split: Name of the split.
        options: Which labels, and how they are drawn.
        classes: Names of the classes; None: those of the file.
        mapping: Class of each category that has not the name of a class.
        held_out: Fraction of the names that is held out where there are no split folders, and the seed.
        threshold: For layers, the grey value from which on a pixel belongs to a class.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged, or a category is not declared.
    """
    if isinstance(classes, int):
        raise ValueError(
            f"classes is {classes} with labels {options.labels}; expected names, by which categories are found. "
            "Name them, or remove `classes` to use those of the labels"
        )
    samples: CocoSamples | FileSamples | LayerSamples
    if options.labels == "layers":
        samples = _layers(finder, split, options, Categories(classes or (), mapping), held_out)
        samples.threshold = threshold
    else:
        rasteriser()
        samples = _samples(finder, split, options, held_out)
    first = [] if options.unannotated == IGNORE else [options.unannotated]
    if classes is None and not samples.classes:
        raise ValueError(
            f"classes is missing, and {samples.source} names none; expected a list of names. Set `classes`"
        )
    if classes is None:
        same = _same_class(samples.classes, options.unannotated)
        mapping = {**dict.fromkeys(same, options.unannotated), **(mapping or {})}
        for name in same:
            tell_once(f"{samples.source}: {name!r} is class {options.unannotated!r}", logging.INFO)
        names = list(dict.fromkeys([*first, *(n for n in samples.classes if n not in same)]))
    else:
        names = list(classes)
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
        tell_once(
            f"{samples.source}: the classes are those of the file: {', '.join(names)}", logging.INFO
        )
    tell_once(f"{samples.source}: {_assumed(options)}", logging.INFO)
    return samples.pairs(drawing), names


def _same_class(categories: Sequence[str], unannotated: str) -> list[str]:
    """Categories that name the class of pixels without annotation in another way, such as `_Background_`."""
    if unannotated == IGNORE:
        return []
    plain = unannotated.strip("_- ").casefold()
    return [n for n in categories if n != unannotated and n.strip("_- ").casefold() == plain]


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


def _layers(
    finder: FolderPairs,
    split: str,
    options: LabelOptions,
    categories: Categories,
    held_out: tuple[float, int],
) -> LayerSamples:
    if not categories.classes or options.annotations is None or finder.mask_dir is None:
        raise ValueError(
            "labels is layers; expected `classes`, `mask_dir`, and as `annotations` the name of a mask, such as "
            '"{name}_{class}" or "{class}/{name}". Set them'
        )
    pairs = LayerPairs(
        finder.root,
        finder.image_dir,
        finder.mask_dir,
        options.annotations,
        categories,
        options.missing,
    )
    return LayerSamples(pairs, pairs.pairs(split, None, *held_out))


def drawn_classes(count: int) -> LabelMap:
    """The mapping of labels that are drawn as class numbers."""
    return LabelMap({**{number: number for number in range(count)}, IGNORED: None}, count)


def _assumed(options: LabelOptions) -> str:
    """How labels are read, in one line."""
    rest = "ignored" if options.unannotated == IGNORE else f"of class {options.unannotated!r}"
    if options.labels == "layers":
        text = _assumed(replace(options, labels="masks")).removesuffix(", photographs are upright")
        return text.replace("without annotation", "in no mask").replace("shapes", "classes")
    top = {
        "later": "later shapes lie over earlier ones",
        "smaller": "smaller shapes lie over larger ones",
        "ignore": "pixels of two classes are ignored",
    }
    crowds = (
        "crowds are ignored, " if (options.labels, options.crowds) == ("coco", "ignore") else ""
    )
    return f"pixels without annotation are {rest}, {top[options.overlap]}, {crowds}photographs are upright"
