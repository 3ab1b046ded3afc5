"""How well a linear probe reads a cell's place in the image from a network's features."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from segdistill.geometry import Cells, Line

RIM = 8
"""A cell is at the border if it is in the outer eighth of the rows or columns, at least one, of a side."""
_RIDGE = 1e-4
_ROUNDING = 1e-6
"""Pixels by which the last centre may lie beyond the last pixel: 54 / 13 · 13 is more than 54."""


@dataclass
class _Moments:
    """Sums over cells, in float64, of what a linear fit of the coordinates needs."""

    count: float = 0.0
    features: Tensor = field(default_factory=lambda: torch.zeros(()))
    places: Tensor = field(default_factory=lambda: torch.zeros(()))
    gram: Tensor = field(default_factory=lambda: torch.zeros(()))
    cross: Tensor = field(default_factory=lambda: torch.zeros(()))
    squares: Tensor = field(default_factory=lambda: torch.zeros(()))

    def add(self, features: Float[Tensor, "n c"], places: Float[Tensor, "n 2"]) -> None:
        self.count += len(features)
        self.features = self.features + features.sum(0)
        self.places = self.places + places.sum(0)
        self.gram = self.gram + features.T @ features
        self.cross = self.cross + features.T @ places
        self.squares = self.squares + places.square().sum(0)

    def __add__(self, other: "_Moments") -> "_Moments":
        return _Moments(
            self.count + other.count,
            self.features + other.features,
            self.places + other.places,
            self.gram + other.gram,
            self.cross + other.cross,
            self.squares + other.squares,
        )

    def spread(self) -> Float[Tensor, "2"]:
        """Summed squared deviation of the coordinates from their mean."""
        return self.squares - self.places.square() / self.count

    def errors(self, weight: Float[Tensor, "c 2"], bias: Float[Tensor, "2"]) -> Float[Tensor, "2"]:
        """Summed squared error of a linear map, from the sums alone."""
        mapped = (self.gram @ weight * weight).sum(0) + 2 * bias * (self.features @ weight)
        met = (self.cross * weight).sum(0) + bias * self.places
        return self.squares - 2 * met + mapped + self.count * bias.square()


class PositionProbe:
    """R² of a linear probe of the cells' coordinates, fitted to one half of a set and scored on the other.

    The probe is a 1x1 map with a bias, fitted in closed form (ridge, λ = 1e-4 on standardised
    channels). It sees no neighbours and no padding of its own: what it finds is in the features. The
    first half of the images is fitted and the second scored, then the other way round. They are halves,
    not every second image, since neighbours in a video show one place. Position can come from padding,
    which reaches inwards from the border, and from content, so border and interior are scored apart.

    Islam et al., "How Much Position Information Do Convolutional Neural Networks Encode?" (ICLR 2020,
    https://arxiv.org/abs/2001.08248) train a 3x3 convolution for this instead.

    Args:
        images: number of images that will be added; at least 2 are needed.
    """

    def __init__(self, images: int) -> None:
        self._images, self._seen = images, 0
        self._sums = {(half, rim): _Moments() for half in (0, 1) for rim in (False, True)}

    def add(self, features: Float[Tensor, "c h w"], cells: Cells, image: tuple[int, int]) -> None:
        """Add the next image.

        Args:
            features: its features, float64.
            cells: where they lie, on the image as it was shown.
            image: rows and columns of the image without its padding; cells that lie beyond are left out.
        """
        half = int(self._seen >= self._images / 2)
        self._seen += 1
        flat = features.flatten(1).T
        places, inside, rim = _places(cells, image)
        for at_rim in (False, True):
            kept = inside & (rim == at_rim)
            self._sums[half, at_rim].add(flat[kept], places[kept])

    def r2(self) -> dict[str, list[float]] | None:
        """R² in x and in y over the cells at the border and over those of the interior; at most 1.

        A value below 0 is worse than the zone's mean. None without images in both halves, or where a zone has
        no cells or a coordinate that does not vary.
        """
        wrong = {False: torch.zeros(2).double(), True: torch.zeros(2).double()}
        spread = {False: torch.zeros(2).double(), True: torch.zeros(2).double()}
        if any(not sums.count for sums in self._sums.values()):
            return None
        for half in (0, 1):
            fitted = self._sums[1 - half, False] + self._sums[1 - half, True]
            weight, bias = _fit(fitted)
            for rim in (False, True):
                wrong[rim] += self._sums[half, rim].errors(weight, bias)
                spread[rim] += self._sums[half, rim].spread()
        if any((one <= 0).any() for one in spread.values()):
            return None
        zones = {"border": True, "interior": False}
        return {name: (1 - wrong[rim] / spread[rim]).tolist() for name, rim in zones.items()}


def _fit(sums: _Moments) -> tuple[Float[Tensor, "c 2"], Float[Tensor, "2"]]:
    mean, middle = sums.features / sums.count, sums.places / sums.count
    covariance = sums.gram / sums.count - mean[:, None] * mean
    met = sums.cross / sums.count - mean[:, None] * middle
    variance = covariance.diagonal()
    # A channel that does not vary is left out.
    varies = variance > 1e-12 * mean.square().clamp_min(1e-24)
    scale = torch.where(varies, torch.where(varies, variance, 1.0).rsqrt(), 0.0)
    regular = covariance * scale[:, None] * scale + _RIDGE * torch.eye(len(scale)).double()
    weight = torch.linalg.solve(regular, met * scale[:, None]) * scale[:, None]
    return weight, middle - mean @ weight


def _places(
    cells: Cells, image: tuple[int, int]
) -> tuple[Float[Tensor, "n 2"], Bool[Tensor, " n"], Bool[Tensor, " n"]]:
    """x and y of each cell, 0 to 1 over the image; whether it lies on the image; whether at its border."""
    down, right = (
        _along(line, pixels)
        for line, pixels in zip((cells.rows, cells.columns), image, strict=True)
    )
    shape = (len(down[0]), len(right[0]))
    y, x = down[0][:, None].expand(shape), right[0].expand(shape)
    inside = down[1][:, None] & right[1]
    rim = down[2][:, None] | right[2]
    return torch.stack([x, y], -1).flatten(0, 1), inside.flatten(), rim.flatten()


def _along(line: Line, pixels: int) -> tuple[Tensor, Tensor, Tensor]:
    centres = line.centres().double()
    inside = centres <= pixels - 1 + _ROUNDING
    count = int(inside.sum())
    width = max(round(count / RIM), 1)
    order = torch.arange(len(centres))
    rim = (order < width) | (order >= count - width)
    return centres / max(pixels - 1, 1), inside, rim
