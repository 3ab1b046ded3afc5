"""Folders of images and masks for tests of identity."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
from PIL import Image


def write_pairs(root: Path, count: int = 8, flipped: Collection[int] = ()) -> Path:
    """`count` pairs: sky above, ground below; masks of `flipped` have one pixel changed.

    Returns:
        The root.
    """
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        label = np.zeros((32, 48), np.uint8)
        label[: 10 + index] = 1
        if index in flipped:
            label[-1, -1] = 1
        noise = np.random.default_rng(index).integers(0, 40, (32, 48, 3))
        colours = np.array([[90, 80, 70], [150, 180, 210]])
        Image.fromarray((colours[label] + noise).astype(np.uint8)).save(
            root / "images" / f"{index}.png"
        )
        Image.fromarray(label).save(root / "masks" / f"{index}.png")
    return root
