"""Runs of pixels (RLE) of a COCO file, compressed or not, checked before the rasteriser sees them."""

from typing import Any

import numpy as np

from segdistill.data.annotations.drawing import rasteriser
from segdistill.names import height_by_width


def checked_runs(outline: dict[str, Any], size: tuple[int, int], place: str) -> dict[str, Any]:
    """An RLE as pycocotools holds it.

    pycocotools reads beyond the end of an RLE that is too short and returns what lay there in memory, so
    the runs are added up first.

    Args:
        outline: `{"size": [height, width], "counts": text or integers}`.
        size: Width and height of its image.
        place: Where it stands, for messages.

    Raises:
        ValueError: It is malformed, made for another size, or does not cover the image exactly.
    """
    height_width, counts = outline.get("size"), outline.get("counts")
    if height_width != [size[1], size[0]]:
        raise ValueError(
            f"{place} has an RLE of size {height_width!r:.40}; expected [{size[1]}, {size[0]}], height and width "
            "of its image. Export the labels again"
        )
    if isinstance(counts, str):
        runs = _decompressed(counts, place)
    elif isinstance(counts, list) and all(type(count) is int for count in counts):
        runs = np.array(counts, dtype=object)
    else:
        raise ValueError(f"{place} has RLE counts {counts!r:.40}; expected text or integers")
    total = size[0] * size[1]
    if not len(runs) or min(runs) < 0 or sum(map(int, runs)) != total:
        raise ValueError(
            f"{place} has an RLE of {sum(map(int, runs))} pixels; expected runs from 0 on that add up to {total}, "
            f"{height_by_width(size)}. Export the labels again"
        )
    if isinstance(counts, str):
        return {"size": height_width, "counts": counts.encode()}
    compressed: dict[str, Any] = rasteriser().frPyObjects(outline, size[1], size[0])
    return compressed


def _decompressed(counts: str, place: str) -> np.ndarray:
    """Lengths of the runs of a compressed RLE.

    A character holds five bits, lowest first, and a sixth that says whether more follow; the highest of a
    number is its sign. From the fourth on, numbers are differences to the last but one.
    """
    codes = np.frombuffer(counts.encode("ascii", "replace"), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((codes & 0x20) == 0)
    widths = np.diff(np.concatenate([[-1], ends]))
    bad = not codes.size or codes.min() < 0 or codes.max() > 63 or not ends.size
    if bad or ends[-1] != codes.size - 1 or widths.max() > 7:
        raise ValueError(
            f"{place} has the compressed RLE {counts!r:.40}, which is cut off or no RLE; expected text as of "
            "pycocotools. Export the labels again"
        )
    starts = ends - widths + 1
    within = np.arange(codes.size) - np.repeat(starts, widths)
    numbers = np.add.reduceat((codes & 0x1F) << (5 * within), starts)
    signs = (codes[ends] & 0x10) != 0
    numbers[signs] -= np.int64(1) << (5 * widths[signs])
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers
