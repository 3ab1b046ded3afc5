"""What the files of a data set hold, whatever mapping the recipe declares."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segdistill.activity import get_on
from segdistill.data.annotations.drawing import LeftOut
from segdistill.data.dataset import PairDataset, list_names
from segdistill.data.label_map import IGNORED, LabelMap, colour_text
from segdistill.data.labelled import labelled_samples
from segdistill.data.orientation import Orientation
from segdistill.data.pair import Pair
from segdistill.run.auditing.facts import Facts, Size, pair_facts, sample_facts

_AHEAD = 256


@dataclass
class Occurrence:
    """How often a raw id occurs, and the first file it occurs in."""

    pixels: int = 0
    images: int = 0
    file: str = ""

    def add(self, pixels: int, file: str) -> None:
        """Count a file that contains the id."""
        self.pixels += pixels
        self.images += 1
        self.file = self.file or file


@dataclass
class Survey:
    """What a split holds; memory grows with the number of ids and names, not with the pixels.

    Attributes:
        label_map: The declared mapping; None if there is no usable one.
        samples: How many samples were read.
        faults: Files that cannot be used, one line each.
        sizes: Sizes of the images, width and height.
        modes: Modes of the masks, as Pillow calls them.
        in_colour: Masks in colour where ids are expected.
        ids: Raw ids that occur.
        colours: Colours that occur in masks in colour and in palette images.
        palette: The colour of an id in palette images, and the first file with it; not of ignored ids.
        palettes_differ: Two files whose palettes give one id different colours; "" if there are none.
        grey: The first file with an id, of masks that store grey values.
        bits: Masks of one bit, whose white is id 1.
        lossy: Whether compression changed the values of a mask.
        of_files: Whether the samples are pairs of files.
        class_pixels: Pixels of each class, then ignored pixels.
        class_images: Images with each class, then images with ignored pixels.
        left_out: Shapes that are not drawn, by category and reason.
        unlabelled: Samples with only ignored pixels.
        names: Name of the first image by the hash of its pixels.
    """

    label_map: LabelMap | None
    samples: int = 0
    faults: list[str] = field(default_factory=list)
    sizes: Counter[Size] = field(default_factory=Counter)
    modes: dict[str, Occurrence] = field(default_factory=dict)
    in_colour: list[str] = field(default_factory=list)
    ids: dict[int, Occurrence] = field(default_factory=dict)
    colours: dict[int, Occurrence] = field(default_factory=dict)
    palette: dict[int, tuple[int, str]] = field(default_factory=dict)
    palettes_differ: str = ""
    grey: dict[int, str] = field(default_factory=dict)
    bits: list[str] = field(default_factory=list)
    lossy: bool = False
    of_files: bool = True
    left_out: Counter[LeftOut] = field(default_factory=Counter)
    unlabelled: list[str] = field(default_factory=list)
    names: dict[bytes, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        classes = self.label_map.num_classes if self.label_map is not None else 0
        self.class_pixels = np.zeros(classes + 1, np.int64)
        self.class_images = np.zeros(classes + 1, np.int64)

    @property
    def by_colour(self) -> bool:
        """Whether the keys of the mapping are colours."""
        return self.label_map is not None and self.label_map.by_colour

    @property
    def raw(self) -> dict[int, Occurrence]:
        """Raw ids as the mapping reads them: colours for a mapping of colours."""
        return self.colours if self.by_colour else self.ids

    @property
    def undeclared(self) -> dict[int, Occurrence]:
        """Raw ids that the mapping does not have."""
        if self.label_map is None:
            return {}
        table = self.label_map.declared
        return {i: o for i, o in sorted(self.raw.items()) if not (i < table.size and table[i])}

    @property
    def unusable(self) -> bool:
        """Whether some file would stop training."""
        return bool(self.faults or self.undeclared or self.in_colour)

    @property
    def readable(self) -> bool:
        """Whether there are samples and all of their labels were understood."""
        return bool(self.samples) and not self.faults and not self.undeclared

    def add(self, facts: Facts) -> None:
        """Count a pair in."""
        self.samples += 1
        self.faults += facts.faults
        self.lossy |= facts.lossy
        self.left_out.update(facts.left_out)
        if facts.image_size is not None:
            self.sizes[facts.image_size] += 1
        if facts.digest:
            self.names.setdefault(facts.digest, facts.name)
        if not facts.mode:
            return
        self.modes.setdefault(facts.mode, Occurrence()).add(int(facts.pixels.sum()), facts.mask)
        if facts.colours.size and not facts.ids.size and not self.by_colour:
            self.in_colour.append(facts.mask)
        for values, occurrences in ((facts.ids, self.ids), (facts.colours, self.colours)):
            for value, pixels in zip(values.tolist(), facts.pixels.tolist(), strict=False):
                occurrences.setdefault(value, Occurrence()).add(pixels, facts.mask)
        if facts.mode == "1":
            self.bits.append(facts.mask)
        elif facts.mode == "P":
            self._compare_palette(facts)
        else:
            for value in facts.ids.tolist():
                self.grey.setdefault(value, facts.mask)
        self._count_classes(facts)

    def _compare_palette(self, facts: Facts) -> None:
        declared = self.label_map
        if declared is not None and (declared.by_colour or declared.by_grey):
            return
        for value, colour in zip(facts.ids.tolist(), facts.colours.tolist(), strict=False):
            if declared is not None and declared.entries.get(value) == IGNORED:
                continue
            known, file = self.palette.setdefault(value, (colour, facts.mask))
            if known != colour and not self.palettes_differ:
                self.palettes_differ = _difference(value, known, file, colour, facts.mask)

    def _count_classes(self, facts: Facts) -> None:
        if self.label_map is None:
            return
        raw = facts.colours if self.by_colour else facts.ids
        inside = (raw >= 0) & (raw < self.label_map.table.size)
        known = np.zeros(raw.size, bool)
        known[inside] = self.label_map.declared[raw[inside]]
        classes = self.label_map.table[raw[known]].astype(np.int64)
        classes[classes == IGNORED] = self.label_map.num_classes
        np.add.at(self.class_pixels, classes, facts.pixels[: raw.size][known])
        self.class_images[np.unique(classes)] += 1
        if not known.all():
            return
        if raw.size and (classes == self.label_map.num_classes).all():
            self.unlabelled.append(facts.name)
        if not self.of_files:
            return
        try:
            self.label_map.apply(raw, facts.mask)
        except ValueError as error:
            self.faults.append(str(error))


def survey(
    dataset: Any,
    label_map: LabelMap | None,
    progress: Callable[[int, int], None] | None = None,
    orientation: Orientation | None = None,
    decode: bool = True,
) -> Survey:
    """Read every image and mask once, on several threads, and keep only counts.

    Args:
        dataset: Pairs of files, a data set of such pairs, or any other that the loaders accept,
            whose ids are counted after its mapping.
        label_map: The declared mapping.
        progress: Called with (done, total) after each sample.
        orientation: What masks without an orientation tag match, as declared.
        decode: Decode the images, too; otherwise only as far as tells whether they can be.
    """
    result = Survey(label_map)
    pairs = dataset.pairs if isinstance(dataset, PairDataset) else dataset
    if isinstance(pairs, list):
        facts: Iterable[Facts] = _read_pairs(pairs, label_map, orientation, decode)
    else:
        result.of_files = False
        facts = (
            sample_facts(dataset, index, label_map, decode, flag)
            for index, flag in enumerate(labelled_samples(dataset))
        )
    for one in facts:
        result.add(one)
        get_on(one.mask)
        if progress is not None:
            progress(result.samples, len(pairs))
    return result


def _read_pairs(
    pairs: Sequence[Pair],
    label_map: LabelMap | None,
    orientation: Orientation | None,
    decode: bool,
) -> Iterator[Facts]:
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        # In chunks, since `map` submits all its work at once.
        for start in range(0, len(pairs), _AHEAD):
            part = pairs[start : start + _AHEAD]
            yield from pool.map(lambda p: pair_facts(p, label_map, orientation, decode), part)


def shared_images(train: Survey, val: Survey) -> list[str]:
    """Images of the evaluation split whose exact pixels are also in the training split."""
    both = [key for key in val.names if key in train.names]
    return [
        val.names[k] if val.names[k] == train.names[k] else f"{val.names[k]} = {train.names[k]}"
        for k in both
    ]


def palettes_differ(surveys: Sequence[Survey]) -> str:
    """Two files in which an id has different colours, with the split of the first; "" for none."""
    for one in surveys:
        if one.palettes_differ:
            return one.palettes_differ
    first, *others = surveys
    for other in others:
        for value in first.palette.keys() & other.palette.keys():
            (colour, file), (second, other_file) = first.palette[value], other.palette[value]
            if colour != second:
                return _difference(value, colour, file, second, other_file)
    palette = {value: each for one in surveys for value, each in one.palette.items()}
    grey = {value: file for one in surveys for value, file in one.grey.items()}
    if all(colour % 0x010101 == 0 for colour, _ in palette.values()):
        # A palette of greys in another order than the greys of masks without a palette.
        for value in palette.keys() & grey.keys():
            colour, file = palette[value]
            if colour != value * 0x010101:
                return _difference(value, colour, file, value * 0x010101, grey[value])
    return ""


def _difference(value: int, colour: int, file: str, other: int, other_file: str) -> str:
    first, second = colour_text(colour), colour_text(other)
    return f"index {value} is {first} in {file} and {second} in {other_file}"


def undeclared_line(one: Survey) -> str:
    """The ids that the mapping lacks, the first files that hold them, and what to do; "" for none.

    Of samples that are no files a line of their own tells it.
    """
    if not one.undeclared or not one.of_files or one.label_map is None:
        return ""
    by_colour = one.by_colour
    files = list(dict.fromkeys(seen.file for seen in one.undeclared.values()))
    texts = [
        f"{colour_text(value) if by_colour else value} "
        f"({seen.pixels} pixels in {seen.images} mask{'s' * (seen.images > 1)})"
        for value, seen in one.undeclared.items()
    ]
    kind = "colour" if by_colour else "label id"
    return (
        f"{list_names(files, 3)}: the mapping lacks {kind} {list_names(texts, 4)}; expected "
        f"{one.label_map.expected()}. {_undeclared_remedy(one.label_map, max(one.undeclared))}"
    )


def _undeclared_remedy(label_map: LabelMap, greatest: int) -> str:
    if not label_map.by_colour and greatest > IGNORED >= max(label_map.entries, default=0):
        return "Ids above 8 bits suggest an instance map: use the class map"
    if label_map.official:
        return "Use the masks as published, or read your own as data `folder` with a mapping"
    return (
        "Declare each in `mapping`, null to ignore it; what compression left is read with a threshold or a "
        "tolerance (`segdistill check` proposes what fits)"
    )
