"""Unit vectors with a finite gradient everywhere: used by losses that compare angles."""

import torch
from jaxtyping import Float
from torch import Tensor


def unit_vectors(vectors: Float[Tensor, "b c *n"], eps: float = 1e-6) -> Float[Tensor, "b c *n"]:
    """Divide each vector along the channels by its length; one shorter than `eps` becomes zero.

    A zero vector has no direction. Dividing it by a small constant, as `F.normalize` does, gives
    a gradient of the size of that constant's inverse (1e12), which no half type can hold; here it
    gets none.
    """
    length = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    long = length > eps
    # The inner `where` keeps the division finite in the branch that is thrown away.
    return torch.where(long, vectors / torch.where(long, length, 1.0), 0.0)
