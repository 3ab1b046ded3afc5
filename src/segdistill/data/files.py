"""Reading image and mask files: one reader for every command."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Num, UInt8
from PIL import Image
from torch import Tensor

from segdistill.data.annotations.drawing import LeftOut
from segdistill.data.channels import ARRAY_SUFFIX, read_array, stored
from segdistill.data.label_map import LabelMap, colour_text
from segdistill.data.orientation import (
    ImageGeometry,
    Orientation,
    mask_turn,
    orientation_tag,
    turned,
)
from segdistill.data.reading.opening import opened
from segdistill.data.reading.plain import plain_pixels

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp")
ID_MODES = ("L", "P", "1", "I;16", "I;16B", "I")
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "F")


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
        pixels, tag = _picture(path, channels)
    return pixels, ImageGeometry(path, tag, (pixels.shape[2], pixels.shape[1]))


def _picture(path: Path | str, channels: int) -> tuple[Num[Tensor, "c h w"], int | None]:
    """The upright pixels of an image file, and its orientation tag."""
    with opened(path, "image") as file:
        tag = orientation_tag(file) if file.format == "JPEG" else None  # no plain PNG has one
        plain = plain_pixels(file, "RGB") if channels == 3 and tag in (None, 1) else None
        if plain is not None:  # in the memory order of the file, as from Pillow
            return plain.permute(2, 0, 1), tag
        picture = _upright(file, path)
    if picture.deep_colours:
        raise ValueError(
            f"{path}: the image has several channels of 16 bits (mode {picture.raw_mode}); expected 8 bits per "
            "channel. Convert it first, or save it as .npy for other channels than RGB"
        )
    return _pixels(picture.image, path, channels), picture.tag


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
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    rgb.load()  # here, since NumPy would hide what is wrong with the file
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)


def read_mask(
    path: Path | str,
    label_map: LabelMap,
    image: ImageGeometry | None = None,
    orientation: Orientation | None = None,
) -> UInt8[Tensor, "h w"]:
    """A mask file as class numbers, 255 ignored, turned upright by `open_mask`.

    Ids are the stored values: grey values of any bit depth (white is 1 in a black-and-white file of one
    bit), palette *indices* (not colours), or 16-bit values. With a mapping of colours they are the
    colours, for palette images too. With a threshold or a tolerance they are grey levels, 0 to 255.

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
    return mapped(open_mask(path, image, orientation), label_map)


def mapped(mask: "StoredMask", label_map: LabelMap) -> UInt8[Tensor, "h w"]:
    """The class numbers of a decoded mask; errors are those of `read_mask`."""
    mask.check(label_map)
    raw = mask.colours() if label_map.by_colour else mask.ids(label_map.by_grey)
    if raw is None:
        raise ValueError(_colour_mask(mask))
    return torch.from_numpy(label_map.apply(raw, str(mask.path)))


class StoredMask(NamedTuple):
    """A mask file, decoded and upright, before any mapping.

    Attributes:
        path: The file.
        image: Its pixels, in their stored mode.
        tag: Its orientation tag.
        lossy: Whether compression changed its values.
        raw_mode: Pillow's name of the stored pixels, such as `L;4`; "" if it has none.
        left_out: Shapes of a drawn label that are not in it; see `segdistill.data.annotations`.
    """

    path: Path | str
    image: Image.Image
    tag: int | None
    lossy: bool
    raw_mode: str
    left_out: tuple[LeftOut, ...] = ()

    def check(self, label_map: LabelMap | None) -> None:
        """Refuse a mask whose values cannot be ids or colours.

        Raises:
            ValueError: It is lossy and no threshold or tolerance is declared, holds floating-point values
                or colours of 16 bits, is deeper than colours are, or hides classes in its alpha channel.
        """
        by_colour = label_map is not None and label_map.by_colour
        mode = self.image.mode
        if self.lossy and (label_map is None or label_map.lossless):
            raise ValueError(
                f"{self.path}: the mask is a {self.lossy_format}; expected a lossless format, as compression "
                "changes ids. Export the masks as PNG, or declare how to read them: threshold: 128 for "
                "black and white, or a mapping and a tolerance"
            )
        if mode == "F":
            raise ValueError(
                f"{self.path}: the mask has floating-point values (mode F); expected integer ids. Save it "
                "with 8 or 16 bits"
            )
        if by_colour and mode in DEEP_MODES:
            raise ValueError(
                f"{self.path}: the mask has more than 8 bits (mode {mode}); expected colours, as in "
                "`mapping`. Save it in colour, or declare a mapping of ids"
            )
        if self.deep_colours:
            raise ValueError(
                f"{self.path}: the mask has several channels of 16 bits (mode {self.raw_mode}); expected 8 "
                "bits per channel, or one channel of 16. Export it again"
            )
        if (by_colour or mode != "P") and _alpha_distinguishes(self.image):
            raise ValueError(
                f"{self.path}: pixels of one colour differ in the alpha channel, so classes may lie there; "
                "expected ids or colours. Save the alpha channel as a grey PNG, or remove it"
            )

    @property
    def deep_colours(self) -> bool:
        """Whether the file has several channels of 16 bits, of which Pillow hands out the upper eight."""
        return is_deep_in_colour(self.image, self.raw_mode)

    @property
    def lossy_format(self) -> str:
        """The format for messages: `JPEG`, or `lossy WebP`."""
        return "lossy WebP" if self.raw_mode == "VP8 " else "JPEG"

    def ids(self, by_grey: bool = False) -> np.ndarray | None:
        """The id of every pixel; None for a mask in colour.

        Args:
            by_grey: Grey levels from 0 to 255 instead: a palette counts by its colours, and white is 255
                at any bit depth.
        """
        image = self.image
        if by_grey and image.mode == "1":
            return np.array(image) * np.uint8(255)
        if image.mode in ID_MODES and not (by_grey and image.mode == "P"):
            raw = np.array(image)
            if raw.dtype == bool:  # as an index it would choose instead of count
                raw = raw.astype(np.uint8)
            bits = re.match("L;([24])", self.raw_mode)
            # Pillow spreads 2 and 4 bits over 0..255.
            return raw if by_grey or bits is None else raw // (255 // (2 ** int(bits[1]) - 1))
        pixels = np.asarray(image.convert("RGB"))
        return np.array(pixels[..., 0]) if (pixels == pixels[..., :1]).all() else None

    def colours(self) -> np.ndarray:
        """The colour 0xrrggbb of every pixel, int32."""
        pixels = np.asarray(self.image.convert("RGB"))
        codes = pixels[..., 0].astype(np.int32)
        for channel in (1, 2):
            codes = (codes << 8) | pixels[..., channel]
        return codes


def open_mask(
    path: Path | str, image: ImageGeometry | None = None, orientation: Orientation | None = None
) -> StoredMask:
    """A mask file, decoded and upright.

    It is turned by its own orientation tag; without one, `mask_turn` decides.

    Args:
        path: The file.
        image: Geometry of the image that the mask belongs to; None: only the mask's tag counts.
        orientation: What masks without a tag match.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged or has several pages, or its orientation is ambiguous.
    """
    with opened(path, "mask") as file:
        mask = _upright(file, path)
    if mask.tag is None and image is not None:
        turn = mask_turn(path, mask.image.size, image, orientation)
        mask = mask._replace(image=turned(mask.image, turn))
    return mask


def _upright(file: Image.Image, path: Path | str) -> StoredMask:
    """An opened picture, decoded and turned by its own orientation tag."""
    grey = plain_pixels(file, "L")
    if grey is not None:
        return StoredMask(path, Image.fromarray(grey[..., 0].numpy()), None, False, "L")
    raw_mode = raw_mode_of(file, path)
    tag = orientation_tag(file)
    lossy = file.format in ("JPEG", "MPO") or raw_mode == "VP8 "
    lossy |= "jpeg" in str(file.info.get("compression", ""))
    file.load()
    # Pillow turns TIFF files while loading them, and drops the tag.
    return StoredMask(path, turned(file, orientation_tag(file)), tag, lossy, raw_mode)


def is_deep_in_colour(image: Image.Image, raw_mode: str) -> bool:
    """Whether an opened picture has several channels of 16 bits."""
    return image.mode not in DEEP_MODES and ";16" in raw_mode


def raw_mode_of(image: Image.Image, path: Path | str) -> str:
    """Pillow's name of the stored pixels; for WebP the name of the chunk that holds them."""
    if image.format == "WEBP":
        with open(path, "rb") as file:
            start = file.read(4096)
        return "VP8 " if b"VP8 " in start and b"VP8L" not in start else "VP8L"
    tiles = getattr(image, "tile", ())
    arguments = tiles[0][3] if tiles else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _alpha_distinguishes(image: Image.Image) -> bool:
    """Whether pixels of one colour differ in their transparency."""
    if not image.has_transparency_data:
        return False
    pixels = np.asarray(image.convert("RGBA"))
    alpha = pixels[..., 3]
    if (alpha == alpha.flat[0]).all():
        return False
    codes = pixels[..., :3].astype(np.int32) @ np.array([65536, 256, 1], np.int32)
    last = np.zeros(2**24, np.uint8)
    last[codes] = alpha
    return bool((last[codes] != alpha).any())


def _colour_mask(mask: StoredMask) -> str:
    colours = np.unique(mask.colours()).tolist()
    first = ", ".join(f'"{colour_text(c)}": ..' for c in colours[:3])
    return (
        f"{mask.path}: the mask is a colour image (mode {mask.image.mode}); expected one channel of ids "
        f"(8-bit grey, palette, or 16-bit). It holds {len(colours)} colours: declare them as mapping: "
        f"{{{first}}} (`segdistill check` proposes it)"
    )
