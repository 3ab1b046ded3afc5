"""Plain JPEG files, which imagecodecs decodes in about three quarters of Pillow's time, to the same pixels."""

import re
from collections.abc import Callable
from functools import cache
from io import BytesIO

import numpy as np
from PIL import Image

_START, _END = b"\xff\xd8", b"\xff\xd9"
_TABLES = (0xC4, 0xDB, 0xDD)
_ASIDE = (*range(0xE0, 0xEE), 0xEF, 0xFE)
"""Segments of applications, but for Adobe's, which changes what the channels are, and comments."""
_FRAMES, _SCAN = (0xC0, 0xC1), 0xDA
_YCBCR = bytes((1, 2, 3))
_SAMPLINGS = {"4:4:4": b"\x11\x11\x11", "4:2:2": b"\x21\x11\x11", "4:2:0": b"\x22\x11\x11"}
_MOST_PIXELS = 65500
"""A side of which Pillow's library refuses more."""
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]", re.DOTALL)


def is_plain_jpeg(content: bytes, size: tuple[int, int]) -> bool:
    """Whether a file is a plain JPEG of this width and height: what is usual and complete in a photograph.

    Three channels of 8 bits in one scan, not progressive, and nothing behind the pixels. Of such files
    every decoder of libjpeg's makes the same, also where the pixels are damaged. Where a file ends too early,
    Pillow says so and others do not: such a file has no end marker.
    """
    scan = _scan(content, size) if content.startswith(_START) else None
    if scan is None or not content.endswith(_END):
        return False
    only = _MARKER.search(content, scan)
    return only is not None and only.start() == len(content) - 2


def _scan(content: bytes, size: tuple[int, int]) -> int | None:
    """Where the only scan begins; None if the segments before it are not those of a plain JPEG."""
    at, frames = 2, 0
    while len(head := content[at : at + 4]) == 4 and head[0] == 0xFF:
        kind, length = head[1], int.from_bytes(head[2:], "big")
        body, at = content[at + 4 : at + 2 + length], at + 2 + length
        if length < 2 or len(body) != length - 2:
            return None
        if kind == _SCAN:
            whole = len(body) == 10 and body[0] == 3 and body[1:7:2] == _YCBCR
            return at if whole and body[7:] == bytes((0, 63, 0)) and frames == 1 else None
        if kind in _FRAMES:
            frames += 1
            if not _is_colour(body, size):
                return None
        elif kind not in _TABLES and kind not in _ASIDE:
            return None
    return None


def _is_colour(frame: bytes, size: tuple[int, int]) -> bool:
    """Whether a frame has YCbCr of 8 bits in a sampling that is tried out, and the size that Pillow found."""
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    channels = len(frame) == 15 and frame[5] == 3 and frame[6::3] == _YCBCR
    usual = channels and frame[0] == 8 and frame[7::3] in _SAMPLINGS.values()
    return usual and (width, height) == size and max(size) <= _MOST_PIXELS


@cache
def jpeg_decoder() -> Callable[[bytes], np.ndarray] | None:
    """What decodes JPEG files as Pillow does; None where it is not installed or gives other pixels.

    JPEG leaves open how exactly pixels are computed. So both decode a drawn picture in each sampling of
    colours first, of those that are read: where one pixel differs, the two were built with different libraries.
    """
    try:
        from imagecodecs import jpeg8_decode
    except ImportError:
        return None
    decoder: Callable[[bytes], np.ndarray] = jpeg8_decode
    noise = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
    for subsampling in _SAMPLINGS:
        stream = BytesIO()
        Image.fromarray(noise).save(stream, "JPEG", quality=90, subsampling=subsampling)
        try:
            found = decoder(stream.getvalue())
        except (RuntimeError, ValueError, ImportError):  # built without libjpeg
            return None
        if not np.array_equal(found, np.array(Image.open(stream))):
            return None
    return decoder
