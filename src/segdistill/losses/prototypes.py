"""Class prototypes: running means of each class's features, over the batches of a training."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from segdistill.losses.classwise import class_sums


class Prototypes(nn.Module):
    """The mean feature of each class, moved at each batch towards that of the batch.

    A class that a batch shows for the first time takes the batch's mean as it is. One that a batch does not
    show keeps what it has, so that later batches can be compared with classes that they lack. No
    gradient reaches a prototype. Values and marks are buffers: they are saved and resumed with the loss.

    Args:
        num_classes: classes of the task, k.
        width: channels of the features.
        momentum: share that a prototype keeps of itself at each batch which shows its class, 0 to below 1.
    """

    values: Tensor
    known: Tensor

    def __init__(self, num_classes: int, width: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("values", torch.zeros(num_classes, width))
        self.register_buffer("known", torch.zeros(num_classes, dtype=torch.bool))

    @torch.no_grad()
    def forward(
        self, features: Float[Tensor, "b c h w"], members: Bool[Tensor, "b k p"]
    ) -> tuple[Float[Tensor, "k c"], Bool[Tensor, " k"]]:
        """The prototypes after this batch, in the features' type, and which of them exist.

        They are kept in training mode only.

        Args:
            features: of the batch.
            members: which class each position belongs to.
        """
        sums, counts = class_sums(features, members)
        cells = counts.sum(0)
        means = sums.sum(0) / cells.clamp_min(1)[:, None]
        shown = cells > 0
        old = self.values.to(means)
        moved = torch.where(self.known[:, None], old.lerp(means, 1 - self.momentum), means)
        values = torch.where(shown[:, None], moved, old)
        known = self.known | shown
        if self.training:
            self.values.copy_(values)
            self.known.copy_(known)
        return values, known
