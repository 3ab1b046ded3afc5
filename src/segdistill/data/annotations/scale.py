"""Coordinates at another scale than their image: they would be drawn, in the wrong place."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

_SLACK = 0.01
"""Rounding in exports leaves fractions this far outside 0..1."""
_NEAR = 2
"""Edges that differ by at most so many pixels are those of the same box, as exports round them."""


_MOST = 20_000
"""Only so many annotations are compared, as all of a file were written alike."""


class Scaled(NamedTuple):
    """Annotations whose polygons are at another scale than their boxes.

    Attributes:
        first: Place of the first one.
        number: How many there are.
        compared: How many were compared, of those that have both.
        extent: Left, top, right and bottom of the first one's polygons.
    """

    first: int
    number: int
    compared: int
    extent: Float64[np.ndarray, " 4"]


def all_fractions(coordinates: Float64[np.ndarray, " n"]) -> bool:
    """Whether coordinates are all in 0..1, as fractions of an image are."""
    size = coordinates.size
    return bool(size and coordinates.min() >= -_SLACK and coordinates.max() <= 1 + _SLACK)


def mostly_scaled(
    coordinates: Float64[np.ndarray, " n"],
    ring_ends: Sequence[int],
    ring_counts: Sequence[int],
    boxes: Float64[np.ndarray, "m 4"],
) -> Scaled | None:
    """The annotations whose polygons are at another scale than their boxes, if most are.

    A box may be written in another way than as left, top, width and height, which means nothing for the
    polygons: two corners, a centre, or fractions.

    Args:
        coordinates: x1 y1 x2 y2 .. of all polygons.
        ring_ends: Where each polygon ends.
        ring_counts: Number of polygons of each annotation.
        boxes: What each annotation states as its box, four numbers; NaN for none.
    """
    ring_counts, boxes = ring_counts[:_MOST], boxes[:_MOST]
    ring_ends = ring_ends[: sum(ring_counts)]
    starts = np.concatenate([[0], np.asarray(ring_ends, np.int64)])
    owners = np.repeat(np.arange(len(ring_counts)), ring_counts)
    full = np.diff(starts) >= 6
    stated = (boxes[:, 2:] > 0).all(axis=1) & (boxes[:, :2] + boxes[:, 2:] > 0).all(axis=1)
    if not full.any() or not stated.any() or all_fractions(boxes[stated].ravel()):
        return None
    extents = np.full((len(ring_counts), 4), np.nan)
    points = coordinates[: starts[-1]].reshape(-1, 2)
    # Polygons of fewer points have no area, and end where the next begins.
    kept = np.repeat(full, np.diff(starts) // 2)
    lengths = np.diff(starts)[full] // 2
    firsts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    changes = np.flatnonzero(np.diff(owners[full], prepend=-1))
    for place, reduce in ((0, np.minimum), (2, np.maximum)):
        of_rings = reduce.reduceat(points[kept], firsts, axis=0)
        extents[owners[full][changes], place : place + 2] = reduce.reduceat(
            of_rings, changes, axis=0
        )
    compared = stated & ~np.isnan(extents).any(axis=1)
    corner, size = boxes[:, :2], boxes[:, 2:]
    written = (
        np.hstack([corner, corner + size]),
        boxes,
        np.hstack([corner - size / 2, corner + size / 2]),
    )
    scaled = compared & ~np.any([_alike(extents, one) for one in written], axis=0)
    scaled &= _scaled(extents, written[0], compared)
    if scaled.sum() * 2 <= compared.sum():
        return None
    first = int(np.flatnonzero(scaled)[0])
    return Scaled(first, int(scaled.sum()), int(compared.sum()), extents[first])


def _scaled(
    one: Float64[np.ndarray, "m 4"],
    other: Float64[np.ndarray, "m 4"],
    compared: Bool[np.ndarray, " m"],
) -> Bool[np.ndarray, " m"]:
    """Whether boxes are others times a scale of width and one of height that all have in common.

    Others are placeholders, such as the whole image, or enclose hidden parts, too.
    """
    scale = np.median(one[compared, 2:] / other[compared, 2:], axis=0) if compared.any() else 1
    with np.errstate(invalid="ignore"):
        gaps = np.abs(one - other * np.tile(scale, 2)).max(axis=1)
        near: Bool[np.ndarray, " m"] = gaps <= 1 + 0.05 * (one[:, 2:] - one[:, :2]).max(axis=1)
    return near


def _alike(
    one: Float64[np.ndarray, "m 4"], other: Float64[np.ndarray, "m 4"]
) -> Bool[np.ndarray, " m"]:
    """Whether boxes of two corners are near one another, or share half of what they cover together."""
    with np.errstate(invalid="ignore"):
        near = (np.abs(one - other) <= _NEAR).all(axis=1)
        low, high = np.maximum(one, other)[:, :2], np.minimum(one, other)[:, 2:]
        both = np.prod((high - low).clip(min=0), axis=1)
        areas = [np.prod((box[:, 2:] - box[:, :2]).clip(min=0), axis=1) for box in (one, other)]
        alike: Bool[np.ndarray, " m"] = near | (2 * both >= areas[0] + areas[1] - both)
    alike &= ~np.isnan(one + other).any(axis=1)
    return alike
