"""Lighting of a drawn scene: shadow, texture, uneven light, soft edges and noise."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from segdistill.data.synthetic.dice import Dice
from segdistill.data.synthetic.paints import CLASSES, FENCE, GRASS, PAVEMENT, ROAD, SKY, TREE

# Standard deviation of the coarse and the fine texture of a surface, as a fraction of its light.
_ROUGHNESS = {SKY: (0.02, 0.0), TREE: (0.10, 0.14), GRASS: (0.05, 0.08), FENCE: (0.03, 0.05)}
_SMOOTH = (0.03, 0.02)


def lit(
    image: UInt8[Tensor, "h w 3"],
    label: UInt8[Tensor, "h w"],
    shade: UInt8[Tensor, "h w"],
    dice: Dice,
) -> UInt8[Tensor, "3 h w"]:
    """Colours as the camera records them.

    Args:
        image: Colours as painted.
        label: Class numbers, which decide the texture and whether shadows fall.
        shade: Light on the ground, 255 where there is no shadow.
        dice: Source of randomness.
    """
    height, width = size = (label.shape[0], label.shape[1])
    rough, grainy, shady = _SURFACE.index_select(1, label.flatten().int()).view(3, *size)
    light = 1 - shady * (1 - softened(shade.float() / 255))
    for weight, lump in ((rough, 0.06), (grainy, 0.02)):
        light += weight * _noise(size, max(2, round(lump * height)), dice.generator)
    across = torch.linspace(-1, 1, width) * dice.uniform(-0.25, 0.25)
    down = torch.linspace(-1, 1, height) * dice.uniform(-0.15, 0.15)
    light *= dice.uniform(0.65, 1.2) * (1 + across[None, :] + down[:, None])
    tint = torch.tensor([dice.uniform(0.92, 1.08) for _ in range(3)])[:, None, None]
    taken = softened(image.permute(2, 0, 1) * (light / 255) * tint)
    grain = dice.uniform(0.01, 0.035)
    taken += grain * torch.randn(taken.shape, generator=dice.generator)
    return taken.clamp_(0, 1).mul_(255).round_().to(torch.uint8)


def softened(image: Float[Tensor, "*c h w"]) -> Float[Tensor, "*c h w"]:
    """Softer edges, in place: half of each pixel goes to its neighbours, down, then across."""
    for axis in (-2, -1):
        inner = image.shape[axis] - 2
        around = image.narrow(axis, 0, inner) + image.narrow(axis, 2, inner)
        image.narrow(axis, 1, inner).lerp_(around.mul_(0.5), 0.5)
    return image


def _noise(size: tuple[int, int], lump: int, generator: torch.Generator) -> Float[Tensor, "h w"]:
    """Smooth noise of about unit variance with lumps of `lump` pixels."""
    grid = (1, 1, size[0] // lump + 2, size[1] // lump + 2)
    noise = torch.randn(grid, generator=generator)
    return interpolate(noise, size=size, mode="bilinear", align_corners=True)[0, 0] * 1.5


def _surfaces() -> Float[Tensor, "3 256"]:
    """By label: coarse texture, fine texture, and whether shadows fall on it. 255 has none."""
    table = torch.zeros(3, 256)
    for label in range(len(CLASSES)):
        table[:2, label] = torch.tensor(_ROUGHNESS.get(label, _SMOOTH))
    table[2, [ROAD, PAVEMENT, GRASS]] = 1
    return table


_SURFACE = _surfaces()
