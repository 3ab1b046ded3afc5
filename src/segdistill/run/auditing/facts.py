"""What one pair of image and mask holds, read without applying a mapping."""

import os
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segdistill.data.annotations.drawing import LeftOut
from segdistill.data.channels import ARRAY_SUFFIX
from segdistill.data.files import (
    DEEP_MODES,
    StoredMask,
    is_deep_in_colour,
    raw_mode_of,
    read_with_geometry,
)
from segdistill.data.label_map import IGNORED, LabelMap
from segdistill.data.orientation import (
    ImageGeometry,
    Orientation,
    orientation_tag,
    upright_size,
)
from segdistill.data.pair import Pair, open_label
from segdistill.data.reading.opening import opened
from segdistill.data.samples import check_label, read_sample
from segdistill.names import height_by_width

Size = tuple[int, int]

MOST_COLOURS = 1024
"""A mask with more colours was anti-aliased or compressed, so its colours are not classes."""
_TAIL = 4096
"""Bytes at the end of a JPEG among which its end mark is looked for; some writers append data."""


@dataclass
class Facts:
    """What one pair of files holds.

    Attributes:
        name: Its name in the data set.
        mask: The mask's file, or the sample's name if there is none.
        image_size: Width and height; None if the image cannot be read.
        mode: Pillow mode of the mask; "" if it cannot be read.
        ids: Raw ids in the mask; empty for a mask in colour.
        pixels: Number of pixels of each id, or of each colour without ids.
        colours: Colour of each raw id; the raw ids of a mask in colour.
        lossy: Whether compression changed the values of the mask.
        digest: Hash of the image's pixels; empty if it was not decoded.
        left_out: Shapes that are not drawn.
        faults: What is wrong with the pair.
    """

    name: str
    mask: str
    image_size: Size | None = None
    mode: str = ""
    ids: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    pixels: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    colours: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    lossy: bool = False
    digest: bytes = b""
    left_out: tuple[LeftOut, ...] = ()
    faults: list[str] = field(default_factory=list)

    @property
    def fault(self) -> str:
        """What is wrong with the pair, in one line; "" if nothing is."""
        return "; ".join(self.faults)


def pair_facts(
    pair: Pair,
    label_map: LabelMap | None = None,
    orientation: Orientation | None = None,
    decode: bool = True,
) -> Facts:
    """Read one pair of files.

    Args:
        pair: The files.
        label_map: The declared mapping; None: there is no usable one.
        orientation: What masks without an orientation tag match, as declared.
        decode: Decode the image and hash its pixels. Otherwise its size is read from the header, and it is
            only decoded where header and structure do not show that this will work.
    """
    facts = Facts(pair.name, pair.label_place)
    faults = []
    geometry: ImageGeometry | None = None
    try:
        geometry = None if decode else sound_geometry(pair)
        if geometry is None:
            image, geometry = read_with_geometry(pair.image, pair.channels)
            facts.digest = _digest(image.permute(1, 2, 0).numpy()) if decode else b""
        facts.image_size = geometry.size
    except (ValueError, OSError) as error:
        faults.append(str(error))
    # Shapes are drawn at the size of their image; if it cannot be read, that is the fault to tell.
    if pair.labelled and (pair.drawn is None or geometry is not None):
        try:
            mask = open_label(pair, geometry, orientation)
            faults += _mask_faults(pair, mask, facts, label_map)
        except (ValueError, OSError) as error:
            faults.append(str(error))
    facts.faults = faults
    return facts


def _mask_faults(
    pair: Pair, mask: StoredMask, facts: Facts, label_map: LabelMap | None
) -> list[str]:
    """Count the ids of a mask; returns what is wrong with it."""
    facts.mode, facts.lossy, facts.left_out = mask.image.mode, mask.lossy, mask.left_out
    faults = []
    if facts.image_size not in (None, mask.image.size):
        found, expected = height_by_width(mask.image.size), height_by_width(facts.image_size)
        faults.append(
            f"{pair.label_place}: the mask is {found} (height x width); expected {expected}, the size of its "
            "image. Check the pairing, or export the mask again"
        )
    try:
        mask.check(label_map)
    except ValueError as error:
        faults.append(str(error))
        if not mask.lossy:
            facts.mode = ""
            return faults
    by_grey = label_map is not None and label_map.by_grey
    raw = mask.ids(by_grey)
    if raw is not None:
        faults += _count_ids(facts, raw, "" if by_grey else mask.image.mode, mask)
    else:
        faults += _count_colours(facts, mask, label_map)
    return faults


def _count_ids(facts: Facts, raw: np.ndarray, mode: str, mask: StoredMask) -> list[str]:
    if raw.dtype == np.uint8:
        # Ten times as fast as counting in NumPy, which converts every value first.
        counts = np.array(Image.fromarray(raw).histogram())
    else:
        values = raw.astype(np.uint8 if raw.dtype == bool else np.int64).ravel()
        if values.size and (values.min() < 0 or values.max() > 65535):
            span = f"{values.min()} to {values.max()}"
            return [f"{mask.path}: label ids range from {span}; expected 0..65535"]
        counts = np.bincount(values)
    facts.ids = np.flatnonzero(counts)
    facts.pixels = counts[facts.ids]
    if mode == "P":
        facts.colours = _palette_colours(mask.image, facts.ids)
    elif mask.image.mode not in DEEP_MODES:
        facts.colours = facts.ids * (0xFFFFFF if raw.dtype == bool else 0x010101)
    return []


def _count_colours(facts: Facts, mask: StoredMask, label_map: LabelMap | None) -> list[str]:
    codes = mask.colours()
    # Sorting two million codes takes ten times as long as marking those that occur.
    occurs = np.zeros(2**24, bool)
    occurs[codes] = True
    colours = np.flatnonzero(occurs)
    place = np.empty(2**24, np.int32)
    place[colours] = np.arange(colours.size)
    pixels = np.bincount(place[codes].ravel(), minlength=colours.size)
    if label_map is not None and label_map.by_colour and label_map.tolerance:
        colours, pixels = _as_declared(colours, pixels, label_map)
    if colours.size > MOST_COLOURS:
        return [
            f"{mask.path}: the mask has {colours.size} colours; expected at most {MOST_COLOURS}. Export it "
            "without anti-aliasing and lossy compression, or declare a mapping of colours and a tolerance"
        ]
    facts.colours, facts.pixels = colours, pixels
    return []


def _as_declared(
    colours: np.ndarray, pixels: np.ndarray, label_map: LabelMap
) -> tuple[np.ndarray, np.ndarray]:
    """Colours near a declared one, counted as a declared one of the same class."""
    shown = np.zeros(IGNORED + 1, np.int64)
    shown[list(label_map.entries.values())] = list(label_map.entries)
    near = label_map.declared[colours]
    merged = np.where(near, shown[label_map.table[colours]], colours)
    values, place = np.unique(merged, return_inverse=True)
    return values, np.bincount(place, pixels, values.size).astype(np.int64)


def sound_geometry(pair: Pair) -> ImageGeometry | None:
    """The upright size of a pair's image, from its header; None where only decoding it tells.

    Most files that are cut off or damaged show it without being decoded: the parts of a PNG have
    checksums, and a JPEG ends with a mark.

    Raises:
        ValueError: The file cannot be opened.
    """
    if pair.image.suffix.lower() == ARRAY_SUFFIX or pair.channels != 3:
        return None
    with opened(pair.image) as image:
        tag = orientation_tag(image)
        size = upright_size(image.size, tag)
        deep = image.mode in DEEP_MODES or is_deep_in_colour(image, raw_mode_of(image, pair.image))
        if deep or not _is_whole(pair.image, image):
            return None
    return ImageGeometry(pair.image, tag, size)


def _is_whole(path: Path, image: Image.Image) -> bool:
    if image.format == "PNG":
        try:
            image.verify()
        except Exception:  # decoding the file says what is wrong with it
            return False
        return True
    if image.format in ("JPEG", "MPO"):
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(-min(file.tell(), _TAIL), os.SEEK_END)
            end = file.read().rpartition(b"\xff\xd9")
        # The mark of a thumbnail in the header is followed by the start of the picture's data.
        return bool(end[1]) and b"\xff\xda" not in end[2]
    return False


def _palette_colours(mask: Image.Image, ids: np.ndarray) -> np.ndarray:
    table = np.zeros((256, 3), np.int64)
    stored = np.array(mask.getpalette("RGB"), np.int64).reshape(-1, 3)
    table[: len(stored)] = stored
    codes: np.ndarray = (table @ np.array([65536, 256, 1]))[ids]
    return codes


def sample_facts(
    dataset: Any,
    index: int,
    label_map: LabelMap | None = None,
    decode: bool = True,
    labelled: bool = True,
) -> Facts:
    """Read a sample that is not a pair of files: its label holds class numbers; see `pair_facts`.

    Without labels it has no mode, and nothing is counted.
    """
    try:
        image, label, name = read_sample(dataset, index)
    except Exception as error:  # a user's data set may raise anything
        return Facts(str(index), str(index), faults=[f"sample {index}: {_first_line(error)}"])
    ids, pixels = np.unique(label.numpy(), return_counts=True)
    size = (image.shape[-1], image.shape[-2])
    digest = _digest(image.contiguous().numpy()) if decode else b""
    if not labelled:
        return Facts(name, name, size, digest=digest)
    mode = str(label.dtype).removeprefix("torch.")
    facts = Facts(name, name, size, mode, ids, pixels, digest=digest)
    try:
        check_label(label, None if label_map is None else label_map.num_classes, name)
    except ValueError as error:
        facts.faults.append(str(error))
    return facts


def _digest(pixels: np.ndarray) -> bytes:
    state = blake2b(repr(pixels.shape).encode(), digest_size=16)
    state.update(np.ascontiguousarray(pixels).data)
    return state.digest()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
