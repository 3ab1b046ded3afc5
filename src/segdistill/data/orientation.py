"""Orientation tags (EXIF): pictures and their masks are read upright."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from PIL import Image

from segdistill.data.reading.opening import opened
from segdistill.names import unknown

Orientation = Literal["upright", "stored"]
"""What masks without a tag match: the picture as a viewer shows it, or the stored pixels."""

_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageGeometry(NamedTuple):
    """What reading a mask requires of its image: the file, its orientation tag, and its upright size."""

    path: Path | str
    tag: int | None
    size: tuple[int, int]
    """width and height"""


def orientation_tag(image: Image.Image) -> int | None:
    """The orientation tag of an opened picture, 1 to 8; None without a valid one.

    Call it before the picture is decoded: Pillow turns TIFF files itself and then drops the tag.
    """
    if image.format == "PNG" and "exif" not in image.info and not _has_texts(image):
        # Pillow would decode the pixels to look for a tag behind them.
        return None
    tag = image.getexif().get(_TAG)
    return tag if tag in (1, *_TURNS) else None


def _has_texts(image: Image.Image) -> bool:
    """Whether a PNG has chunks that may hold a tag, as far as its chunks can be followed."""
    file: Any = getattr(image, "fp", None)
    if file is None:
        return True
    before = file.tell()
    file.seek(8)
    found = False
    while not found and len(head := file.read(8)) == 8:
        found = head[4:] in (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
        file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
    file.seek(before)
    return found


def upright_size(size: tuple[int, int], tag: int | None) -> tuple[int, int]:
    """Width and height of a picture that was stored with this tag, once it is turned upright."""
    return (size[1], size[0]) if tag in (5, 6, 7, 8) else size


def turned(image: Image.Image, tag: int | None) -> Image.Image:
    """A picture that was stored with this tag, as a viewer shows it."""
    return image.transpose(_TURNS[tag]) if tag in _TURNS else image


def mask_turn(
    mask: Path | str, size: tuple[int, int], image: ImageGeometry, declared: Orientation | None
) -> int | None:
    """The tag to apply to a mask that has none itself.

    For images turned by 90° (tags 5 to 8) the sizes settle it, unless they are square.

    Args:
        mask: The mask's file.
        size: Width and height of the mask as stored.
        image: Its image.
        declared: What the data set declares; None: nothing.

    Raises:
        ValueError: The image has a tag, nothing is declared, and both orientations are possible.
    """
    if image.tag in (None, 1):
        return None
    if declared is not None:
        return image.tag if declared == "stored" else None
    if image.tag in (5, 6, 7, 8) and image.size[0] != image.size[1]:
        return image.tag if size == (image.size[1], image.size[0]) else None
    raise ValueError(
        f"{mask}: the image has an orientation tag and the mask has none; expected "
        "orientation upright or stored. Overlay one mask on its image in a viewer: if it matches, add "
        "`orientation: upright` to data.options; if it is turned or mirrored, `orientation: stored`"
    )


def check_orientation(orientation: str | None) -> Orientation | None:
    """The declared option, checked.

    Raises:
        ValueError: It is neither `upright` nor `stored`.
    """
    if orientation is None:
        return None
    for known in get_args(Orientation):
        if orientation == known:
            checked: Orientation = known
            return checked
    raise ValueError(unknown("orientation of masks", str(orientation), get_args(Orientation)))


def unclear_orientations(
    files: Iterable[tuple[Path, Path]], declared: Orientation | None
) -> list[str]:
    """One line per pair of image and mask whose orientation is ambiguous; only headers are read.

    Args:
        files: Image and mask of each pair. Files that cannot be read are skipped.
        declared: What the data set declares.
    """
    if declared is not None:
        return []
    with ThreadPoolExecutor(8) as pool:
        return [line for line in pool.map(_unclear, files) if line]


def _unclear(files: tuple[Path, Path]) -> str:
    try:
        with opened(files[0]) as image:
            tag = orientation_tag(image)
            if tag in (None, 1):
                return ""
            size = upright_size(image.size, tag)
        with opened(files[1], "mask") as mask:
            if orientation_tag(mask) is not None:
                return ""
            mask_size = mask.size
    except Exception:  # reading the file later reports what is wrong with it
        return ""
    try:
        mask_turn(files[1], mask_size, ImageGeometry(files[0], tag, size), None)
    except ValueError as error:
        return str(error)
    return ""
