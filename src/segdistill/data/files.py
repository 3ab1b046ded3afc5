"""Reading image and mask files: one reader for every command."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Num, UInt8
from PIL import Image
from torch import Tensor

from segdistill.data.channels import ARRAY_SUFFIX, read_array, stored
from segdistill.data.label_map import LabelMap, colour_text

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
ID_MODES = ("L", "P", "1", "I;16", "I;16B", "I")
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")
# What Pillow raises on damaged files: OSError for most, SyntaxError from the PNG reader,
# ValueError and DecompressionBombError for absurd headers.
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


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


def colour_codes(image: Image.Image) -> np.ndarray:
    """The raw id 0xrrggbb of every pixel, int32."""
    pixels = np.asarray(image.convert("RGB"))
    codes = pixels[..., 0].astype(np.int32)
    for channel in (1, 2):
        codes = (codes << 8) | pixels[..., channel]
    return codes
