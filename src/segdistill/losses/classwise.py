"""Labels on a feature grid, and what each class looks like there: counts, sums and mean features.

Used by the losses that compare classes. Nothing loops over classes: the features are multiplied
once by the one-hot labels of the classes that occur in the batch.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from segdistill.geometry import Cells, labels_at
from segdistill.labels import IGNORED
from segdistill.losses.base import alternatives

_INDEX = ("stride", "legacy")


def sample_labels(
    labels: Int64[Tensor, "b hl wl"],
    size: tuple[int, int],
    index: str = "stride",
    cells: Cells | None = None,
) -> Int64[Tensor, "b h w"]:
    """Labels at the cells of a feature grid, by nearest neighbour.

    Args:
        labels: ids at the size of the label images.
        size: height and width of the grid.
        index: how they are read where nobody says where the cells lie. `stride` reads cell i at
            pixel `stride · i` (clipped), where a network of odd kernels centres it; see
            `Cells.by_stride`. `legacy` reads at `floor(i · pixels / cells)`, the old nearest
            neighbour of PyTorch, as the released codes of IFVD and CIRKD do: at 512 pixels and 65
            cells it is up to one cell off.
        cells: where the cells of the grid lie, if it is known: each is read at its centre.

    Raises:
        ValueError: for an unknown index.
    """
    if index not in _INDEX:
        raise ValueError(f"index is {index!r}; expected {alternatives(_INDEX)}")
    if cells is not None or index == "stride":
        image = (labels.shape[1], labels.shape[2])
        return labels_at(labels, cells or Cells.by_stride(size, image))
    row, column = (
        _legacy_index(pixels, count, labels.device)
        for pixels, count in zip(labels.shape[1:], size, strict=True)
    )
    sampled: Tensor = labels[:, row[:, None], column]
    return sampled


def present_classes(labels: Int64[Tensor, "b h w"]) -> Int64[Tensor, " k"]:
    """Ids that occur in the batch, in ascending order, without 255."""
    ids: Tensor = torch.unique(labels)
    present: Tensor = ids[ids != IGNORED]
    return present


def one_hot(labels: Int64[Tensor, "b h w"], classes: Int64[Tensor, " k"]) -> Bool[Tensor, "b k p"]:
    """True where position p of an image is of class k."""
    return labels.flatten(1)[:, None] == classes[:, None]


def class_sums(
    features: Float[Tensor, "b c h w"], members: Bool[Tensor, "b k p"]
) -> tuple[Float[Tensor, "b k c"], Float[Tensor, "b k"]]:
    """Sum of the features of each class of an image, and its number of positions."""
    mask = members.to(features)
    return mask @ features.flatten(2).transpose(1, 2), mask.sum(2)


def class_tokens(
    features: Float[Tensor, "b c h w"],
    labels: Int64[Tensor, "b h w"],
    classes: Int64[Tensor, " k"],
) -> tuple[Float[Tensor, "b k c"], Float[Tensor, "b k"]]:
    """Mean feature of each class of an image, its token, and the number of positions behind it.

    The token of a class that the image does not show is zero, with a count of zero.

    Example:
        >>> features, labels = torch.tensor([[[[1.0, 3.0, 10.0]]]]), torch.tensor([[[0, 0, 7]]])
        >>> tokens, counts = class_tokens(features, labels, torch.tensor([0, 7]))
        >>> tokens.flatten().tolist(), counts.flatten().tolist()
        ([2.0, 10.0], [2.0, 1.0])
    """
    sums, counts = class_sums(features, one_hot(labels, classes))
    return sums / counts.clamp_min(1)[..., None], counts


def _legacy_index(pixels: int, cells: int, device: torch.device) -> Int64[Tensor, " cells"]:
    # PyTorch itself, so that its float32 rounding of the ratio is shared as well.
    line = torch.arange(pixels, dtype=torch.float32, device=device)
    return F.interpolate(line[None, None], size=cells, mode="nearest")[0, 0].long()
