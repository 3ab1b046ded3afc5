"""Images with any number of channels: as stored, scaled to 0..1, and as a picture."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor

from segdistill.data.reading.opening import refuse_irregular

ARRAY_SUFFIX = ".npy"


def read_array(path: Path | str) -> np.ndarray:
    """The array in a `.npy` file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It does not hold a plain array of numbers.
    """
    refuse_irregular(path)
    try:
        array: np.ndarray = np.load(path, allow_pickle=False)
        if array.dtype.kind not in "biuf":
            raise ValueError(f"values of {array.dtype}")
    except Exception as error:  # a damaged header may raise anything, such as MemoryError
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{path}: cannot read this array ({cause}); "
            "expected a numeric array. Write it with numpy.save"
        ) from None
    return array


def stored(pixels: np.ndarray, channels: int, source: str) -> Num[Tensor, "c h w"]:
    """Pixels as stored, without conversion: uint8, or float32 in 0..1 for more bits.

    Args:
        pixels: `h w` or `h w c` of bool, uint8, 16 bits (divided by 65535) or floating point in 0..1.
        channels: The expected number of channels.
        source: File and kind of file, at the start of error messages.

    Raises:
        ValueError: The number of channels, the type or the range is wrong.
    """
    stored_channels = 1 if pixels.ndim == 2 else pixels.shape[-1] if pixels.ndim == 3 else 0
    if stored_channels != channels:
        shape = "x".join(map(str, pixels.shape))
        raise ValueError(
            f"{source} is {shape}; expected height x width x {channels}. "
            "Set `channels` to the stored number, or convert the file"
        )
    tensor = torch.from_numpy(_in_range(pixels, source))
    return tensor[None] if tensor.ndim == 2 else tensor.permute(2, 0, 1)


def _in_range(pixels: np.ndarray, source: str) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * np.uint8(255)
    # Pillow gives 16 bits as int32 in some formats (mode I).
    limit = 1 if pixels.dtype.kind == "f" else 65535
    least, greatest = pixels.min(initial=0), pixels.max(initial=0)
    # NaN fails every comparison.
    if not 0 <= least <= greatest <= limit:
        raise ValueError(
            f"{source} is {pixels.dtype} from {least:g} to {greatest:g}; expected uint8, 16 bits in "
            "0..65535 or floating point in 0..1. Rescale it"
        )
    scaled: np.ndarray = np.divide(pixels, limit, dtype=np.float32)
    return scaled


def in_unit_range(image: Num[Tensor, "c h w"]) -> Float[Tensor, "c h w"]:
    """A copy of an image, uint8 or in 0..1, as float32 in 0..1, channels first in memory."""
    plain = image.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    return plain.div_(255) if image.dtype == torch.uint8 else plain


def visible(image: Num[Tensor, "c h w"]) -> Num[Tensor, "3 h w"]:
    """The image as a picture: its first three channels as RGB, or its first as grey if it has fewer."""
    return image[:3] if image.shape[0] >= 3 else image[:1].expand(3, -1, -1)
