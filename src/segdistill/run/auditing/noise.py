"""Telling the ids that masks were drawn with from the values that compression or scaling left around them."""

from collections.abc import Mapping

import numpy as np

from segdistill.labels import IGNORED

RIM = 4
"""How many times as many pixels as the objects inside the ignored rim around them may have."""
_APART = 16
"""Grey levels between two ids of masks with noise; ids nearer than that cannot be told from it."""
_LEAST = 0.01
"""Fraction of the pixels from which on a value counts as drawn, where the number of classes is not known."""
_MOST_NOISE = 0.6
"""Fraction of the pixels above which the values between are no noise."""


def drawn_ids(pixels: Mapping[int, int], classes: int | None) -> list[int]:
    """The ids that masks with noise were drawn with, in ascending order; [] if that is not clear.

    These are the values with most pixels that lie apart. The others must be light beside them.

    Args:
        pixels: Number of pixels of each value, 0 to 255.
        classes: Number of declared classes; None: not declared.

    Example:
        >>> drawn_ids({0: 5000, 1: 40, 254: 30, 255: 900}, 2)
        [0, 255]
        >>> drawn_ids({0: 5000, 1: 800, 255: 90}, 2)
        []
    """
    total = sum(pixels.values())
    drawn: list[int] = []
    for value in sorted(pixels, key=lambda v: (-pixels[v], v)):
        enough = len(drawn) == classes if classes else pixels[value] < _LEAST * total
        if enough:
            break
        if all(abs(value - one) >= _APART for one in drawn):
            drawn.append(value)
    drawn.sort()
    rest = [value for value in pixels if value not in drawn]
    if len(drawn) < max(classes or 0, 2) or not rest or max(pixels) > 255:
        return []
    plain = sorted(value for value in pixels if value != IGNORED)
    # Ids 0, 1, 2, .. are class numbers, unless all are much rarer than 255.
    numbered = plain == list(range(len(plain)))
    # Noise begins beside its id; without a number of classes other ids may be classes.
    beside = distances(np.array(rest), drawn)[0].min() <= 2 and not (numbered and len(plain) > 2)
    few = sum(pixels[value] for value in rest) <= _MOST_NOISE * total
    sure = few and (classes is not None or beside)
    return drawn if sure and is_light(rest, drawn, pixels, not numbered) else []


def is_light(
    values: list[int], ids: list[int], pixels: Mapping[int, int], by_neighbour: bool = True
) -> bool:
    """Whether each value has far fewer pixels than these ids, as noise has.

    What lies around an id counts as that id: on small masks edges are most of what there is.

    Args:
        values: The values.
        ids: The ids.
        pixels: Number of pixels of each.
        by_neighbour: Compare values close to an id with that id; otherwise all with the lightest id.
    """
    apart, nearest = distances(np.array(values, np.int64), ids)
    weights = np.array([pixels[value] for value in values], np.int64)
    near = apart < _APART
    masses = np.array([pixels.get(one, 0) for one in ids]) + np.bincount(
        nearest[near], weights[near], len(ids)
    )
    limits = np.full(len(values), masses.min())
    if by_neighbour:
        limits[near] = masses[nearest[near]]
    return bool((RIM * weights < limits).all())


def distances(values: np.ndarray, ids: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """How far each value is from the nearest of these ids, and the place of that id."""
    apart = np.abs(values[:, None] - np.asarray(ids))
    return apart.min(axis=1), apart.argmin(axis=1)


def resembles_noise(value: int, pixels: Mapping[int, int]) -> bool:
    """Whether a value has a hundredth of the pixels of one that lies close by."""
    near = range(max(value - 8, 0), value + 9)
    return any(pixels.get(other, 0) > 100 * pixels.get(value, 1) for other in near)


def tolerance_for(values: list[int], ids: list[int]) -> int:
    """The tolerance that reads these values as the nearest of these ids; 0 if there is none.

    Twice what is needed, since other masks may hold more, but below the distance between two ids.
    """
    gaps = np.diff(sorted(ids))
    most = min(127, int(gaps.min()) - 1) if gaps.size else 127
    needed = int(distances(np.array(values, dtype=np.int64), ids)[0].max(initial=0))
    return min(most, max(8, 2 * needed)) if needed <= most else 0
