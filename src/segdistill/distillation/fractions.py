"""A batch that is computed in parts: how much the value of each part counts in that of the whole."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor


def fractions(
    parts: Sequence[Mapping[str, Tensor | None]], over_processes: Callable[[Tensor], Tensor]
) -> list[dict[str, Tensor]]:
    """Each part's share of every term's denominator.

    A term's value of the whole batch is the sum of its parts' values times these, since a value is a
    sum over what the term counts (labelled pixels, images, ..) divided by the number of those.

    Args:
        parts: For each part of this process, term name -> its denominator; None for a sum, which is
            divided by nothing.
        over_processes: Sums a tensor over all processes, elementwise.

    Returns:
        For each part, term name -> its fraction, in 0..1; a sum has none, since its parts add up.
    """
    counted = [{n: d for n, d in part.items() if d is not None} for part in parts]
    if not counted[0]:
        return [{} for _ in parts]
    own = torch.stack([torch.stack([_precise(d) for d in part.values()]) for part in counted])
    whole = over_processes(own.sum(0))
    # Where no part has anything to count, every value is 0.
    shares = own / torch.where(whole > 0, whole, 1.0)
    return [dict(zip(counted[0], row, strict=True)) for row in shares]


def weighed(values: Mapping[str, Tensor], fraction: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The values of a part as they count in the whole batch; a term without a fraction is left whole."""
    return {
        name: value * fraction[name].to(value) if name in fraction else value
        for name, value in values.items()
    }


def _precise(denominator: Tensor) -> Tensor:
    # A float32 cannot count the pixels of a large batch. Apple's GPUs have no float64.
    kind = torch.float32 if denominator.device.type == "mps" else torch.float64
    return denominator.detach().to(kind)
