"""A page that shows images with their labels in colour, for a look at what training would read."""

import base64
import importlib.resources
import io
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from jinja2 import Environment, StrictUndefined
from PIL import Image

from segdistill.data.channels import in_unit_range
from segdistill.data.dataset import generated_palette
from segdistill.data.label_map import IGNORED
from segdistill.data.samples import read_sample
from segdistill.escaping import html
from segdistill.run.auditing.data_audit import Split

_SHOWN = 8
"""Samples of a split."""
_WIDTH = 560
_COLOUR = 0.6
"""Share of the class's colour in a labelled pixel."""


def write_samples(path: Path, splits: Sequence[Split]) -> None:
    """Write one HTML file with up to eight samples of each split, evenly spread.

    Each is shown as the image, and with its label over it: class pixels in the class's colour, ignored ones in
    stripes. Samples that cannot be read are left out, since `check` names them.

    Args:
        path: The file; folders to it are made.
        splits: The splits; those that could not be opened as declared are left out.

    Raises:
        OSError: It cannot be written.
    """
    shown = [_split_view(split) for split in splits if split.opened]
    template = importlib.resources.files(__package__).joinpath("samples.html.j2").read_text("utf-8")
    jinja = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: html(value) if isinstance(value, str) else value,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(jinja.from_string(template).render(splits=shown), "utf-8")


def _split_view(split: Split) -> dict[str, Any]:
    count = len(split.dataset)
    number = min(count, _SHOWN)
    palette = getattr(split.dataset, "palette", None) or generated_palette(len(split.classes))
    occurring: set[int] = set()
    samples = []
    for place in range(number):
        with suppress(Exception):  # a user's data set may raise anything; the survey tells it
            samples.append(_sample_view(split.dataset, place * count // number, palette, occurring))
    legend = [
        {"name": name, "colour": "#{:02x}{:02x}{:02x}".format(*palette[number])}
        for number, name in enumerate(split.classes)
        if number in occurring
    ]
    return {
        "name": split.name,
        "count": count,
        "samples": samples,
        "legend": legend,
        "ignored": IGNORED in occurring,
        "labelled": split.labelled,
    }


def _sample_view(
    dataset: Any, index: int, palette: Sequence[Sequence[int]], occurring: set[int]
) -> dict[str, str]:
    """The two pictures of a sample; adds its class numbers to those that occur."""
    image, label, name = read_sample(dataset, index)
    values = (in_unit_range(image).clamp(0, 1) * 255).byte().numpy()
    # Grey or other channels: the first three that there are.
    pixels = np.stack([values[min(channel, len(values) - 1)] for channel in range(3)], axis=-1)
    step = max(1, -(-pixels.shape[1] // _WIDTH))  # every so many pixels, so that labels stay exact
    pixels, numbers = pixels[::step, ::step], label.numpy()[::step, ::step].astype(np.uint8)
    occurring.update(np.unique(numbers).tolist())
    return {
        "name": name,
        "image": _uri(pixels),
        "label": _uri(_coloured(pixels, numbers, palette)),
        "size": f"{image.shape[-2]}x{image.shape[-1]}",
    }


def _coloured(
    pixels: UInt8[np.ndarray, "h w 3"],
    numbers: UInt8[np.ndarray, "h w"],
    palette: Sequence[Sequence[int]],
) -> UInt8[np.ndarray, "h w 3"]:
    """The image with the colour of each pixel's class over it, and stripes where it is ignored."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = np.asarray(palette, np.uint8)
    colours = table[numbers].astype(np.float32)
    rows, columns = np.indices(numbers.shape)
    stripes = np.where((rows + columns) // 4 % 2, 230, 25)[..., None]
    colours = np.where((numbers == IGNORED)[..., None], stripes, colours)
    mixed: UInt8[np.ndarray, "h w 3"] = ((1 - _COLOUR) * pixels + _COLOUR * colours).astype(
        np.uint8
    )
    return mixed


def _uri(pixels: UInt8[np.ndarray, "h w 3"]) -> str:
    stored = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stored, "PNG")
    return "data:image/png;base64," + base64.b64encode(stored.getvalue()).decode()
