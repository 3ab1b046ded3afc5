"""The classes of a street, their colours in label pictures, and the colours objects are painted in."""

from collections.abc import Sequence

from segdistill.data.synthetic.dice import Dice

Colour = tuple[int, int, int]

CLASSES: dict[str, Colour] = {
    "sky": (70, 130, 180),
    "building": (70, 70, 70),
    "tree": (107, 142, 35),
    "road": (128, 64, 128),
    "pavement": (244, 35, 232),
    "grass": (152, 251, 152),
    "pole": (153, 153, 153),
    "sign": (220, 220, 0),
    "car": (0, 0, 142),
    "person": (220, 20, 60),
    "fence": (190, 153, 153),
}
SKY, BUILDING, TREE, ROAD, PAVEMENT, GRASS, POLE, SIGN, CAR, PERSON, FENCE = range(len(CLASSES))

PAINTS: dict[str, Colour] = {
    "grey": (128, 128, 130),
    "dark": (52, 54, 58),
    "white": (214, 214, 208),
    "beige": (186, 166, 136),
    "brick": (150, 86, 66),
    "red": (186, 44, 42),
    "blue": (58, 96, 172),
    "pale blue": (148, 184, 216),
    "green": (70, 108, 50),
    "olive": (128, 128, 62),
    "yellow": (214, 176, 52),
    "brown": (98, 72, 50),
}

# Typical paints of each class, and the others. Hardly any belongs to only one class, not even the
# typical ones, so colour must be read together with shape and position.
_PALETTES = {
    SKY: (("pale blue",), ("white", "grey", "blue", "beige")),
    BUILDING: (("beige", "brick", "grey"), ("white", "pale blue", "brown", "dark", "yellow")),
    TREE: (("green",), ("olive", "brown", "brick")),
    ROAD: (("grey", "dark"), ("beige", "brick")),
    PAVEMENT: (("grey", "beige"), ("brick", "dark")),
    GRASS: (("green", "olive"), ("beige", "brown")),
    POLE: (("grey", "dark"), ("white", "brown", "green")),
    SIGN: (("blue", "red", "yellow"), ("white", "green", "dark")),
    CAR: (("white", "red", "blue", "dark"), ("grey", "green", "beige", "yellow")),
    PERSON: (("dark", "blue", "red"), ("white", "green", "brown", "yellow", "grey")),
    FENCE: (("brown", "white"), ("dark", "grey", "green", "brick")),
}
_TYPICAL = 0.7


def paint(dice: Dice, label: int) -> Colour:
    """A colour for an object of this class, no two objects alike."""
    typical, others = _PALETTES[label]
    red, green, blue = PAINTS[dice.choice(typical if dice.chance(_TYPICAL) else others)]
    light = dice.uniform(0.75, 1.25)
    return clamped(
        red * light + dice.uniform(-16.0, 16.0),
        green * light + dice.uniform(-16.0, 16.0),
        blue * light + dice.uniform(-16.0, 16.0),
    )


def mixed(colour: Sequence[float], other: Sequence[float], part: float) -> Colour:
    """A colour mixed with a fraction, 0..1, of another."""
    red, green, blue = colour
    return clamped(
        red + (other[0] - red) * part,
        green + (other[1] - green) * part,
        blue + (other[2] - blue) * part,
    )


def darker(colour: Sequence[float], light: float) -> Colour:
    """A colour multiplied by `light`."""
    red, green, blue = colour
    return clamped(red * light, green * light, blue * light)


def clamped(red: float, green: float, blue: float) -> Colour:
    """A colour rounded down to integers in 0..255."""
    return (
        min(255, max(0, int(red))),
        min(255, max(0, int(green))),
        min(255, max(0, int(blue))),
    )
