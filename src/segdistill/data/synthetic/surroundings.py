"""The surroundings of a street: sky, ground, houses and fences."""

from collections.abc import Callable

from segdistill.data.synthetic.dice import Dice
from segdistill.data.synthetic.objects import draw_tree
from segdistill.data.synthetic.paints import (
    BUILDING,
    FENCE,
    GRASS,
    PAVEMENT,
    PERSON,
    POLE,
    ROAD,
    SIGN,
    SKY,
    TREE,
    Colour,
    mixed,
    paint,
)
from segdistill.data.synthetic.view import Point, View, nearness

STOREY = 3.2
"""Height of a floor in metres."""


def draw_sky(view: View, dice: Dice) -> None:
    """Bands of sky that fade towards the horizon, clouds, and a distant skyline."""
    sky = paint(dice, SKY)
    view.air = mixed(sky, (214, 214, 212), 0.6)
    for band in range(8):
        top = view.horizon * band / 8
        corners = [(0.0, top), (view.width, top), (view.width, view.height), (0.0, view.height)]
        view.polygon(corners, mixed(sky, view.air, band / 8), SKY)
    for _ in range(dice.number(0, 4)):
        cloud = mixed(view.air, dice.choice(((235, 235, 235), (150, 150, 155))), 0.7)
        x, y = dice.uniform(0, view.width), dice.uniform(0, view.horizon)
        span = dice.uniform(0.05, 0.2) * view.width
        view.oval(x, y, span, span * dice.uniform(0.15, 0.4), cloud, SKY)
    for _ in range(dice.number(2, 6)):
        _draw_skyline(view, dice)


def _draw_skyline(view: View, dice: Dice) -> None:
    label = dice.choice((BUILDING, BUILDING, TREE))
    colour = view.hazy(paint(dice, label), 0.03)
    x, tall = dice.uniform(0, view.width), dice.uniform(0.05, 0.4) * view.horizon
    if label == BUILDING:
        view.box(x, view.horizon + 2, dice.uniform(0.06, 0.25) * view.width, tall, colour, label)
    else:
        view.oval(x, view.horizon, dice.uniform(0.05, 0.2) * view.width, tall * 0.6, colour, label)


def draw_ground(view: View, dice: Dice) -> None:
    """Road, pavements and verges; one road in three has the surface of the pavement."""
    paving = paint(dice, PAVEMENT)
    surface = paving if dice.chance(0.35) else paint(dice, ROAD)
    lawn = paint(dice, GRASS)
    if dice.chance(0.4):
        view.strip(-1e4, 1e4, lawn, GRASS)
    else:
        view.strip(-1e4, 1e4, paving, PAVEMENT)
    for edge, end in ((-view.road, view.left), (view.road, view.right)):
        view.strip(edge, end, paving, PAVEMENT)
        if dice.chance(0.5):
            split = edge + (end - edge) * dice.uniform(0.3, 0.7)
            view.strip(split, edge if dice.chance(0.5) else end, lawn, GRASS)
    view.strip(-view.road, view.road, surface, ROAD)
    if dice.chance(0.7):
        kerb = mixed(surface, (230, 230, 225), dice.uniform(0.0, 0.6))
        for edge in (-view.road, view.road):
            view.strip(edge - 0.12, edge + 0.12, kerb, None)
    _draw_markings(view, dice, surface)
    for _ in range(dice.number(0, 3)):
        near = dice.uniform(0.1, 0.8)
        reach = dice.uniform(-0.5, 1.0) * view.road
        side = dice.side()
        view.patch(side * 12, -side * reach, near * dice.uniform(0.6, 0.9), near, None)


def _draw_markings(view: View, dice: Dice, surface: Colour) -> None:
    """Lines, a crossing, stains and puddles, all labelled road."""
    white = mixed(surface, (225, 225, 215), dice.uniform(0.3, 0.9))
    if dice.chance(0.75):
        lane, start = dice.uniform(-0.4, 0.4) * view.road, dice.uniform(1.0, 4.0)
        for dash in range(6):
            distance = start + 5 * dash
            view.patch(lane - 0.1, lane + 0.1, nearness(distance + 2.3), nearness(distance), white)
    if dice.chance(0.3):
        distance = dice.uniform(1.5, 8.0)
        far, near = nearness(distance + 3), nearness(distance)
        for bar in range(int(2 * view.road)):
            left = bar + 0.3 - view.road
            view.patch(left, left + 0.5, far, near, white)
    for _ in range(dice.number(0, 3)):
        near = dice.uniform(0.1, 0.9)
        x, y = view.ground(dice.uniform(-0.8, 0.8) * view.road, near)
        # A puddle shows the sky.
        colour = view.air if dice.chance(0.4) else mixed(surface, (20, 20, 20), 0.4)
        span = dice.uniform(0.3, 1.0) * view.metre * near
        view.oval(x, y, span, span * 0.3, colour, None)


def draw_frontage(view: View, dice: Dice, side: int) -> None:
    """Houses, gaps and fences along one side of the street (-1 left, 1 right), from far to near."""
    line = view.left if side < 0 else view.right
    distance = 40.0
    while distance > 0:
        length = dice.uniform(4.0, 13.0)
        far, near = nearness(distance), nearness(max(distance - length, -0.6))
        house = dice.chance(0.62)
        if house:
            _draw_house(view, dice, side, line + side * dice.uniform(0.0, 0.8), far, near)
        elif dice.chance(0.35):
            for _ in range(3):
                spot = line + side * dice.uniform(1.0, 4.0)
                draw_tree(view, dice, spot, far + (near - far) * dice.uniform())
        if dice.chance(0.12 if house else 0.8):
            _draw_fence(view, dice, line - side * 0.15, far, near)
        distance -= length


def _draw_house(view: View, dice: Dice, side: int, line: float, far: float, near: float) -> None:
    tall = dice.uniform(4.0, 14.0)
    at = view.wall(line, far, near)
    wall = view.hazy(paint(dice, BUILDING), (far + near) / 2)
    # The front that faces the camera, then the long side along the street.
    (x, y), (_, top) = at(1, 0), at(1, tall)
    away = x + side * view.metre * near * 12
    front = mixed(wall, (20, 20, 30), 0.15)
    view.polygon([(x, y), (x, top), (away, top), (away, y)], front, BUILDING)
    view.polygon(_panel(at, 0.0, 1.0, 0.0, tall), wall, BUILDING)
    # Windows of a pixel or less are not drawn.
    if STOREY * view.metre * near >= 3:
        glass = view.hazy(dice.choice(((46, 50, 60), (150, 184, 214), (226, 214, 160))), near)
        columns = dice.number(2, 5)
        wide = dice.uniform(0.35, 0.75) / columns
        for floor in range(int(tall / STOREY)):
            low = 1.0 + STOREY * floor
            for column in range(columns):
                start = (column + 0.2) / columns
                view.polygon(_panel(at, start, start + wide, low, low + 1.7), glass, None)
    if dice.chance(0.5):
        _draw_decoy(view, dice, at)


def _draw_decoy(view: View, dice: Dice, at: Callable[[float, float], Point]) -> None:
    """An object on a wall that looks like a sign, a pole or a person but is labelled building."""
    kind, start = dice.choice((SIGN, POLE, PERSON)), dice.uniform(0.1, 0.8)
    low = dice.uniform(1.5, 3.0) if kind == SIGN else 0.0
    span = {SIGN: dice.uniform(0.5, 1.4), POLE: dice.uniform(3.0, 6.0), PERSON: 2.0}[kind]
    (x, y), (_, top) = at(start, low), at(start, low + span)
    tall, colour = y - top, paint(dice, kind)
    if kind == SIGN and dice.chance(0.5):
        view.oval(x, y, tall / 2, tall / 2, colour, None)
    else:
        width = {SIGN: tall, POLE: max(1.0, tall / 25), PERSON: tall * 0.4}[kind]
        view.box(x, y, width, tall, colour, None)


def _draw_fence(view: View, dice: Dice, line: float, far: float, near: float) -> None:
    tall, colour = dice.uniform(1.1, 2.0), view.hazy(paint(dice, FENCE), near)
    at = view.wall(line, far, near)
    if dice.chance(0.4):
        # A hedge or a wall.
        view.polygon(_panel(at, 0.0, 1.0, 0.0, tall), colour, FENCE)
        return
    # Bars: the picture shows what is behind them, the label does not.
    view.polygon(_panel(at, 0.0, 1.0, 0.0, tall), None, FENCE)
    bars = dice.number(6, 14)
    for bar in range(bars):
        view.polygon(_panel(at, bar / bars, (bar + 0.5) / bars, 0.0, tall), colour, None)
    for rail in (0.25, 0.85):
        view.polygon(_panel(at, 0.0, 1.0, rail * tall, (rail + 0.1) * tall), colour, None)


def _panel(
    at: Callable[[float, float], Point], start: float, end: float, low: float, high: float
) -> list[Point]:
    return [at(start, low), at(start, high), at(end, high), at(end, low)]
