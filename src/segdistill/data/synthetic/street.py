"""Draws a random street and its labels; `Synthetic` makes a data set of it."""

import torch
from jaxtyping import UInt8
from torch import Tensor

from segdistill.data.label_map import IGNORED
from segdistill.data.synthetic.dice import Dice
from segdistill.data.synthetic.light import lit
from segdistill.data.synthetic.objects import draw_bonnet, draw_objects
from segdistill.data.synthetic.paints import CLASSES
from segdistill.data.synthetic.surroundings import draw_frontage, draw_ground, draw_sky
from segdistill.data.synthetic.view import View

__all__ = ["CLASSES", "draw_street"]


def draw_street(
    size: tuple[int, int], generator: torch.Generator
) -> tuple[UInt8[Tensor, "3 h w"], UInt8[Tensor, "h w"]]:
    """A street scene and its labels: class numbers, and 255 where the camera's car is visible.

    Args:
        size: Height and width in pixels.
        generator: Source of randomness; the scene depends only on it and the size.
    """
    dice = Dice(generator)
    view = View(size, dice)
    draw_sky(view, dice)
    draw_ground(view, dice)
    for side in (-1, 1):
        draw_frontage(view, dice, side)
    draw_objects(view, dice)
    if dice.chance(0.3):
        draw_bonnet(view, dice, IGNORED)
    image, label, shade = view.pixels()
    return lit(image, label, shade, dice), label
