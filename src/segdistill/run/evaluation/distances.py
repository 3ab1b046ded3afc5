"""Distances between classes in a network's feature space, averaged over a labelled data set.

The inter-class loss compares these distances per image; here the tokens are means over all images, so
that networks can be compared.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from segdistill.data.samples import Indexed, read_sample
from segdistill.distillation.taps import Taps
from segdistill.geometry import Cells, labels_at, tap_cells
from segdistill.labels import IGNORED
from segdistill.names import unknown
from segdistill.run.evaluation.protocol import (
    Protocol,
    Size,
    evaluating,
    multiple_of,
    padded,
)
from segdistill.run.evaluation.showing import shown


@dataclass(frozen=True)
class ClassStatistics:
    """Sums over the feature cells of each class in a whole data set, in float64."""

    cells: Float[Tensor, "k"]
    """number of cells of the class"""
    sums: Float[Tensor, "k c"]
    """sum of their features"""
    squares: Float[Tensor, "k"]
    """sum of their features' squared norms"""

    def tokens(self) -> Float[Tensor, "k c"]:
        """Mean feature of each class; zero for a class without cells."""
        return self.sums / self.cells.clamp(min=1)[:, None]

    def distances(self, min_pixels: int = 16) -> np.ndarray:
        """Euclidean distances between class tokens, k by k.

        Args:
            min_pixels: Classes with fewer feature cells are blank (NaN), since noise alone puts the
                mean of a few cells far from all others.
        """
        tokens = self.tokens()
        # Not the matrix-product form, which is inaccurate for small distances of large tokens.
        table = torch.cdist(tokens, tokens, compute_mode="donot_use_mm_for_euclid_dist")
        rare = self.cells < max(min_pixels, 1)
        table[rare] = torch.nan
        table[:, rare] = torch.nan
        result: np.ndarray = table.numpy()
        return result

    def within_between(self, min_pixels: int = 16) -> float | None:
        """Variance within classes divided by variance between them, weighted by cells; lower is tighter.

        With n_c cells, mean μ_c and overall mean μ: Σ_c Σ_p |f_p − μ_c|² / Σ_c n_c |μ_c − μ|². None
        if fewer than two classes have `min_pixels` cells, or if their tokens coincide.
        """
        kept = self.cells >= max(min_pixels, 1)
        cells, tokens = self.cells[kept], self.tokens()[kept]
        if len(cells) < 2:
            return None
        centre = (cells[:, None] * tokens).sum(0) / cells.sum()
        between = float((cells * (tokens - centre).square().sum(1)).sum())
        within = float((self.squares[kept] - cells * tokens.square().sum(1)).clamp(min=0).sum())
        return within / between if between > 0 else None


def read_tap(
    model: nn.Module, images: Float[Tensor, "b c h w"], name: str
) -> Float[Tensor, "b d i j"]:
    """Run the network and return the tensor at one of its taps.

    Raises:
        ValueError: The network has no such tap; the message names the nearest.
    """
    paths = getattr(model, "taps", {})
    if name not in paths:
        raise ValueError(unknown("tap", name, paths))
    with Taps(model, {name: paths[name]}) as taps:
        model(images)
        return taps.collect()[name]


def class_statistics(
    model: nn.Module,
    dataset: Indexed,
    tap: str = "features",
    *,
    num_classes: int | None = None,
    protocol: Protocol | None = None,
    limit: int | None = None,
    device: str | torch.device = "cpu",
) -> ClassStatistics:
    """Compute the class statistics of a tapped feature map over a labelled data set, image by image.

    Labels are read at the cells' centres, where the network says that they lie, as the inter-class
    loss does by default.

    Args:
        model: Network with the model contract.
        dataset: Samples {"image": RGB `3 h w` in 0..1, "label": class ids `h w`, 255 ignored}, or
            pairs of these.
        tap: Name of the tap.
        num_classes: Number of classes; None: the data set's.
        protocol: How images are shown; only its `size` is used. None: not resized.
        limit: Number of images to use, from the first; None: all.
        device: Device to run on; the network is moved there.

    Raises:
        ValueError: The network has no such tap, the data set is empty, or the number of classes is
            unknown.
    """
    k = num_classes or getattr(dataset, "num_classes", None) or getattr(model, "num_classes", None)
    if k is None:
        raise ValueError("the number of classes of the data set is unknown. Pass num_classes")
    found: ClassStatistics | None = None
    for one in mapped(model, dataset, tap, protocol=protocol, limit=limit, device=device):
        found = with_cells(found, one, int(k))
    if found is None:
        raise ValueError("the data set is empty; expected at least one image")
    return found


@dataclass(frozen=True)
class Mapped:
    """One image's features in float64, and where they lie on it."""

    features: Float[Tensor, "c h w"]
    cells: Cells
    labels: Int64[Tensor, "h w"]
    """class ids at the cells' centres, 255 where there is none"""
    image: Size
    """rows and columns of the image as it was shown, without padding"""


def mapped(
    model: nn.Module,
    dataset: Indexed,
    tap: str,
    *,
    protocol: Protocol | None = None,
    limit: int | None = None,
    device: str | torch.device = "cpu",
) -> Iterator[Mapped]:
    """The tapped features of each image of a labelled set; the arguments are those of `class_statistics`."""
    model.to(device)
    protocol = protocol or Protocol()
    length = len(dataset)  # type: ignore[arg-type]
    for index in range(length if limit is None else min(limit, length)):
        image, label, _ = read_sample(dataset, index)
        # Entered for each image: whoever iterates may run other networks in between.
        with evaluating(model):
            images = shown(image.to(device), protocol, multiple_of(model))
            features = read_tap(model, images, tap)[0].double().cpu()
        labels = labels_for(label.long(), protocol.size, multiple_of(model))
        grid = (features.shape[-2], features.shape[-1])
        cells = tap_cells(model, tap, grid, (images.shape[-2], images.shape[-1]))
        own = protocol.size or (label.shape[-2], label.shape[-1])
        yield Mapped(features, cells, labels_at(labels, cells)[0], own)


def class_distances(
    model: nn.Module,
    dataset: Indexed,
    tap: str = "features",
    *,
    min_pixels: int = 16,
    **options: Any,
) -> np.ndarray:
    """Euclidean distances between the class tokens of a network over a labelled set, k by k.

    Args:
        min_pixels: Classes with fewer cells of the feature map are blank (NaN).
        model, dataset, tap, options: See `class_statistics`.
    """
    return class_statistics(model, dataset, tap, **options).distances(min_pixels)


def edges(distances: np.ndarray) -> np.ndarray:
    """The pairs i < j of a distance matrix as a vector, NaN where one of the classes is blank."""
    result: np.ndarray = distances[np.triu_indices(len(distances), 1)]
    return result


def mean_edge(distances: np.ndarray) -> float | None:
    """Mean over the known pairs; None if there are none."""
    known = edges(distances)
    known = known[np.isfinite(known)]
    return float(known.mean()) if len(known) else None


def normalised(distances: np.ndarray) -> np.ndarray:
    """Distances divided by their mean, so that networks of any width share one scale."""
    centre = mean_edge(distances)
    return distances / centre if centre else distances


def edge_correlation(one: np.ndarray, other: np.ndarray) -> float | None:
    """Pearson correlation of two networks' edges over the pairs known to both.

    None for fewer than three pairs, for which it is always ±1, and for constant edges.
    """
    first, second = edges(one), edges(other)
    both = np.isfinite(first) & np.isfinite(second)
    first, second = first[both], second[both]
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def labels_for(
    label: Int64[Tensor, "h w"], size: Size | None, multiple: int
) -> Int64[Tensor, "1 H W"]:
    """Labels on the grid of an image from `shown`: resized (nearest centre), padded with 255."""
    labels = label[None]
    height, width = size or (labels.shape[-2], labels.shape[-1])
    if labels.shape[-2:] != (height, width):
        numbers = labels[:, None].double()
        labels = F.interpolate(numbers, (height, width), mode="nearest-exact")[:, 0].long()
    bottom, right = (
        to - at for to, at in zip(padded((height, width), multiple), (height, width), strict=True)
    )
    return F.pad(labels, (0, right, 0, bottom), value=IGNORED)


def with_cells(found: ClassStatistics | None, one: Mapped, k: int) -> ClassStatistics:
    """The sums with the labelled cells of one more image; `found` is None before the first."""
    labels = one.labels.flatten()
    cells = one.features.flatten(1).T[labels != IGNORED]
    labels = labels[labels != IGNORED]
    if found is None:
        zeros = torch.zeros(k, dtype=torch.float64)
        found = ClassStatistics(zeros, zeros[:, None].repeat(1, cells.shape[1]), zeros.clone())
    return ClassStatistics(
        found.cells + torch.bincount(labels, minlength=k),
        found.sums.index_add(0, labels, cells),
        found.squares.index_add(0, labels, cells.square().sum(1)),
    )
