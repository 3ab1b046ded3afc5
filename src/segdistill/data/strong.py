"""Stronger augmentation: colours that only the student sees, and boxes of another image (CutMix)."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from segdistill.data.randomness import generator_for
from segdistill.data.transforms import change_colour

Fractions = tuple[float, float, float, float]
"""Top, left, height and width of a box, as fractions of a crop's height and width."""
_AREA = (0.02, 0.4)
_ASPECT = (0.3, 1 / 0.3)


@dataclass(frozen=True)
class Strong:
    """What is done to crops beyond `Augment`, by generators of its own, so that nothing else changes.

    Args:
        photometric: As that of `Augment`, of a second view with the same geometry, which is changed on top of
            the first; in [0, 1), 0 for no second view.
        cutmix: Probability that a box of a crop is that of another sample's, 0 to 1 (Yun et al., 2019,
            https://arxiv.org/abs/1905.04899). The box is drawn as in UniMatch V2
            (https://arxiv.org/abs/2410.10777): 0.02 to 0.4 of the area, height to width from 0.3 to 1 / 0.3.
    """

    photometric: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.photometric < 1:
            raise ValueError(
                f"strong_photometric is {self.photometric}; expected a number in [0, 1)"
            )
        if not 0 <= self.cutmix <= 1:
            raise ValueError(f"cutmix is {self.cutmix}; expected a probability in [0, 1]")

    def view(
        self, image: Float[Tensor, "c h w"], seed: int, epoch: int, index: int
    ) -> Float[Tensor, "c h w"]:
        """The second view of a crop; the crop itself without `photometric`."""
        if not self.photometric:
            return image
        draws = torch.rand(
            3, generator=generator_for("strong", seed, epoch, index), dtype=torch.float64
        )
        return change_colour(image, *(1 + self.photometric * (2 * u - 1) for u in draws.tolist()))

    def partner(
        self, count: int, seed: int, epoch: int, index: int
    ) -> tuple[int, Fractions] | None:
        """Which of `count` samples gives a box to this one, and the box; None for no box.

        Args:
            count: Samples to choose from.
            seed: Seed of the run.
            epoch: Epoch of the sample.
            index: Index of the sample.
        """
        if not self.cutmix:
            return None
        generator = generator_for("cutmix", seed, epoch, index)
        chance, which, area, aspect, row, column = torch.rand(
            6, generator=generator, dtype=torch.float64
        ).tolist()
        if chance >= self.cutmix:
            return None
        share = _AREA[0] + area * (_AREA[1] - _AREA[0])
        ratio = math.exp(math.log(_ASPECT[0]) + aspect * math.log(_ASPECT[1] / _ASPECT[0]))
        height, width = min(math.sqrt(share * ratio), 1.0), min(math.sqrt(share / ratio), 1.0)
        return int(which * count), (row * (1 - height), column * (1 - width), height, width)


NOTHING_MORE = Strong()
"""Neither a second view nor boxes."""


def with_box(
    image: Float[Tensor, "c h w"],
    label: Int64[Tensor, "h w"],
    other: Float[Tensor, "c h w"],
    other_label: Int64[Tensor, "h w"],
    box: Fractions,
) -> tuple[Float[Tensor, "c h w"], Int64[Tensor, "h w"]]:
    """A crop whose box is that of another crop of the same size, image and label alike.

    Args:
        image: The crop.
        label: Its label.
        other: The other crop.
        other_label: Its label.
        box: Top, left, height and width, as fractions of the crop's.
    """
    rows, columns = (
        slice(round(start * pixels), round((start + size) * pixels))
        for start, size, pixels in zip(box[:2], box[2:], label.shape, strict=True)
    )
    image, label = image.clone(), label.clone()
    image[:, rows, columns] = other[:, rows, columns]
    label[rows, columns] = other_label[rows, columns]
    return image, label
