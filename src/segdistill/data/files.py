"""Reading image and mask files: one reader for every command."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Num, UInt8
from PIL import Image
from torch import Tensor

from segdistill.data.channels import ARRAY_SUFFIX, read_array, stored
from segdistill.data.label_map import LabelMap, colour_text
from segdistill.data.orientation import (
    ImageGeometry,
    Orientation,
    mask_turn,
    orientation_tag,
    turned,
)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
ID_MODES = ("L", "P", "1", "I;16", "I;16B", "I")
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")
# Raised by Pillow on damaged files: mostly OSError, SyntaxError by the PNG reader, ValueError and
# DecompressionBombError for absurd headers.
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def read_image(path: Path | str, channels: int = 3) -> Num[Tensor, "c h w"]:
    """An upright image: as uint8 RGB, or as stored for any other number of channels.

    A picture with an orientation tag (EXIF) is turned the way a viewer shows it. For RGB, grey, palette
    and RGBA pictures are converted, and more than 8 bits are refused. For any other number of channels
    nothing is converted: black and white and grey have 1 channel, grey with alpha 2, RGBA and CMYK 4.
    Grey with 16 bits or floating point becomes float32 in 0..1. A `.npy` array, `h w` or `h w c`, is
    never converted.

    Args:
        path: The file.
        channels: 3 for RGB.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, not an image, or has other channels or bits.
    """
    return read_with_geometry(path, channels)[0]


def read_with_geometry(
    path: Path | str, channels: int = 3
) -> tuple[Num[Tensor, "c h w"], ImageGeometry]:
    """As `read_image`, with the geometry needed to read the image's mask."""
    if Path(path).suffix.lower() == ARRAY_SUFFIX:
        pixels, tag = stored(read_array(path), channels, f"{path}: the array"), None
    else:
        image, tag = _upright(path, "image")
        pixels = _pixels(image, path, channels)
    return pixels, ImageGeometry(path, tag, (pixels.shape[2], pixels.shape[1]))


def _pixels(image: Image.Image, path: Path | str, channels: int) -> Num[Tensor, "c h w"]:
    if channels != 3:
        if image.mode in ("P", "PA"):
            raise ValueError(
                f"{path}: the image has a palette; expected {channels} stored channels. "
                "Save it as grey or in colour"
            )
        return stored(np.array(image), channels, f"{path}: the image (mode {image.mode})")
    if image.mode in DEEP_MODES:
        raise ValueError(
            f"{path}: the image has more than 8 bits per channel (mode {image.mode}); "
            "expected 8-bit RGB. Convert it first"
        )
    # Keeps the memory order of the file (channels last): no copy, and as fast to resize.
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def read_mask(
    path: Path | str,
    label_map: LabelMap,
    image: ImageGeometry | None = None,
    orientation: Orientation | None = None,
) -> UInt8[Tensor, "h w"]:
    """A mask file as class numbers, 255 ignored, turned upright by `open_mask`.

    Ids are the stored values: grey values, palette *indices* (not colours), or 16-bit values. With
    a mapping of colours they are the colours, for palette images too.

    Args:
        path: The file.
        label_map: Maps ids to classes.
        image: Geometry of the image that the mask belongs to.
        orientation: What masks without an orientation tag match; see `Orientation`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, lossy (JPEG) or in colour, holds an undeclared id, or its
            orientation is ambiguous.
    """
    with open_mask(path, image, orientation) as mask:
        if label_map.by_colour and mask.mode not in DEEP_MODES:
            raw = colour_codes(mask)
        elif mask.mode in ID_MODES:
            raw = np.array(mask)
        else:
            raise ValueError(_colour_mask(path, mask))
    return torch.from_numpy(label_map.apply(raw, str(path)))


def open_mask(
    path: Path | str, image: ImageGeometry | None = None, orientation: Orientation | None = None
) -> Image.Image:
    """A mask file, decoded and upright, in its stored mode.

    It is turned by its own orientation tag; without one, `mask_turn` decides.

    Args:
        path: The file.
        image: Geometry of the image that the mask belongs to; None: only the mask's tag counts.
        orientation: What masks without a tag match.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged or lossy (JPEG), or its orientation is ambiguous.
    """
    mask, tag = _upright(path, "mask")
    if tag is None and image is not None:
        mask = turned(mask, mask_turn(path, mask.size, image, orientation))
    return mask


def _upright(path: Path | str, kind: str) -> tuple[Image.Image, int | None]:
    """A decoded picture, turned by its own orientation tag, and that tag."""
    try:
        with Image.open(path) as image:
            tag = orientation_tag(image)
            image.load()
            lossy = image.format in ("JPEG", "MPO")
            # Pillow turns TIFF files while loading them, and drops the tag.
            upright = turned(image, orientation_tag(image))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such {kind} file") from None
    except _UNREADABLE as error:
        raise ValueError(
            f"{path}: cannot read this {kind} ({str(error).splitlines()[0]}). "
            "The file is damaged or not an image: replace or remove it"
        ) from None
    if lossy and kind == "mask":
        raise ValueError(
            f"{path}: the mask is a JPEG; expected a lossless format, as compression changes ids. "
            "Export the masks as PNG"
        )
    return upright, tag


def _colour_mask(path: Path | str, image: Image.Image) -> str:
    pixels = np.array(image.convert("RGB"))
    if (pixels == pixels[..., :1]).all():
        remedy = "All its channels are equal: save it with one channel (mode L)"
    else:
        colours = np.unique(colour_codes(image)).tolist()
        first = ", ".join(f'"{colour_text(c)}": ..' for c in colours[:3])
        remedy = (
            f"It holds {len(colours)} colours: declare them as mapping: {{{first}}} "
            "(`segdistill check` proposes it)"
        )
    return (
        f"{path}: the mask is a colour image (mode {image.mode}); expected one channel of ids "
        f"(8-bit grey, palette, or 16-bit). {remedy}"
    )


def colour_codes(image: Image.Image) -> np.ndarray:
    """The raw id 0xrrggbb of every pixel, int32."""
    pixels = np.asarray(image.convert("RGB"))
    codes = pixels[..., 0].astype(np.int32)
    for channel in (1, 2):
        codes = (codes << 8) | pixels[..., channel]
    return codes
