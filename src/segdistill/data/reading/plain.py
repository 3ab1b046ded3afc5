"""Plain PNG and JPEG files, which imagecodecs decodes faster than Pillow, to the same pixels."""

import os
import zlib
from collections.abc import Callable
from functools import cache
from itertools import groupby
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from segdistill.data.reading.plain_jpeg import is_plain_jpeg, jpeg_decoder

_COLOUR_TYPES = {"L": 0, "RGB": 2}
_ASIDE = (b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"sBIT", b"bKGD", b"tIME", b"tEXt")
"""Chunks that change neither pixels nor their orientation, apart from texts of `_TAG_TEXTS`."""
_TAG_TEXTS = (b"raw profile type", b"xml:com.adobe.xmp", b"xmp", b"exif")
_MOST_ASIDE = 2**20
"""Bytes of all such chunks."""


def plain_pixels(image: Image.Image, mode: str) -> UInt8[Tensor, "h w c"] | None:
    """The pixels of an opened picture, if it is plain and imagecodecs is installed; None: Pillow has to.

    A plain PNG is a complete file of 8 bits, grey or RGB, not interlaced, with the right checksums, and without
    any chunk that may change what Pillow shows: transparency, profiles, EXIF, animations. PNG is lossless, so
    there is one result. See `is_plain_jpeg` for JPEG, in RGB only; its pixels are as stored, and not turned by a
    tag. Whatever is unusual or fails is left to Pillow, which also says what is wrong with it.

    Args:
        image: The picture, opened by Pillow and not decoded; that does not change.
        mode: The only mode to decode: `L` (one channel) or `RGB`.
    """
    if image.mode != mode:
        return None
    if image.format == "PNG":
        return _png_pixels(image, mode)
    return _jpeg_pixels(image) if image.format == "JPEG" and mode == "RGB" else None


def _png_pixels(image: Image.Image, mode: str) -> UInt8[Tensor, "h w c"] | None:
    decoder, channels = _decoder(), len(mode)
    # A file may be of any size: one that is larger than such pixels can be is not read.
    most = (image.width * channels + 1) * image.height * 101 // 100 + _MOST_ASIDE
    content = None if decoder is None else _content(image, most)
    bare = None if content is None else _pixel_chunks(content, mode)
    return None if decoder is None or bare is None else _decoded(decoder, bare, image, channels)


def _jpeg_pixels(image: Image.Image) -> UInt8[Tensor, "h w 3"] | None:
    decoder = jpeg_decoder()
    # Noise of the best quality takes less than its pixels.
    most = 3 * image.width * image.height + _MOST_ASIDE
    content = None if decoder is None else _content(image, most)
    if decoder is None or content is None or not is_plain_jpeg(content, image.size):
        return None
    return _decoded(decoder, content, image, 3)


def _decoded(
    decoder: Callable[[Any], np.ndarray],
    content: bytes | bytearray,
    image: Image.Image,
    channels: int,
) -> UInt8[Tensor, "h w c"] | None:
    try:
        pixels = decoder(content).reshape(image.height, image.width, channels)
    except (RuntimeError, ValueError, ImportError):  # also where imagecodecs was built without it
        return None
    return torch.from_numpy(pixels)


def _content(image: Image.Image, most: int) -> bytes | None:
    """All bytes of an opened file of at most this size."""
    file: Any = getattr(image, "fp", None)
    if file is None:
        return None
    before = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    content: bytes | None = file.read(size) if size <= most else None
    file.seek(before)
    return content


@cache
def _decoder() -> Callable[[bytearray], np.ndarray] | None:
    """What decodes PNG files; None where it is not installed.

    Not torchvision's, which ends the process at damaged pixels, nor one that holds the interpreter's lock.
    """
    try:
        from imagecodecs import png_decode
    except ImportError:
        return None
    decoder: Callable[[bytearray], np.ndarray] = png_decode
    return decoder


def _pixel_chunks(content: bytes, mode: str) -> bytearray | None:
    """A plain PNG with nothing but its pixels; None if it is not plain. The decoder never sees other chunks."""
    if content[24:29] != bytes((8, _COLOUR_TYPES[mode], 0, 0, 0)):
        return None
    view, at = memoryview(content), 8
    kinds, bare = list[bytes](), bytearray(view[:8])
    while at < len(content):
        end = at + 12 + int.from_bytes(view[at : at + 4], "big")
        kind = bytes(view[at + 4 : at + 8])
        if end > len(content) or zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(
            view[end - 4 : end], "big"
        ):
            return None
        if kind in (b"IHDR", b"IDAT", b"IEND"):
            bare += view[at:end]
        elif kind not in _ASIDE or bytes(view[at + 8 : end]).lower().startswith(_TAG_TEXTS):
            return None
        kinds.append(kind)
        at = end
    return bare if _in_order(kinds) and len(content) - len(bare) <= _MOST_ASIDE else None


def _in_order(kinds: list[bytes]) -> bool:
    """Whether the chunks are one header first, pixels in one place, and one end last."""
    runs = [kind for kind, _ in groupby(kinds)]
    once = all(runs.count(kind) == 1 for kind in (b"IHDR", b"IDAT", b"IEND"))
    alone = kinds.count(b"IHDR") == kinds.count(b"IEND") == 1
    return once and alone and kinds[0] == b"IHDR" and kinds[-1] == b"IEND"
