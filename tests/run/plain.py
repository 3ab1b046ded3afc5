"""Networks without batch norm: one to train, and one that needs no training."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.data.files import save_mask


class NoNorm(nn.Module):
    """A network whose gradient does not depend on how a batch is split."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.head = nn.Conv2d(8, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(F.relu(self.body(images)))


COLOURS = torch.tensor([[0.9, 0.5, 0.1], [0.2, 0.2, 0.2], [0.6, 0.7, 0.9]])


class ByColour(nn.Module):
    """Predicts the nearest of three colours: a teacher that needs no training.

    Args:
        num_classes: Three.
        order: The colour that each of its classes stands for.
        bgr: Whether it was made for BGR.
        scale: Largest value of the images that it was made for.
    """

    def __init__(
        self,
        num_classes: int = 3,
        order: tuple[int, ...] = (0, 1, 2),
        bgr: bool = False,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 3, 1, bias=False)
        self.head = nn.Conv2d(3, num_classes, 1)
        colours = COLOURS[list(order)]
        with torch.no_grad():
            eye = torch.eye(3).flip(0) if bgr else torch.eye(3)
            self.body.weight.copy_(eye[:, :, None, None] / scale)
            self.head.weight.copy_(20 * colours[:, :, None, None])
            self.head.bias.copy_(-10 * colours.square().sum(1))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))


def write_scenes(folder: Path) -> Path:
    """Three pictures to train on and four to evaluate on, in `COLOURS`; the ids are 10, 20, 30."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 4)):
        for i in range(count):
            label = generator.integers(0, 3, (4, 6)).repeat(6, 0).repeat(6, 1)
            picture = (255 * COLOURS.numpy()[label]).astype(np.uint8)
            save_mask(folder / split / "images" / f"{i}.png", picture)
            save_mask(folder / split / "masks" / f"{i}.png", (10 * label + 10).astype(np.uint8))
    return folder


def teacher_in(folder: Path, **made: Any) -> dict[str, Any]:
    """A teacher of a recipe, built in a way that the recipe does not describe."""
    save_file(ByColour(**made).state_dict(), folder / "teacher.safetensors")
    return {"model": "tests.run.plain.ByColour", "weights": str(folder / "teacher.safetensors")}
