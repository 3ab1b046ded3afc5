"""The pictures being drawn, and the camera that views the scene.

A pinhole camera stands a few metres above a flat street and looks along it. A point on the ground
is given by its nearness, 1 at the lower edge of the picture and 0 at the horizon, and by its
distance across, in metres to the right of the middle of the road. A metre at nearness n spans
`metre * n` pixels, across as well as upwards. All lengths scale with the picture, so a scene
looks the same at any size.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from segdistill.data.synthetic.dice import Dice
from segdistill.data.synthetic.paints import Colour, mixed

Point = tuple[float, float]


class View:
    """Camera, street plan, and the three pictures: colours, labels and shadows."""

    def __init__(self, size: tuple[int, int], dice: Dice) -> None:
        self.height, self.width = size
        self.horizon = self.height * dice.uniform(0.30, 0.48)
        self.middle = self.width * dice.uniform(0.25, 0.75)
        self.metre = (self.height - self.horizon) / dice.uniform(1.7, 2.6)
        self.offset = dice.uniform(-2.0, 2.0)
        self.road = dice.uniform(2.6, 5.0)
        """Half the width of the road, in metres."""
        self.left, self.right = (-self.road - dice.uniform(1.6, 4.5) for _ in range(2))
        self.right = -self.right
        """Where the pavements end and the houses begin."""
        self.haze = dice.uniform(0.0, 0.7)
        self.air: Colour = (200, 205, 210)
        self._images = [Image.new(mode, (self.width, self.height)) for mode in ("RGB", "L", "L")]
        self._colour, self._label, self._shade = map(ImageDraw.Draw, self._images)
        self._shade.rectangle((0, 0, self.width, self.height), fill=255)

    def ground(self, across: float, near: float) -> Point:
        """Where a point on the ground appears."""
        x = self.middle + (across - self.offset) * self.metre * near
        return x, self.horizon + (self.height - self.horizon) * near

    def wall(self, across: float, far: float, near: float) -> Callable[[float, float], Point]:
        """Points on an upright wall along the street: 0..1 from far to near, height in metres."""
        start, length = 1 / far, 1 / near - 1 / far

        def at(along: float, up: float) -> Point:
            # Even steps along a wall are even steps in distance, not in nearness.
            nearness = 1 / (start + length * along)
            x, y = self.ground(across, nearness)
            return x, y - up * self.metre * nearness

        return at

    def hazy(self, colour: Sequence[float], near: float) -> Colour:
        """A colour seen through haze."""
        return mixed(colour, self.air, self.haze * max(0.0, 1.0 - 2.5 * near))

    def polygon(self, points: Sequence[Point], colour: Colour | None, label: int | None) -> None:
        """A filled polygon; label None leaves the labels unchanged, colour None the picture."""
        if colour is not None:
            self._colour.polygon(points, fill=colour)
        if label is not None:
            self._label.polygon(points, fill=label)

    def box(
        self, x: float, y: float, width: float, height: float, colour: Colour, label: int | None
    ) -> None:
        """A filled upright rectangle standing on (x, y), at least a pixel wide and high."""
        left, top = x - width / 2, y - height
        corners = (left, top, max(left, x + width / 2 - 1), max(top, y - 1))
        self._colour.rectangle(corners, fill=colour)
        if label is not None:
            self._label.rectangle(corners, fill=label)

    def oval(
        self, x: float, y: float, across: float, down: float, colour: Colour, label: int | None
    ) -> None:
        """A filled ellipse about (x, y) with the given half axes."""
        corners = (x - across, y - down, x + across, y + down)
        self._colour.ellipse(corners, fill=colour)
        if label is not None:
            self._label.ellipse(corners, fill=label)

    def strip(self, left: float, right: float, colour: Colour, label: int | None) -> None:
        """A strip of ground that runs along the street to the horizon."""
        corners = (left, 0.0), (right, 0.0), (right, 1.05), (left, 1.05)
        self.polygon([self.ground(*corner) for corner in corners], colour, label)

    def patch(
        self, left: float, right: float, far: float, near: float, colour: Colour | None
    ) -> None:
        """A four-sided piece of ground painted over; without a colour it lies in shadow."""
        corners = (left, far), (right, far), (right, near), (left, near)
        points = [self.ground(*corner) for corner in corners]
        if colour is None:
            self._shade.polygon(points, fill=140)
        else:
            self._colour.polygon(points, fill=colour)

    def shadow(self, x: float, y: float, half: float) -> None:
        """The flat shadow of an object that stands on the ground at (x, y)."""
        self._shade.ellipse((x - half, y - half / 4, x + half, y + half / 4), fill=120)

    def pixels(self) -> tuple[UInt8[Tensor, "h w 3"], UInt8[Tensor, "h w"], UInt8[Tensor, "h w"]]:
        """Colours, labels, and the light on the ground (255 where there is no shadow)."""
        image, label, shade = (
            torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
            for picture in self._images
        )
        size = (self.height, self.width)
        return image.view(*size, 3), label.view(size), shade.view(size)


def nearness(distance: float) -> float:
    """Nearness of an object about this many metres beyond the lower edge of the picture."""
    return 1 / (1 + 0.4 * distance)
