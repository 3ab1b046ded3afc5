"""An image and its label as files, and reading the label."""

from pathlib import Path
from typing import NamedTuple

from PIL import Image

from segdistill.data.annotations.drawn import DrawnLabel
from segdistill.data.files import StoredMask, open_mask
from segdistill.data.orientation import ImageGeometry, Orientation


class Pair(NamedTuple):
    """An image file and its label, their name and group, and the image's channels.

    The label is a mask file, or `drawn` from `mask`, a file of an annotation tool (None where such an image
    has no file of its own). Without both the image is unlabelled.
    """

    name: str
    image: Path
    mask: Path | None
    group: str = ""
    channels: int = 3
    drawn: DrawnLabel | None = None

    @property
    def labelled(self) -> bool:
        """Whether there is a label."""
        return self.mask is not None or self.drawn is not None

    def unlabelled(self) -> "Pair":
        """The image alone."""
        return self._replace(mask=None, drawn=None)

    @property
    def masks(self) -> tuple[Path, ...]:
        """The mask files of the label, one or one for each class; none where shapes are drawn."""
        if self.drawn is not None:
            return self.drawn.masks
        return () if self.mask is None else (self.mask,)

    @property
    def label_place(self) -> str:
        """Where the label stands, for messages; the pair's name if there is none."""
        return self.drawn.place if self.drawn is not None else str(self.mask or self.name)


def open_label(
    pair: Pair, image: ImageGeometry | None = None, orientation: Orientation | None = None
) -> StoredMask:
    """The label of a pair before any mapping, upright: its mask file, or what is drawn in place of one.

    Args:
        pair: The pair; it is labelled.
        image: Geometry of its image.
        orientation: What labels without an orientation tag match.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged or does not fit the image.
    """
    if pair.drawn is None:
        assert pair.mask is not None
        return open_mask(pair.mask, image, orientation)
    if image is None:
        raise ValueError(f"{pair.label_place}: the labels cannot be drawn without their image")
    label, left_out = pair.drawn.drawn(image, orientation)
    return StoredMask(pair.label_place, Image.fromarray(label), None, False, "L", left_out)
