"""Two small networks with the attributes that a distiller reads."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Tiny(nn.Module):
    """Stem, features, classifier; an auxiliary head that runs in training or when it is tapped."""

    align_corners = False
    multiple_of = 1

    def __init__(self, width: int, num_classes: int = 3, stride: int = 4, aux: bool = True) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.stem = nn.Conv2d(3, width, 3, stride=stride, padding=1)
        self.aux = nn.Conv2d(width, num_classes, 1)
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width))
        self.head = nn.Conv2d(width, num_classes, 1)
        self.taps = {"logits": "head", "features": "body"}
        if aux:
            self.taps["aux"] = "aux"

    def forward(self, images: Tensor) -> Tensor:
        stem = F.relu(self.stem(images))
        if self.training or self.aux._forward_hooks:
            self.aux(stem)
        return self.head(F.relu(self.body(stem)))


def batch(size: tuple[int, int] = (32, 40), images: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.rand(images, 3, *size, generator=generator),
        torch.randint(0, 3, (images, *size), generator=generator),
    )
