"""A label that is drawn when its sample is read."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from segdistill.data.annotations.drawing import Drawing, Drawn, Shape, draw
from segdistill.data.orientation import ImageGeometry, Orientation, turned, upright_size
from segdistill.data.reading.opening import stamp
from segdistill.names import height_by_width

Size = tuple[int, int]
"""Width and height."""


class DrawnLabel(ABC):
    """The label of one image, in place of a mask file.

    Attributes:
        files: The files that it is read from.
        place: Where it stands, for messages.
        masks: Those of the files that are masks, and may have an orientation tag.
    """

    files: tuple[Path, ...]
    place: str
    masks: tuple[Path, ...] = ()

    @abstractmethod
    def drawn(self, image: ImageGeometry, orientation: Orientation | None) -> Drawn:
        """Upright class numbers, 255 ignored, and what is not among them.

        Args:
            image: Geometry of its image.
            orientation: What labels without an orientation tag match.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: A file is damaged, or made for another size.
        """

    @abstractmethod
    def facts(self) -> str:
        """What tells this label from others, besides the content of its files."""

    def stamps(self) -> list[str]:
        """Stamps of its files, as they are when the label is read."""
        return [stamp(path) for path in self.files]


class ShapesLabel(DrawnLabel):
    """A label of shapes: a subclass reads them. It matches upright photographs, unless declared as `stored`."""

    drawing: Drawing

    @abstractmethod
    def shapes(self, size: Size) -> tuple[Size | None, Sequence[Shape]]:
        """The size that the file declares, if any, and the shapes in pixels of this size."""

    def drawn(self, image: ImageGeometry, orientation: Orientation | None) -> Drawn:
        tag = image.tag if orientation == "stored" else None
        size = upright_size(image.size, tag)
        declared, shapes = self.shapes(size)
        if declared is not None and declared != size:
            raise ValueError(_other_size(self.place, declared, size, image.path))
        label, left_out = draw(shapes, size, self.drawing, self.place)
        return Drawn(np.array(turned(Image.fromarray(label), tag)), left_out)

    def facts(self) -> str:
        return self.drawing.facts


def _other_size(place: str, declared: Size, size: Size, image: Path | str) -> str:
    text = (
        f"{place}: the labels are for {height_by_width(declared)} (height x width); expected "
        f"{height_by_width(size)}, the size of {image} as a viewer shows it. "
    )
    if declared == size[::-1]:
        return text + (
            "If it has an orientation tag and was labelled as stored, add `orientation: stored` to "
            "data.options; otherwise check which image they belong to"
        )
    return text + "Use the image that was labelled, or export the labels for this one"
