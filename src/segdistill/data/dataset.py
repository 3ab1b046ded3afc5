"""Images with labels: samples, pairs of files, and the data sets made of them."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from typing import NotRequired, TypedDict

import PIL
import torch
from jaxtyping import Float, Int64, Num, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from segdistill.data.caching import Cache, cache_of
from segdistill.data.channels import in_unit_range
from segdistill.data.files import mapped, read_with_geometry
from segdistill.data.label_map import IGNORED, LabelMap
from segdistill.data.orientation import check_orientation
from segdistill.data.pair import Pair, open_label
from segdistill.data.reading.opening import stamp
from segdistill.names import unknown

_DECODING = 1
"""Raised whenever this package decodes a file to other pixels or classes, so that kept samples are decoded again."""


class Sample(TypedDict):
    """One item of a data set: `image` float32 in 0..1 (RGB by default), `label` int64 with 255 ignored.

    Samples without labels, such as those of the test split of a benchmark, have no `label`.
    """

    image: Float[Tensor, "c h w"]
    label: NotRequired[Int64[Tensor, "h w"]]
    name: str


class SegmentationDataset(Dataset[Sample]):
    """Images with labels, at their native size.

    A subclass implements `load`, and passes the names to this constructor.

    Attributes:
        classes: Names of the classes, by class number.
        palette: One colour (red, green, blue in 0..255) per class.
        names: Name of each sample.
        groups: Drive or sequence of each sample, "" if there is none. Frames of one group look
            alike, so cross-validation folds must keep a group together.
        task: What the labels mean: always "semantic" so far.
        labelled: Whether any sample has labels.
        labelled_samples: Whether each sample has labels. Without them `read` returns 255 everywhere,
            and the sample has no `label`.
        server_ids: The id of each class in the masks that a benchmark's server accepts; empty if
            there is no server.
        server_ending: What follows a sample's name in the file names of those masks.

    Args:
        names: Name of each sample.
        classes: Names of the classes.
        palette: Colours of the classes; None for generated ones.
        sample_groups: Group of each sample.
        groups: Keep only the samples of these groups.
        limit: Keep only the first so many samples.
        cache: Keep decoded samples in memory (RGB as uint8: 4 bytes per pixel). Each loader process
            has its own cache. "disk" keeps those of pairs of files in files, once for all processes and runs.
    """

    task = "semantic"
    labelled = True
    server_ids: tuple[int, ...] = ()
    server_ending = ".png"

    def __init__(
        self,
        names: Sequence[str],
        classes: Sequence[str],
        palette: Sequence[Sequence[int]] | None = None,
        *,
        sample_groups: Sequence[str] | None = None,
        groups: Iterable[str] | None = None,
        limit: int | None = None,
        cache: Cache = False,
    ) -> None:
        self.classes = [str(name) for name in classes]
        self.palette = _checked_palette(palette, len(self.classes))
        all_groups = list(sample_groups) if sample_groups is not None else [""] * len(names)
        self._indices = _selected(all_groups, groups, limit)
        self.names = [names[i] for i in self._indices]
        self.groups = [all_groups[i] for i in self._indices]
        self.labelled_samples = [True] * len(self.names)
        self._cache = cache_of(cache, self._cache_key(), self._indices)

    @property
    def num_classes(self) -> int:
        """Number of classes, without the ignored id."""
        return len(self.classes)

    def load(self, position: int) -> tuple[Num[Tensor, "c h w"], UInt8[Tensor, "h w"]]:
        """Image and label at an index into all samples, before `groups` and `limit`; not cached."""
        raise NotImplementedError

    def _cache_key(self) -> Callable[[int], str] | None:
        """What a sample is decoded from, for `cache="disk"`; None: unknown."""
        return None

    def read(self, index: int) -> tuple[Num[Tensor, "c h w"], UInt8[Tensor, "h w"]]:
        """Image (as from `read_image`) and label (class numbers, 255 ignored) of a sample; read-only."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample index is {index}; expected {-len(self)}..{len(self) - 1}")
        position = self._indices[index]
        if self._cache is None:
            image, label = self.load(position)
        else:
            image, label = self._cache.sample(position, self.load)
        return image, label if self.has_labels(index) else torch.full_like(label, IGNORED)

    def has_labels(self, index: int) -> bool:
        """Whether a sample has labels."""
        return self.labelled and self.labelled_samples[index]

    def keep_labels(self, indices: Iterable[int]) -> None:
        """Take the labels of all other samples away; one that had none gets none."""
        kept = set(indices)
        self.labelled_samples = [
            flag and index in kept for index, flag in enumerate(self.labelled_samples)
        ]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        image, label = self.read(index)
        sample: Sample = {
            "image": in_unit_range(image),
            "name": self.names[index],
        }
        if self.has_labels(index):
            sample["label"] = label.long()
        return sample


class PairDataset(SegmentationDataset):
    """Pairs of an image file and a mask file of the same size.

    Args:
        pairs: The files; without a mask, every pixel is ignored.
        label_map: Maps the ids in the masks to classes.
        classes: Names of the classes.
        palette: Colours of the classes; None for generated ones.
        groups: Keep only the pairs of these groups.
        limit: Keep only the first so many pairs.
        cache: Keep decoded files as uint8: in memory, or with "disk" in files.
        orientation: For images with an orientation tag (EXIF) whose masks have none: `upright` if the
            masks match the picture as a viewer shows it, `stored` if they match the stored pixels.
            None: such pairs are refused unless their sizes settle it. Images and masks are always
            returned upright.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        label_map: LabelMap,
        classes: Sequence[str],
        palette: Sequence[Sequence[int]] | None = None,
        *,
        groups: Iterable[str] | None = None,
        limit: int | None = None,
        cache: Cache = False,
        orientation: str | None = None,
    ) -> None:
        super().__init__(
            [pair.name for pair in pairs],
            classes,
            palette,
            sample_groups=[pair.group for pair in pairs],
            groups=groups,
            limit=limit,
            cache=cache,
        )
        self.pairs = [pairs[i] for i in self._indices]
        self.label_map = label_map
        self.orientation = check_orientation(orientation)
        self.labelled_samples = [pair.labelled for pair in self.pairs]
        self.labelled = any(self.labelled_samples)
        self._all_pairs = list(pairs)

    def _cache_key(self) -> Callable[[int], str] | None:
        # Whoever loads samples in a way of their own knows of changes that the files do not show.
        return self._decoded_from if type(self).load is PairDataset.load else None

    def _decoded_from(self, position: int) -> str:
        """Files of a pair as they are now, how they are read, and by which version of the decoder."""
        pair, labels = self._all_pairs[position], self.label_map
        files = [pair.image, *([] if pair.mask is None else [pair.mask])]
        drawn = None if pair.drawn is None else [pair.drawn.stamps(), pair.drawn.facts()]
        mapping = [labels.entries, labels.assumed, labels.by_colour]
        reading = [labels.threshold, labels.tolerance, self.orientation, pair.channels]
        versions = [PIL.__version__, _DECODING]
        stamps = [(os.path.abspath(path), stamp(path)) for path in files]
        return json.dumps([stamps, drawn, mapping, reading, versions])

    def keep_labels(self, indices: Iterable[int]) -> None:
        """Forget the masks of all other samples, so that nothing opens them."""
        super().keep_labels(indices)
        for index, position in enumerate(self._indices):
            if not self.labelled_samples[index]:
                self.pairs[index] = self.pairs[index].unlabelled()
                self._all_pairs[position] = self.pairs[index]

    def load(self, position: int) -> tuple[Num[Tensor, "c h w"], UInt8[Tensor, "h w"]]:
        """Image and label of a pair, upright."""
        pair = self._all_pairs[position]
        image, geometry = read_with_geometry(pair.image, pair.channels)
        if not pair.labelled:
            return image, torch.full(image.shape[-2:], IGNORED, dtype=torch.uint8)
        label = mapped(open_label(pair, geometry, self.orientation), self.label_map)
        if image.shape[-2:] != label.shape:
            (h, w), (label_h, label_w) = image.shape[-2:], label.shape
            raise ValueError(
                f"{pair.label_place}: the mask is {label_h}x{label_w} (height x width); expected {h}x{w}, the size of "
                f"{pair.image}. Check the pairing, or export the mask again"
            )
        return image, label


def require_labels(dataset: object, name: str = "this data set") -> None:
    """Refuse a data set without labels where training or scoring requires them.

    Raises:
        ValueError: The data set declares `labelled = False`.
    """
    if not getattr(dataset, "labelled", True):
        raise ValueError(
            f"{name} has no labels; expected labels, or a teacher to learn from. "
            "To write masks for a benchmark's server, use `segdistill predict RUN --server test`"
        )


def generated_palette(num_classes: int) -> list[tuple[int, int, int]]:
    """Well separated colours for classes without a palette, generated as for Pascal VOC.

    The bits of the class number are distributed over red, green and blue, highest colour bit first.
    """
    colours = []
    for number in range(1, num_classes + 1):
        channels = [
            sum(((number >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3))
            for channel in range(3)
        ]
        colours.append((channels[0], channels[1], channels[2]))
    return colours


def list_names(paths: Sequence[object], shown: int = 5) -> str:
    """`a, b, c and 7 more`: the first few names, for a one-line message."""
    more = f" and {len(paths) - shown} more" if len(paths) > shown else ""
    return ", ".join(str(path) for path in paths[:shown]) + more


def _checked_palette(
    palette: Sequence[Sequence[int]] | None, num_classes: int
) -> list[tuple[int, int, int]]:
    if palette is None:
        return generated_palette(num_classes)
    colours = [tuple(int(value) for value in colour) for colour in palette]
    fitting = all(len(c) == 3 and min(c) >= 0 and max(c) <= 255 for c in colours)
    if len(colours) != num_classes or not fitting:
        raise ValueError(
            f"the palette has {len(colours)} colours for {num_classes} classes; "
            "expected one [red, green, blue] in 0..255 per class"
        )
    return [(c[0], c[1], c[2]) for c in colours]


def _selected(
    sample_groups: Sequence[str], groups: Iterable[str] | None, limit: int | None
) -> list[int]:
    indices = list(range(len(sample_groups)))
    if groups is not None:
        wanted = {groups} if isinstance(groups, str) else {str(group) for group in groups}
        known = set(sample_groups)
        for name in sorted(wanted - known):
            raise ValueError(unknown("group of samples", name, known))
        indices = [i for i in indices if sample_groups[i] in wanted]
    if limit is not None:
        if limit < 1:
            raise ValueError(
                f"limit is {limit}; expected a positive integer, or null for all samples"
            )
        indices = indices[:limit]
    if not indices:
        raise ValueError("the data set is empty. Check `groups` and the split")
    return indices
