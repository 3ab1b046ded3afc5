"""First and second moments of feature maps, and a basis in which all channels vary alike."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def feature_moments(
    maps: Sequence[Float[Tensor, "b c h w"]],
) -> tuple[Float[Tensor, " c"], Float[Tensor, "c c"]]:
    """Mean and covariance of the channels over all images and positions of several batches.

    Both are float64, on the device of the maps where it has float64.
    """
    # Apple's GPUs have no float64.
    kind = torch.float32 if maps[0].device.type == "mps" else torch.float64
    rows = [one.transpose(0, 1).flatten(1).to(kind) for one in maps]
    count = sum(one.shape[1] for one in rows)
    mean = torch.stack([one.sum(1) for one in rows]).sum(0) / count
    centred = [one - mean[:, None] for one in rows]
    return mean, torch.stack([one @ one.T for one in centred]).sum(0) / count


def balanced_basis(covariance: Float[Tensor, "c c"]) -> Float[Tensor, "c c"]:
    """The rotation Q = H Uᵀ after which every channel has the same variance.

    U holds the eigenvectors of the covariance. H is an orthonormal Hadamard matrix where Sylvester's
    construction has one (powers of two), otherwise `equalising_rotation` of the eigenvalues.

    Example:
        >>> q = balanced_basis(torch.diag(torch.tensor([4.0, 1.0, 1.0])))
        >>> (q @ torch.diag(torch.tensor([4.0, 1.0, 1.0]).double()) @ q.T).diagonal().round().tolist()
        [2.0, 2.0, 2.0]
    """
    kind = covariance.dtype if covariance.device.type == "mps" else torch.float64
    values, vectors = torch.linalg.eigh(covariance.to(kind).cpu())
    power_of_two = len(values) & (len(values) - 1) == 0
    mixed = (
        hadamard(len(values), kind) if power_of_two else equalising_rotation(values.clamp_min(0))
    )
    basis: Tensor = mixed @ vectors.T
    return basis.to(covariance.device)


def hadamard(width: int, kind: torch.dtype = torch.float64) -> Float[Tensor, "c c"]:
    """Sylvester's Hadamard matrix of a power of two, divided by √width so that it is orthonormal."""
    matrix = torch.ones(1, 1, dtype=kind)
    while len(matrix) < width:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    orthonormal: Tensor = matrix / width**0.5
    return orthonormal


def equalising_rotation(variances: Float[Tensor, " c"]) -> Float[Tensor, "c c"]:
    """A rotation after which uncorrelated channels of these variances all have the mean variance.

    One plane rotation per channel gives it the mean and leaves the rest to another, which goes on to
    a channel on the other side of the mean (the constructive proof of the Schur-Horn theorem; Bendel
    and Mickey, 1978). The channels that are still open stay uncorrelated.
    """
    mean, left = float(variances.mean()), variances.tolist()
    rotation = torch.eye(len(left), dtype=variances.dtype)
    ascending = variances.argsort().tolist()
    carrier = ascending.pop(0)
    while ascending:
        other = ascending.pop(-1 if left[carrier] <= mean else 0)
        spread = left[other] - left[carrier]
        # sin² of the angle; rounding may push the last one past the ends.
        part = min(max((mean - left[carrier]) / spread, 0.0), 1.0) if spread else 0.0
        cosine, sine = (1 - part) ** 0.5, part**0.5
        closed = cosine * rotation[carrier] + sine * rotation[other]
        rotation[other] = cosine * rotation[other] - sine * rotation[carrier]
        rotation[carrier] = closed
        left[other] += left[carrier] - mean
        carrier = other
    return rotation
