"""Masks of which each holds one class: which belong to an image, and the label that they are together."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
from jaxtyping import Bool

from segdistill.data.annotations.categories import Categories
from segdistill.data.annotations.drawing import Drawing, Drawn, Overlap
from segdistill.data.annotations.drawn import DrawnLabel
from segdistill.data.dataset import list_names
from segdistill.data.files import open_mask
from segdistill.data.label_map import LabelMap
from segdistill.data.layouts.pairs import FolderPairs, Missing
from segdistill.data.orientation import ImageGeometry, Orientation
from segdistill.data.pair import Pair
from segdistill.labels import IGNORED
from segdistill.names import height_by_width


@dataclass(frozen=True)
class LayersLabel(DrawnLabel):
    """The label of an image, of a black and white mask per class.

    Attributes:
        files: The masks, in the order of the classes; classes without a mask do not occur in the image.
        numbers: Class number of each mask.
        place: For messages.
        unannotated: Class number of pixels in no mask, 255 to ignore them.
        overlap: What a pixel of several masks is.
        threshold: Grey value from which on a pixel belongs to a class; None: masks hold 0 and one other value.
    """

    files: tuple[Path, ...]
    numbers: tuple[int, ...]
    place: str
    unannotated: int
    overlap: Overlap = "later"
    threshold: int | None = None

    @property
    def masks(self) -> tuple[Path, ...]:  # type: ignore[override]
        """All its files."""
        return self.files

    def drawn(self, image: ImageGeometry, orientation: Orientation | None) -> Drawn:
        """Upright class numbers, 255 ignored."""
        label = np.full(image.size[::-1], self.unannotated, np.uint8)
        layers = self._layers(image, orientation)
        order = list(layers)
        if self.overlap == "smaller":
            order.sort(key=lambda number: -int(layers[number].sum()))
        for number in order:
            label[layers[number]] = number
        if self.overlap == "ignore":
            for one, other in combinations(layers.values(), 2):
                label[one & other] = IGNORED
        return Drawn(label)

    def _layers(
        self, image: ImageGeometry, orientation: Orientation | None
    ) -> dict[int, Bool[np.ndarray, "h w"]]:
        """The pixels of each class number; masks of one class are one."""
        layers: dict[int, Bool[np.ndarray, "h w"]] = {}
        for number, path in zip(self.numbers, self.files, strict=True):
            layer = self._layer(path, image, orientation)
            layers[number] = layers[number] | layer if number in layers else layer
        return layers

    def _layer(
        self, path: Path, image: ImageGeometry, orientation: Orientation | None
    ) -> Bool[np.ndarray, "h w"]:
        mask = open_mask(path, image, orientation)
        mask.check(None if self.threshold is None else LabelMap(None, 2, threshold=self.threshold))
        grey = mask.ids(by_grey=True)
        if grey is None:
            raise ValueError(
                f"{path}: the mask of a class is in colour; expected black and white. Export it again"
            )
        if mask.image.size != image.size:
            found, size = (height_by_width(one) for one in (mask.image.size, image.size))
            raise ValueError(
                f"{path}: the mask is {found} (height x width); expected {size}, the size of "
                f"{image.path}. Check the pairing, or export the mask again"
            )
        if self.threshold is not None:
            above: Bool[np.ndarray, "h w"] = grey >= self.threshold
            return above
        values = np.unique(grey)
        if values[values > 0].size > 1:
            raise ValueError(
                f"{path}: the mask of a class holds {list_names(values.tolist(), 4)}; expected 0 and one other "
                "value. Set threshold: 128, or declare masks of ids"
            )
        return grey > 0

    def facts(self) -> str:
        """Classes and overlap; masks of one class are one."""
        return repr([self.numbers, self.unannotated, self.overlap, self.threshold, "one a class"])


class LayerSamples:
    """The samples of a split, each with its masks.

    Attributes:
        source: The root, for messages.
        classes: Empty, as no file lists all classes.
        threshold: Grey value from which on a pixel belongs to a class.

    Args:
        finder: Finds the pairs.
        pairs: What it found.
    """

    classes: tuple[str, ...] = ()

    threshold: int | None = None

    def __init__(self, finder: "LayerPairs", pairs: Sequence[Pair]) -> None:
        self.source, self._pairs, self._layers = str(finder.root), pairs, finder.layers

    def check(self, categories: Categories) -> None:
        """Refuse a threshold that is no grey value; masks of other classes have been refused.

        Raises:
            ValueError: The threshold is none.
        """
        LabelMap(None, 2, threshold=self.threshold)

    def pairs(self, drawing: Drawing) -> list[Pair]:
        """The samples, with labels that are put together in this way."""
        return [pair._replace(drawn=self._drawn(pair, drawing)) for pair in self._pairs]

    def _drawn(self, pair: Pair, drawing: Drawing) -> LayersLabel:
        masks = self._layers[pair.name]
        return LayersLabel(
            tuple(masks.values()),
            tuple(drawing.categories.numbers[one] for one in masks),
            str(pair.mask or f"{pair.image} (no mask)"),
            drawing.unannotated,
            drawing.overlap,
            self.threshold,
        )


class LayerPairs(FolderPairs):
    """Finds images and the masks of their classes by a pattern such as `{name}_{class}` or `{class}/{name}`.

    Attributes:
        layers: The masks of each image by class, in the order of the class numbers.

    Args:
        root: The folder that holds both.
        image_dir: Folder of the images inside.
        mask_dir: Folder of the masks inside; it may be that of the images.
        pattern: Name of a mask without extension, `{name}` and `{class}` in place of those.
        categories: The classes.
        missing: As for `FolderPairs`; an image without a label is one without any mask.

    Raises:
        ValueError: The pattern does not hold both once.
    """

    def __init__(
        self,
        root: Path,
        image_dir: str,
        mask_dir: str,
        pattern: str,
        categories: Categories,
        missing: Missing,
    ) -> None:
        super().__init__(root, image_dir, mask_dir, "", missing=missing)
        if pattern.count("{name}") != 1 or pattern.count("{class}") != 1:
            raise ValueError(
                f"annotations is {pattern!r} with labels layers; expected the name of a mask with {{name}} and "
                "{class}, such as {name}_{class} or {class}/{name}"
            )
        self.pattern, self.layers = pattern, dict[str, dict[str, Path]]()
        # Overlaps are settled in the order of the classes.
        self.names = sorted(categories.numbers, key=lambda name: categories.numbers[name])
        of_classes = {n: normalize("NFC", pattern.replace("{class}", n)) for n in self.names}
        self._around = {n: tuple(form.split("{name}")) for n, form in of_classes.items()}

    def _paired(self, image_folder: Path, mask_folder: Path | None) -> list[Pair]:
        assert mask_folder is not None
        found = self._files(image_folder, "image_dir")
        together = image_folder.resolve() == mask_folder.resolve()
        images = {n: p for n, p in found.items() if not (together and self._is_layer(n, found))}
        files = found if together else self._files(mask_folder, "mask_dir")
        layers: dict[str, dict[str, Path]] = {name: {} for name in images}
        strays = []
        for file, path in files.items():
            if meant := self._meant(file, layers, mask_folder):
                name, of = meant
                layers[name][of] = path
            elif not together or file not in images:
                strays.append(file)
        if strays:
            raise ValueError(
                f"{len(strays)} of {len(files)} files in {mask_folder} belong to no image and class by "
                f"{self.pattern} ({list_names(strays)}); expected the classes {', '.join(self.names)}. Add theirs "
                "to `classes` or `mapping`, or remove them"
            )
        empty = [name for name, masks in layers.items() if not masks]
        if self.missing != "empty":
            self._tell_unpaired([(empty, len(images), f"images in {image_folder} have no mask")])
            images = {name: path for name, path in images.items() if layers[name]}
        for name in images:
            self.layers[name] = {
                one: layers[name][one] for one in self.names if one in layers[name]
            }
        return [
            Pair(n, path, next(iter(self.layers[n].values()), None), n.rpartition("/")[0])
            for n, path in images.items()
        ]

    def _is_layer(self, file: str, files: Mapping[str, Path]) -> bool:
        """Whether a file beside images is the mask of one of them."""
        return any(name in files for name, _ in self._readings(file))

    def _meant(self, file: str, images: Mapping[str, Any], folder: Path) -> tuple[str, str] | None:
        """The image and the class of a mask; None if there is no such image.

        Raises:
            ValueError: There are several: one class has the end of another's name.
        """
        meant = [reading for reading in self._readings(file) if reading[0] in images]
        if len(meant) > 1:
            (one, first), (other, second) = meant[:2]
            raise ValueError(
                f"{folder}: {file} is by {self.pattern} the mask of class {first!r} of image {one!r} and of class "
                f"{second!r} of {other!r}; expected one of them. Rename it, or use a folder for each class"
            )
        return meant[0] if meant else None

    def _readings(self, file: str) -> Iterator[tuple[str, str]]:
        """The names of an image and a class that the name of a mask may hold."""
        for of, (before, after) in self._around.items():
            name = file[len(before) : len(file) - len(after)]
            if name and file == before + name + after:
                yield name, of
