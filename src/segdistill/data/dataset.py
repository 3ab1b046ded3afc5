"""Pairs of image and label: reading them, mapping their ids, and saying what is wrong with them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import numpy as np
import torch
from jaxtyping import Float, Int64, Num, UInt8
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from segdistill.data.channels import ARRAY_SUFFIX, in_unit_range, read_array, stored
from segdistill.names import unknown

IGNORED = 255
"""The label id that no loss and no metric counts."""

MAX_CLASSES = 255
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")

ID_MODES = ("L", "P", "1", "I;16", "I;16B", "I")
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")
# What Pillow raises on damaged files: OSError for most, SyntaxError from the PNG reader,
# ValueError and DecompressionBombError for absurd headers.
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


class Sample(TypedDict):
    """One item of a data set: `image` float32 in 0..1 (RGB, unless said otherwise), `label` int64 with 255 ignored.

    A split without labels, such as the test split of a benchmark, gives no `label`.
    """

    image: Float[Tensor, "c h w"]
    label: NotRequired[Int64[Tensor, "h w"]]
    name: str


class Pair(NamedTuple):
    """An image file, its mask file (None where there is no label), what they are called, and the image's channels."""

    name: str
    image: Path
    mask: Path | None
    group: str = ""
    channels: int = 3


class LabelMap:
    """The one declared mapping from the ids stored in masks to class numbers.

    Args:
        mapping: `{raw id: class}`; None or 255 as the class means ignored. Raw ids are 0..65535.
            Without a mapping ids `0..num_classes-1` stand for themselves and 255 is ignored
            (but black and white masks of two classes are refused). For masks in colour every key
            is a colour as text, `"#804080"`; it is then the raw id 0x804080.
        num_classes: Number of classes, 1..255.
        official: Whether the mapping is that of a published data set, not the user's to change.

    Attributes:
        assumed: Whether there is no mapping, so that ids stand for themselves.
        by_colour: Whether the mapping is one of colours.
        table: Class number of each raw id, uint8; 255 where ignored or not declared.
        declared: Whether the mapping has each raw id.

    Raises:
        ValueError: A class is outside `0..num_classes-1`, a raw id is outside 0..65535, or ids and
            colours are mixed.

    Example:
        >>> LabelMap({7: 0, 8: 1, 0: None}, num_classes=2).apply(np.array([[7, 8, 0]])).tolist()
        [[0, 1, 255]]
    """

    def __init__(
        self,
        mapping: Mapping[Any, int | None] | None,
        num_classes: int,
        official: bool = False,
    ) -> None:
        if not 1 <= num_classes <= MAX_CLASSES:
            raise ValueError(
                f"{num_classes} classes declared; expected 1 to {MAX_CLASSES} "
                f"({IGNORED} is the ignored id)"
            )
        self.num_classes, self.official = num_classes, official
        if mapping is not None and not isinstance(mapping, Mapping):
            raise ValueError(f"mapping is {mapping!r:.60}; expected {{raw id: class}}")
        self.assumed = mapping is None
        self.by_colour = any(str(raw).startswith("#") for raw in mapping or ())
        size = 2**24 if self.by_colour else 2**16
        self.table = np.full(size, IGNORED, dtype=np.uint8)
        self.declared = np.zeros(size, dtype=bool)
        if mapping is None:
            mapping = {**{i: i for i in range(num_classes)}, IGNORED: None}
        for raw, target in mapping.items():
            raw_id, class_id = _checked_entry(raw, target, num_classes, self.by_colour)
            self.table[raw_id] = class_id
            self.declared[raw_id] = True

    def apply(self, raw: np.ndarray, source: str = "mask") -> np.ndarray:
        """Class numbers (uint8, 255 ignored) of raw ids; `source` is the file named in errors."""
        if raw.size and (raw.min() < 0 or raw.max() >= self.table.size):
            raise ValueError(
                f"{source}: label ids run {raw.min()}..{raw.max()}; "
                f"expected 0..{self.table.size - 1} at most"
            )
        if not self.declared.take(raw).all():
            raise ValueError(self._complaint(raw, source))
        classes = self.table.take(raw)
        if self.assumed and self.num_classes == 2 and (classes == IGNORED).any():
            self._refuse_black_and_white(classes, source)
        return classes

    def _refuse_black_and_white(self, classes: np.ndarray, source: str) -> None:
        # Taken as it stands, such a set would train without a word on its background alone.
        if not (classes == 1).any():
            raise ValueError(
                f"{source}: 255 occurs but 1 does not, in a mask of 2 classes without a mapping; "
                "declare {0: 0, 255: 1} for black and white masks, or {0: 0, 1: 1, 255: null} "
                "if 255 is to be ignored"
            )

    def _complaint(self, raw: np.ndarray, source: str) -> str:
        ids = np.unique(raw)
        bad = ids[~self.declared[ids]]
        row, column = (int(axis[0]) for axis in np.nonzero(raw == bad[0]))
        if self.by_colour:
            more = f" and {bad.size - 1} more" if bad.size > 1 else ""
            return (
                f"{source}: colour {colour_text(int(bad[0]))}{more} (first at row {row}, column "
                f"{column}) is not in the mapping, which declares {self.declared.sum()} colours; "
                "add it to `mapping`, with null as the class to ignore it"
            )
        known = np.flatnonzero(self.declared)
        if bad[-1] > IGNORED >= known.max(initial=0):
            return (
                f"{source}: label id {bad[-1]}, where the mapping declares {_ranges(known)}: "
                "more than 8 bits, so perhaps a map of instances; expected the map of classes"
            )
        more = f" and {bad.size - 1} more id(s)" if bad.size > 1 else ""
        if self.official:
            return (
                f"{source}: label id {bad[0]}{more} (first at row {row}, column {column}) is none of "
                f"this data set's ids, {_ranges(known)}; expected its masks as they were published, "
                "or read your own as data `folder` with a mapping"
            )
        hint = ""
        if ids[0] >= 1 and bad[0] == known[known != IGNORED].max(initial=-1) + 1:
            hint = (
                " Ids in this file start at 1: if classes are counted from 1, map {1: 0, 2: 1, ..}."
            )
        elif bad.tolist() == [self.num_classes]:
            hint = " If 0 stands for unlabelled, map {0: null, 1: 0, 2: 1, ..}."
        return (
            f"{source}: label id {bad[0]}{more} (first at row {row}, column {column}) is not "
            f"in the mapping, which declares {_ranges(known)}; "
            f"add it to `mapping`, with null as the class to ignore it.{hint}"
        )


def _checked_entry(
    raw: int | str, target: int | None, num_classes: int, by_colour: bool
) -> tuple[int, int]:
    if by_colour and not re.fullmatch("#[0-9a-fA-F]{6}", str(raw)):
        raise ValueError(
            f'mapping entry {raw!r} is no colour; expected "#rrggbb", such as "#804080", for every '
            "entry where one is a colour"
        )
    # A recipe's YAML may hold the keys of a mapping as text.
    try:
        raw_id = int(str(raw).lstrip("#"), 16) if by_colour else int(raw)
        class_id = IGNORED if target is None else int(target)
    except (TypeError, ValueError):
        raise ValueError(
            f"mapping entry {raw!r}: {target!r} is not `raw id: class`; "
            "expected whole numbers, null as the class to ignore an id"
        ) from None
    if not by_colour and not 0 <= raw_id <= 65535:
        raise ValueError(f"mapping declares raw id {raw_id}; expected 0..65535")
    if class_id != IGNORED and not 0 <= class_id < num_classes:
        raise ValueError(
            f"mapping sends id {raw} to class {class_id}; expected 0..{num_classes - 1}, "
            f"or null to ignore it"
        )
    return raw_id, class_id


def _ranges(ids: np.ndarray) -> str:
    """`0..11, 255` for the sorted ids 0, 1, .. 11, 255."""
    if not ids.size:
        return "no id"
    runs = np.split(ids, np.flatnonzero(np.diff(ids) > 1) + 1)
    shown = [str(r[0]) if r.size == 1 else f"{r[0]}..{r[-1]}" for r in runs[:8]]
    return ", ".join(shown) + (", .." if len(runs) > 8 else "")


def colour_text(code: int) -> str:
    """`#804080`, as a mapping of colours writes it, for the raw id 0x804080."""
    return f"#{code:06x}"


def colour_codes(image: Image.Image) -> np.ndarray:
    """The raw id 0xrrggbb of every pixel, int32."""
    pixels = np.asarray(image.convert("RGB"))
    codes = pixels[..., 0].astype(np.int32)
    for channel in (1, 2):
        codes = (codes << 8) | pixels[..., channel]
    return codes


def read_image(path: Path | str, channels: int = 3) -> Num[Tensor, "c h w"]:
    """An image file as RGB, uint8; or with another number of channels, as it is stored.

    As RGB, grey, palette and RGBA pictures are converted and more than 8 bits refused. Nothing is converted for any
    other number: black and white and grey have 1 channel, grey with alpha 2, RGBA and CMYK 4; grey of 16 bits or in
    floating point comes as float32 in 0..1. A `.npy` array, `h w` or `h w c`, is never converted.

    Args:
        path: The file.
        channels: 3 for RGB.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, no image, or not of these channels and bits.
    """
    if Path(path).suffix.lower() == ARRAY_SUFFIX:
        return stored(read_array(path), channels, f"{path}: an array")
    with _opened(path, "image") as image:
        if channels != 3:
            if image.mode in ("P", "PA"):
                raise ValueError(
                    f"{path}: a palette image; expected {channels} channels as they are stored: "
                    "save it as grey or in colour"
                )
            return stored(np.array(image), channels, f"{path}: an image of mode {image.mode}")
        if image.mode in DEEP_MODES:
            raise ValueError(
                f"{path}: the image has more than 8 bits a channel (mode {image.mode}); "
                "expected 8-bit RGB: convert it first"
            )
        pixels = np.array(image.convert("RGB"))
    # Left in the order of the file (channels last in memory): no copy, and as fast to resize.
    return torch.from_numpy(pixels).permute(2, 0, 1)


def read_mask(path: Path | str, label_map: LabelMap) -> UInt8[Tensor, "h w"]:
    """A mask file as class numbers, 255 ignored.

    Ids are the stored values: grey values, palette *indices* (not colours), or 16-bit values. With
    a mapping of colours they are the colours, of palette images too.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, lossy (JPEG), in colour, or holds an undeclared id.
    """
    with open_mask(path) as image:
        if label_map.by_colour and image.mode not in DEEP_MODES:
            raw = colour_codes(image)
        elif image.mode in ID_MODES:
            raw = np.array(image)
        else:
            raise ValueError(_colour_mask(path, image))
    return torch.from_numpy(label_map.apply(raw, str(path)))


def open_mask(path: Path | str) -> Image.Image:
    """A mask file, decoded, in whatever mode it is stored.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged or lossy (JPEG).
    """
    image = _opened(path, "mask")
    if image.format in ("JPEG", "MPO"):
        raise ValueError(
            f"{path}: a JPEG mask is lossy and its ids are not those that were drawn; "
            "export the masks as PNG"
        )
    return image


def _opened(path: Path | str, kind: str) -> Image.Image:
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such {kind} file") from None
    except _UNREADABLE as error:
        raise ValueError(
            f"{path}: cannot read this {kind} ({str(error).splitlines()[0]}); "
            "the file is damaged or not an image: replace it or take it out"
        ) from None
    return image


def _colour_mask(path: Path | str, image: Image.Image) -> str:
    pixels = np.array(image.convert("RGB"))
    if (pixels == pixels[..., :1]).all():
        remedy = "all its channels are equal: save it with one channel (mode L)"
    else:
        colours = np.unique(colour_codes(image)).tolist()
        first = ", ".join(f'"{colour_text(c)}": ..' for c in colours[:3])
        remedy = (
            f"it holds {len(colours)} colours: declare them as mapping: {{{first}}} "
            "(`segdistill check` writes it)"
        )
    return (
        f"{path}: the mask is a colour image (mode {image.mode}); expected one channel of ids "
        f"(8-bit grey, palette, or 16-bit); {remedy}"
    )


class SegmentationDataset(Dataset[Sample]):
    """Images with labels, at their native size.

    A subclass fills in `load`, and hands the names to this constructor.

    Attributes:
        classes: Names of the classes, in order of their number.
        palette: A colour (red, green, blue in 0..255) for each class.
        names: Name of each sample.
        groups: Drive or sequence of each sample, "" where there is none; frames of one group look
            alike, so honest folds keep a group together.
        task: What the labels mean: always "semantic" so far.
        labelled: Whether there are labels. Without them `read` gives 255 everywhere, and a sample
            has no label at all.
        server_ids: The id of each class in the masks that a benchmark's server takes; empty where
            there is no server.
        server_ending: What follows a sample's name in the names of those masks.

    Args:
        names: Name of each sample.
        classes: Names of the classes.
        palette: Colours of the classes; None for generated ones.
        sample_groups: Group of each sample.
        groups: Keep only the samples of these groups.
        limit: Keep only this many samples, the first ones.
        cache: Keep what was read in memory (RGB as uint8: 4 bytes a pixel). Loader processes have a
            cache each.
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
        cache: bool = False,
    ) -> None:
        self.classes = [str(name) for name in classes]
        self.palette = _checked_palette(palette, len(self.classes))
        all_groups = list(sample_groups) if sample_groups is not None else [""] * len(names)
        self._places = _chosen(all_groups, groups, limit)
        self.names = [names[i] for i in self._places]
        self.groups = [all_groups[i] for i in self._places]
        self._cache: dict[int, tuple[Tensor, Tensor]] | None = {} if cache else None

    @property
    def num_classes(self) -> int:
        """Number of classes, without the ignored id."""
        return len(self.classes)

    def load(self, place: int) -> tuple[Num[Tensor, "c h w"], UInt8[Tensor, "h w"]]:
        """Image and label at a place counted before `groups` and `limit`; nothing is kept."""
        raise NotImplementedError

    def read(self, index: int) -> tuple[Num[Tensor, "c h w"], UInt8[Tensor, "h w"]]:
        """Image (as of `read_image`) and label (class numbers, 255 ignored) of a sample, not to be written to."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of a data set of {len(self)}")
        place = self._places[index]
        if self._cache is None:
            return self.load(place)
        if place not in self._cache:
            self._cache[place] = self.load(place)
        return self._cache[place]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        image, label = self.read(index)
        sample: Sample = {
            "image": in_unit_range(image),
            "name": self.names[index],
        }
        if self.labelled:
            sample["label"] = label.long()
        return sample


class PairDataset(SegmentationDataset):
    """Pairs of an image file and a mask file of the same size.

    Args:
        pairs: The files; those without a mask have every pixel ignored.
        label_map: From the ids in the masks to classes.
        classes: Names of the classes.
        palette: Colours of the classes; None for generated ones.
        groups: Keep only the pairs of these groups.
        limit: Keep only this many pairs, the first ones.
        cache: Keep what was read in memory as uint8.
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
        cache: bool = False,
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
        self.pairs = [pairs[i] for i in self._places]
        self.label_map = label_map
        self.labelled = any(pair.mask is not None for pair in self.pairs)
        self._all_pairs = pairs

    def load(self, place: int) -> tuple[Num[Tensor, "c h w"], UInt8[Tensor, "h w"]]:
        """Image and label of a pair, as they are on disk."""
        pair = self._all_pairs[place]
        image = read_image(pair.image, pair.channels)
        if pair.mask is None:
            return image, torch.full(image.shape[-2:], IGNORED, dtype=torch.uint8)
        label = read_mask(pair.mask, self.label_map)
        if image.shape[-2:] != label.shape:
            (h, w), (label_h, label_w) = image.shape[-2:], label.shape
            raise ValueError(
                f"{pair.image} is {w}x{h} but its mask {pair.mask} is {label_w}x{label_h}; "
                "expected the same size: pair or export them again"
            )
        return image, label


def require_labels(dataset: object, name: str = "this data set") -> None:
    """Refuse images without labels where something is to be learnt from them, or scored.

    Raises:
        ValueError: The data set says that it has no labels.
    """
    if not getattr(dataset, "labelled", True):
        raise ValueError(
            f"{name} has no labels: there is nothing to learn from or to score without a teacher; "
            "`segdistill predict RUN --server test` writes masks for a benchmark's server"
        )


def generated_palette(num_classes: int) -> list[tuple[int, int, int]]:
    """Well separated colours for classes that come without any, in the manner of Pascal VOC.

    The bits of the class number are dealt out to red, green and blue, highest bit of colour first.
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
    """`a, b, c and 7 more`: the first few of many for a message of one line."""
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
            "expected one [red, green, blue] in 0..255 for each class"
        )
    return [(c[0], c[1], c[2]) for c in colours]


def _chosen(
    sample_groups: Sequence[str], groups: Iterable[str] | None, limit: int | None
) -> list[int]:
    places = list(range(len(sample_groups)))
    if groups is not None:
        wanted = {groups} if isinstance(groups, str) else {str(group) for group in groups}
        known = set(sample_groups)
        for name in sorted(wanted - known):
            raise ValueError(unknown("group of samples", name, known))
        places = [i for i in places if sample_groups[i] in wanted]
    if limit is not None:
        if limit < 1:
            raise ValueError(f"limit is {limit}; expected at least 1, or null for all samples")
        places = places[:limit]
    if not places:
        raise ValueError("the data set is empty: no sample is left; check `groups` and the split")
    return places
