"""Pixel values of a data set: networks read 0..1 and normalise for themselves."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segdistill.data.samples import read_sample

_SAMPLES = 8
_ROUNDING = 1e-3
_OVERSHOOT = 0.25
"""More than a bicubic resize leaves 0..1 at a sharp edge; on CamVid's photographs that is 0.1."""
_FEW = 0.01
"""Fraction of the pixels below which such values are not what makes the range."""
_DARK = 0.01
"""Images whose brightest pixel is darker were divided by 255 twice: one grey level is 0.004."""

NORMALISED_BY_NETWORKS = (
    "and declare the normalisation of each network (input in options of student and teacher; in Python "
    "student_input, teacher_input or wrap)"
)


@dataclass
class _Range:
    """What the pixels of a few images span, each image in its own type."""

    kind: str
    channels: int
    least: float
    greatest: float
    outside: float
    finite: bool

    def __str__(self) -> str:
        return f"{self.kind} from {self.least:.3g} to {self.greatest:.3g}"


def judged_pixels(dataset: Any, where: str) -> tuple[str, str]:
    """What is wrong with the pixel values of a split, as `check` and a training find it alike.

    Up to eight samples, spread evenly, are read. Images may be uint8, or floating point in 0..1. A range
    cannot tell the order of colour channels.

    Args:
        dataset: Any data set that the loaders take.
        where: What messages call it.

    Returns:
        Why it is refused and what to do, and a warning; "" for each that there is not.

    Raises:
        ValueError: A sample is malformed.
    """
    seen = _range_of(dataset)
    expected = "RGB in 0..1" if seen.channels == 3 else "values in 0..1"
    start = f"{where}: the images are {seen}; expected {expected}"
    if not seen.finite:
        return (
            f"{where}: the images have pixels that are not finite; expected {expected}. Repair them",
            "",
        )
    remedy = _remedy(seen)
    if remedy:
        return f"{start}. {remedy}", ""
    if seen.outside:
        return "", (
            f"{start} ({100 * seen.outside:.2g} % of the pixels are outside). Clamp them, as image files "
            "hold no such values"
        )
    return "", ""


def _range_of(dataset: Any) -> _Range:
    count = min(_SAMPLES, len(dataset))
    # A data set that augments draws random numbers; the training is to draw its own all the same.
    with torch.random.fork_rng(devices=[]):
        images = [read_sample(dataset, n * len(dataset) // count)[0] for n in range(count)]
    kinds = sorted({str(image.dtype).removeprefix("torch.") for image in images})
    pixels = [_in_own_units(image) for image in images]
    total = sum(image.numel() for image in pixels)
    outside = sum(int(((image < -_ROUNDING) | (image > 1 + _ROUNDING)).sum()) for image in pixels)
    return _Range(
        " and ".join(kinds),
        images[0].shape[0],
        min(float(image.min()) for image in images),
        max(float(image.max()) for image in images),
        outside / total,
        all(bool(image.isfinite().all()) for image in pixels),
    )


def _in_own_units(image: Tensor) -> Tensor:
    return image.float() / 255 if image.dtype == torch.uint8 else image.float()


def _remedy(seen: _Range) -> str:
    """What to do about a range that is not that of images; "" where it is."""
    if seen.kind == "uint8":
        if seen.greatest <= 1:
            return "Images in 0..1 lose their levels as uint8: hand them over as floating point"
        return ""
    many = seen.outside > _FEW
    if many and seen.least < -_OVERSHOOT:
        if seen.least >= -1 - _ROUNDING and seen.greatest <= 1 + _ROUNDING:
            return f"Undo the scaling to [-1, 1] by (x + 1) / 2, {NORMALISED_BY_NETWORKS}"
        return f"They are normalised already: leave Normalize out, {NORMALISED_BY_NETWORKS}"
    if many and seen.greatest > 1 + _OVERSHOOT:
        if seen.greatest > 8:
            return "Divide them by 255"
        return f"They are scaled already: leave that out, {NORMALISED_BY_NETWORKS}"
    if seen.greatest < _DARK:
        return "If they were divided by 255 twice (ToTensor does it, too), leave one division out"
    return ""
