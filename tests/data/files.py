"""Pictures and masks written for the tests."""

from pathlib import Path

import numpy as np
from PIL import Image

DRIVES = ("0001TP_00{:02d}", "Seq05VD_f00{:02d}")


def save_image(path: Path, height: int = 12, width: int = 16, value: int = 0) -> Path:
    """An RGB picture whose red channel counts columns and whose green one counts rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.arange(width)
    pixels[..., 1] = np.arange(height)[:, None]
    pixels[..., 2] = value
    Image.fromarray(pixels).save(path)
    return path


def save_mask(path: Path, ids: np.ndarray) -> Path:
    """A mask that stores these ids."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids).save(path)
    return path


def ids(classes: int, height: int = 12, width: int = 16) -> np.ndarray:
    """Every id from 0 to classes - 1, over and over."""
    return (np.arange(height * width) % classes).astype(np.uint8).reshape(height, width)
