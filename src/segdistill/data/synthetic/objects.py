"""The objects on a street: poles, signs, trees, cars, people."""

from collections.abc import Callable

from segdistill.data.synthetic.dice import Dice
from segdistill.data.synthetic.paints import (
    CAR,
    PAINTS,
    PERSON,
    POLE,
    SIGN,
    TREE,
    Colour,
    darker,
    paint,
)
from segdistill.data.synthetic.view import Point, View, nearness

Draw = Callable[[View, Dice, float, float], None]
"""Draws an object at a distance across the street and a nearness."""

_SKIN = ((226, 184, 156), (150, 104, 78), (92, 62, 48))
_GLASS = ((40, 44, 52), (140, 170, 196))
_LAMPS = ((224, 60, 50), (230, 180, 60), (70, 200, 110))


def draw_objects(view: View, dice: Dice) -> None:
    """All free-standing objects, from far to near, so that near ones hide far ones."""

    def on_pavement() -> float:
        side = dice.side()
        end = abs(view.left) if side < 0 else view.right
        return side * dice.uniform(view.road + 0.3, end - 0.2)

    def on_kerb() -> float:
        return dice.side() * (view.road + dice.uniform(0.2, 0.7))

    def on_road() -> float:
        return dice.uniform(-0.85, 0.85) * (view.road - 0.9)

    # Smallest and largest number, nearest and farthest distance.
    plan: tuple[tuple[Draw, Callable[[], float], tuple[int, int], tuple[float, float]], ...] = (
        (_draw_pole, on_kerb, (2, 4), (1.8, 8.0)),
        (_draw_signpost, on_kerb, (1, 4), (1.6, 6.0)),
        (draw_tree, on_pavement, (0, 3), (3.0, 12.0)),
        (_draw_car, on_road, (1, 4), (1.2, 10.0)),
        (_draw_person, on_pavement, (1, 4), (1.0, 5.5)),
        (_draw_person, on_road, (0, 2), (1.2, 6.0)),
    )
    objects: list[tuple[float, float, Draw]] = []
    for draw, where, count, reach in plan:
        for _ in range(dice.number(*count)):
            objects.append((nearness(dice.uniform(*reach)), where(), draw))
    for near, across, draw in sorted(objects, key=lambda item: item[0]):
        draw(view, dice, across, near)


def _draw_pole(view: View, dice: Dice, across: float, near: float) -> None:
    (x, y), metre = view.ground(across, near), view.metre * near
    colour, tall = view.hazy(paint(dice, POLE), near), dice.uniform(3.5, 7.0) * metre
    width = max(view.height / 48, dice.uniform(0.18, 0.36) * metre)
    view.box(x, y, width, tall, colour, POLE)
    if dice.chance(0.5):
        arm = dice.side() * dice.uniform(0.6, 1.6) * metre
        view.box(x + arm / 2, y - tall + width, abs(arm), width, colour, POLE)


def _draw_signpost(view: View, dice: Dice, across: float, near: float) -> None:
    (x, y), metre = view.ground(across, near), view.metre * near
    tall = dice.uniform(1.9, 3.0) * metre
    post = view.hazy(paint(dice, POLE), near)
    view.box(x, y, max(view.height / 60, 0.14 * metre), tall, post, POLE)
    half = max(view.height / 40, dice.uniform(0.45, 0.75) * metre)
    face, inner = (view.hazy(paint(dice, SIGN), near) for _ in range(2))
    draw = dice.choice((_draw_disc, _draw_triangle, _draw_board, _draw_lights))
    draw(view, dice, x, y - tall, half, face, inner)


def _draw_disc(
    view: View, dice: Dice, x: float, y: float, half: float, face: Colour, inner: Colour
) -> None:
    view.oval(x, y, half, half, face, SIGN)
    view.oval(x, y, half * 0.55, half * 0.55, inner, None)


def _draw_triangle(
    view: View, dice: Dice, x: float, y: float, half: float, face: Colour, inner: Colour
) -> None:
    up = dice.side()
    for size, colour, label in ((1.1 * half, face, SIGN), (0.5 * half, inner, None)):
        corners = ((-1.0, 0.8), (1.0, 0.8), (0.0, -1.0))
        view.polygon([(x + size * u, y + up * size * v) for u, v in corners], colour, label)


def _draw_board(
    view: View, dice: Dice, x: float, y: float, half: float, face: Colour, inner: Colour
) -> None:
    wide = half * dice.uniform(0.8, 1.8)
    view.box(x, y + half, 2 * wide, 2 * half, face, SIGN)
    view.box(x, y + half * 0.5, wide, half, inner, None)


def _draw_lights(
    view: View, dice: Dice, x: float, y: float, half: float, face: Colour, inner: Colour
) -> None:
    """Traffic lights with one of three lamps lit."""
    view.box(x, y + 1.3 * half, 1.4 * half, 2.8 * half, (38, 40, 42), SIGN)
    lamp = dice.number(0, 2)
    view.oval(x, y + (lamp - 1) * 0.85 * half, half * 0.35, half * 0.35, _LAMPS[lamp], None)


def draw_tree(view: View, dice: Dice, across: float, near: float) -> None:
    """A tree; its trunk is labelled tree too, though it looks like a pole."""
    (x, y), metre = view.ground(across, near), view.metre * near
    trunk, crown = dice.uniform(1.6, 3.2) * metre, dice.uniform(1.0, 2.2) * metre
    leaves = paint(dice, TREE)
    bark = view.hazy(PAINTS[dice.choice(("brown", "grey", "dark"))], near)
    view.shadow(x, y, crown)
    view.box(x, y, max(view.height / 70, 0.25 * metre), trunk + crown * 0.5, bark, TREE)
    for _ in range(6):
        view.oval(
            x + dice.uniform(-0.5, 0.5) * crown,
            y - trunk - crown * dice.uniform(0.1, 1.1),
            crown * dice.uniform(0.4, 0.75),
            crown * dice.uniform(0.35, 0.65),
            view.hazy(darker(leaves, dice.uniform(0.7, 1.2)), near),
            TREE,
        )


def _draw_car(view: View, dice: Dice, across: float, near: float) -> None:
    """A car or van from behind, with the visible sides and roof."""
    van = dice.chance(0.25)
    half = dice.uniform(0.8, 1.0)
    waist, roof = (dice.uniform(1.9, 2.6),) * 2 if van else (1.0, 1.5)
    inset = half if van else 0.78 * half
    far = 1 / (1 / near + 0.4 * dice.uniform(2.5, 4.5))
    body = view.hazy(paint(dice, CAR), near)
    flank = darker(body, 0.72)
    glass = view.hazy(dice.choice(_GLASS), near)
    (x, y), metre = view.ground(across, near), view.metre * near
    ends = tuple((*view.ground(across, end), view.metre * end) for end in (near, far))

    def at(aside: float, up: float, end: int) -> Point:
        middle, foot, scale = ends[end]
        return middle + aside * scale, foot - up * scale

    def panel(a: Point, b: Point, colour: Colour) -> None:
        """A surface from an edge of the rear to the same edge of the front."""
        view.polygon([at(*a, 0), at(*b, 0), at(*b, 1), at(*a, 1)], colour, CAR)

    view.shadow(x, y, half * metre * 1.2)
    for side in (-1, 1):
        panel((side * half, 0.25), (side * half, waist), flank)
        panel((side * half, waist), (side * inset, roof), glass)
    panel((-inset, roof), (inset, roof), body)
    for wide, top, colour in ((1.0, roof, body), (0.84, roof - 0.1, glass)):
        low, high = half * wide, inset * wide
        corners = (-low, waist), (-high, top), (high, top), (low, waist)
        view.polygon([at(*corner, 0) for corner in corners], colour, CAR)
    for side in (-1, 1):
        view.box(x + side * half * 0.72 * metre, y, 0.28 * metre, 0.45 * metre, (26, 26, 28), CAR)
    view.box(x, y - 0.25 * metre, 2 * half * metre, (waist - 0.25) * metre, body, CAR)
    if van and dice.chance(0.6):
        view.box(x, y - 1.2 * metre, 1.4 * half * metre, 0.6 * metre, glass, None)
    lamps = dice.choice(((200, 40, 36), (240, 236, 200)))
    for side in (-1, 1):
        lamp = x + side * half * 0.8 * metre
        view.box(lamp, y - 0.65 * metre, 0.22 * metre, 0.2 * metre, lamps, None)


def _draw_person(view: View, dice: Dice, across: float, near: float) -> None:
    (x, y), metre = view.ground(across, near), view.metre * near * dice.uniform(0.85, 1.1)
    coat, legs = (view.hazy(paint(dice, PERSON), near) for _ in range(2))
    wide, stride = dice.uniform(0.46, 0.66) * metre, dice.uniform(0.0, 0.35) * metre
    view.shadow(x, y, wide * 0.6)
    for side in (-1, 1):
        leg = x + side * (stride + 0.1 * metre) / 2
        view.box(leg, y, 0.2 * metre, 0.85 * metre, legs, PERSON)
    view.box(x, y - 0.75 * metre, wide, 0.75 * metre, coat, PERSON)
    skin = view.hazy(dice.choice(_SKIN), near)
    view.oval(x, y - 1.6 * metre, 0.14 * metre, 0.17 * metre, skin, PERSON)


def draw_bonnet(view: View, dice: Dice, label: int) -> None:
    """The bonnet of the camera's car, along the lower edge of the picture."""
    down = dice.uniform(0.06, 0.16) * view.height
    shift = dice.uniform(-0.1, 0.1) * view.width
    middle = view.width / 2 + shift
    y = view.height + down
    view.oval(middle, y, view.width / 2, 1.5 * down, paint(dice, CAR), label)
