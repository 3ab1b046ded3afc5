"""What one pair of image and mask holds, read without applying a mapping."""

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
from PIL import Image

from segdistill.data.dataset import Pair
from segdistill.data.files import DEEP_MODES, ID_MODES, colour_codes, open_mask, read_with_geometry
from segdistill.data.orientation import ImageGeometry, Orientation
from segdistill.data.samples import read_sample

Size = tuple[int, int]

MOST_COLOURS = 1024
"""A mask with more colours was anti-aliased or compressed, so its colours are not classes."""


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
        colours: Colour of each raw id, for a palette image; the raw ids of a mask in colour.
        digest: Hash of the image's pixels.
        fault: What is wrong with the pair; "" if nothing is.
    """

    name: str
    mask: str
    image_size: Size | None = None
    mode: str = ""
    ids: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    pixels: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    colours: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    digest: bytes = b""
    fault: str = ""


def pair_facts(
    pair: Pair, by_colour: bool = False, orientation: Orientation | None = None
) -> Facts:
    """Read one pair of files.

    Args:
        pair: The files.
        by_colour: Whether masks in colour are expected.
        orientation: What masks without an orientation tag match, as declared.
    """
    facts = Facts(pair.name, str(pair.mask or pair.name))
    faults = []
    geometry: ImageGeometry | None = None
    try:
        image, geometry = read_with_geometry(pair.image, pair.channels)
        facts.image_size = (image.shape[2], image.shape[1])
        facts.digest = _digest(image.permute(1, 2, 0).numpy())
    except (ValueError, OSError) as error:
        faults.append(str(error))
    if pair.mask is None:
        facts.fault = "; ".join(faults)
        return facts
    try:
        with open_mask(pair.mask, geometry, orientation) as mask:
            faults += _mask_faults(pair, mask, facts, by_colour)
    except (ValueError, OSError) as error:
        faults.append(str(error))
    facts.fault = "; ".join(faults)
    return facts


def _mask_faults(pair: Pair, mask: Image.Image, facts: Facts, by_colour: bool) -> list[str]:
    """Count the ids of a mask; returns what is wrong with it."""
    facts.mode = mask.mode
    faults = []
    if facts.image_size not in (None, mask.size):
        sizes = "{}x{}; expected {}x{}".format(*mask.size, *facts.image_size)
        faults.append(f"{pair.mask}: the mask is {sizes}, the size of its image")
    if mask.mode in ID_MODES:
        raw = np.asarray(mask).astype(np.uint8 if mask.mode == "1" else np.int64).ravel()
        if raw.size and (raw.min() < 0 or raw.max() > 65535):
            span = f"{raw.min()} to {raw.max()}"
            return [*faults, f"{pair.mask}: label ids range from {span}; expected 0..65535"]
        counts = np.bincount(raw)
        facts.ids = np.flatnonzero(counts)
        facts.pixels = counts[facts.ids]
        if mask.mode == "P":
            facts.colours = _palette_colours(mask, facts.ids)
        elif by_colour and mask.mode in DEEP_MODES:
            faults.append(f"{pair.mask}: the mask has mode {mask.mode}; expected colours")
        elif by_colour:
            facts.colours = facts.ids * (0xFFFFFF if mask.mode == "1" else 0x010101)
        return faults
    if mask.mode in DEEP_MODES:
        expected = "expected integer ids of 8 or 16 bits"
        return [*faults, f"{pair.mask}: the mask has mode {mask.mode}; {expected}"]
    facts.colours, facts.pixels = np.unique(colour_codes(mask), return_counts=True)
    if facts.colours.size > MOST_COLOURS:
        faults.append(
            f"{pair.mask}: the mask has {facts.colours.size} colours; expected at most "
            f"{MOST_COLOURS}. Export it without anti-aliasing and lossy compression"
        )
        facts.colours, facts.pixels = facts.ids, facts.ids
    return faults


def _palette_colours(mask: Image.Image, ids: np.ndarray) -> np.ndarray:
    table = np.zeros((256, 3), np.int64)
    stored = np.array(mask.getpalette("RGB"), np.int64).reshape(-1, 3)
    table[: len(stored)] = stored
    codes: np.ndarray = (table @ np.array([65536, 256, 1]))[ids]
    return codes


def sample_facts(dataset: Any, index: int) -> Facts:
    """Read a sample that is not a pair of files: its label holds class numbers."""
    try:
        image, label, name = read_sample(dataset, index)
    except Exception as error:  # a user's data set may raise anything
        return Facts(str(index), str(index), fault=f"sample {index}: {_first_line(error)}")
    ids, pixels = np.unique(label.numpy(), return_counts=True)
    size = (image.shape[-1], image.shape[-2])
    digest = _digest(image.contiguous().numpy())
    return Facts(
        name, name, size, str(label.dtype).removeprefix("torch."), ids, pixels, digest=digest
    )


def _digest(pixels: np.ndarray) -> bytes:
    state = blake2b(repr(pixels.shape).encode(), digest_size=16)
    state.update(np.ascontiguousarray(pixels).data)
    return state.digest()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
