"""Random scale, crop, flip and colour jitter of an image together with its label."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64, Num
from torch import Tensor
from torch.nn.functional import interpolate, pad

from segdistill.data.channels import in_unit_range
from segdistill.data.label_map import IGNORED

PADDING_COLOUR = (124, 116, 104)
"""Mean RGB of ImageNet: about zero after a network's normalisation."""

_GREY = (0.299, 0.587, 0.114)


class Box(NamedTuple):
    """A box in integer pixels of the source; it may extend beyond the edges."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Augment:
    """Cut a random box out of image and label and resize it to the size of the crop.

    The effect is that of resizing the image to `base` times a random scale and taking a crop of
    fixed size. The implementation is cheaper: the crop's box is computed in source pixels
    (integers, the same for image and label), and only that box is resized, once: bilinear with
    antialiasing for the image, nearest pixel centre for the label. Where the box is larger than the
    source, the rest is `PADDING_COLOUR` with label 255.

    Every call draws the same seven numbers from its generator, whatever the options, so that
    enabling one augmentation does not change the others.

    Args:
        crop: Height and width of the output, in pixels.
        scale: Smallest and largest zoom, drawn uniformly; 2 shows objects twice as large.
        flip: Probability of a left-right flip, 0..1.
        photometric: Largest change of brightness, contrast and saturation, each by a factor from
            `1 - photometric` to `1 + photometric`; in [0, 1), 0 for off. Saturation changes only in
            images of three channels.
        base: Height and width of the image before `scale` is applied; None for its native size.

    Example:
        >>> augment = Augment(crop=(2, 4), scale=(1.0, 1.0))
        >>> image = torch.zeros(3, 6, 8, dtype=torch.uint8)
        >>> label = torch.zeros(6, 8, dtype=torch.uint8)
        >>> image, label = augment(image, label, torch.Generator().manual_seed(0))
        >>> image.shape, image.dtype, label.shape, label.dtype
        (torch.Size([3, 2, 4]), torch.float32, torch.Size([2, 4]), torch.int64)
    """

    crop: tuple[int, int]
    scale: tuple[float, float] = (0.5, 2.0)
    flip: float = 0.5
    photometric: float = 0.0
    base: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        # Recipes and callers may pass lists.
        object.__setattr__(self, "crop", _size("crop", self.crop))
        if self.base is not None:
            object.__setattr__(self, "base", _size("base", self.base))
        scale = tuple(self.scale)
        if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
            raise ValueError(f"scale is {list(scale)}; expected [smallest, largest], both above 0")
        object.__setattr__(self, "scale", scale)
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip is {self.flip}; expected a probability in [0, 1]")
        if not 0 <= self.photometric < 1:
            raise ValueError(f"photometric is {self.photometric}; expected a number in [0, 1)")

    def __call__(
        self, image: Num[Tensor, "c h w"], label: Num[Tensor, "h w"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "c crop_h crop_w"], Int64[Tensor, "crop_h crop_w"]]:
        """Image in 0..1 and label of a random crop.

        Args:
            image: uint8, or floating point in 0..1.
            label: Class numbers of any integer type, 255 ignored.
            generator: Source of randomness.
        """
        zoom, row, column, mirror, *colour = torch.rand(
            7, generator=generator, dtype=torch.float64
        ).tolist()
        height, width = label.shape
        box = self._box(height, width, zoom, row, column)
        crop, crop_label = resize_box(image, label, box, self.crop)
        if mirror < self.flip:
            crop, crop_label = crop.flip(-1), crop_label.flip(-1)
        if self.photometric:
            crop = change_colour(crop, *(1 + self.photometric * (2 * u - 1) for u in colour))
        return crop, crop_label

    def _box(self, height: int, width: int, zoom: float, row: float, column: float) -> Box:
        """Box of the crop in a source of this size; the last three are random numbers in 0..1."""
        scale = self.scale[0] + zoom * (self.scale[1] - self.scale[0])
        base_height, base_width = self.base or (height, width)
        box_height = max(1, round(self.crop[0] * height / (base_height * scale)))
        box_width = max(1, round(self.crop[1] * width / (base_width * scale)))
        top = _offset(height - box_height, row)
        left = _offset(width - box_width, column)
        return Box(top, left, box_height, box_width)


def _offset(margin: int, draw: float) -> int:
    # With a negative margin the box is larger than the image, which is then placed inside the box.
    low, high = min(margin, 0), max(margin, 0)
    return low + min(int(draw * (high - low + 1)), high - low)


def _size(name: str, size: tuple[int, int]) -> tuple[int, int]:
    values = tuple(size)
    if len(values) != 2 or any(int(v) != v or v < 1 for v in values):
        raise ValueError(f"{name} is {list(values)}; expected [height, width] as positive integers")
    return int(values[0]), int(values[1])


def resize_box(
    image: Num[Tensor, "c h w"], label: Num[Tensor, "h w"], box: Box, size: tuple[int, int]
) -> tuple[Float[Tensor, "c oh ow"], Int64[Tensor, "oh ow"]]:
    """A box of image and label at another size: image bilinear (antialiased), label nearest.

    The centre of output pixel i lies at `(i + 0.5) * box / size` in the box, for both.
    """
    top, left, box_height, box_width = box
    height, width = label.shape
    inside = (
        slice(max(top, 0), min(top + box_height, height)),
        slice(max(left, 0), min(left + box_width, width)),
    )
    image, label = image[:, *inside], label[inside]
    if image.shape[-2:] != (box_height, box_width):
        left_pad, top_pad = max(-left, 0), max(-top, 0)
        around = (
            left_pad,
            box_width - image.shape[-1] - left_pad,
            top_pad,
            box_height - image.shape[-2] - top_pad,
        )
        image, label = _padded_image(image, around), pad(label, around, value=IGNORED)
    rows = nearest_index(box_height, size[0])
    columns = nearest_index(box_width, size[1])
    # One gather from the flat label takes half the time of indexing rows, then columns.
    indices = (rows[:, None] * box_width + columns).flatten()
    label = label.contiguous().flatten().index_select(0, indices).view(size)
    return resize_image(image, size), label.long()


def resize_image(image: Num[Tensor, "c h w"], size: tuple[int, int]) -> Float[Tensor, "c oh ow"]:
    """A uint8 or floating-point image at another size, float32 in 0..1, bilinear and antialiased.

    uint8 is resized as uint8 and rounded to integers: about twice as fast as float32.
    """
    if tuple(image.shape[-2:]) != tuple(size):
        image = interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]
    return in_unit_range(image)


def nearest_index(source: int, target: int) -> Int64[Tensor, " target"]:
    """Index of the source pixel that contains the centre of each target pixel."""
    return ((2 * torch.arange(target) + 1) * source).div(2 * target, rounding_mode="floor")


def _padded_image(image: Num[Tensor, "c h w"], around: tuple[int, ...]) -> Num[Tensor, "c H W"]:
    height = image.shape[-2] + around[2] + around[3]
    width = image.shape[-1] + around[0] + around[1]
    channels = image.shape[0]
    colour = PADDING_COLOUR if channels == 3 else (round(sum(PADDING_COLOUR) / 3),) * channels
    fill = torch.tensor(colour, dtype=torch.float32)
    if image.dtype != torch.uint8:
        fill = fill / 255
    canvas = fill.to(image.dtype)[:, None, None].repeat(1, height, width)
    canvas[:, around[2] : height - around[3], around[0] : width - around[1]] = image
    return canvas


def change_colour(
    image: Float[Tensor, "c h w"], brightness: float, contrast: float, saturation: float
) -> Float[Tensor, "c h w"]:
    """An image in 0..1 with brightness, contrast and saturation multiplied; 1 changes nothing.

    Contrast scales about the image's mean grey, saturation about each pixel's grey; the result is
    clamped to 0..1 once, at the end. Only RGB has a grey: in other images each channel (alpha too)
    is scaled about its mean, and saturation does not change.
    """
    if image.shape[0] != 3:
        rest = image.mean((1, 2), keepdim=True) * (brightness * (1 - contrast))
        return (image * (brightness * contrast)).add_(rest).clamp_(0, 1)
    red, green, blue = _GREY
    grey = (image[0] * red).add_(image[1], alpha=green).add_(image[2], alpha=blue)
    # brightness * (mean + contrast * (p - mean)) where p = grey + saturation * (image - grey),
    # multiplied out so that only two passes go over all channels.
    rest = grey.mean() * (brightness * (1 - contrast))
    rest = grey * (brightness * contrast * (1 - saturation)) + rest
    return (image * (brightness * contrast * saturation)).add_(rest).clamp_(0, 1)
