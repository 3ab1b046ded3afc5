"""Images with a label file each, of YOLO or labelme."""

from collections.abc import Sequence

from segdistill.data.annotations.categories import Categories
from segdistill.data.annotations.drawing import Drawing
from segdistill.data.annotations.drawn import DrawnLabel
from segdistill.data.annotations.labelme import LabelmeLabel
from segdistill.data.annotations.yolo import YoloLabel, yolo_names
from segdistill.data.layouts.pairs import FolderPairs, Missing
from segdistill.data.layouts.suggested import folders_in
from segdistill.data.pair import Pair

ENDINGS = {"yolo": (".txt",), "labelme": (".json",)}


class FileSamples:
    """The samples of a split, each with its label file.

    Attributes:
        source: What names the classes, or the root, for messages.
        classes: Names of the classes; empty if only the label files hold them.
    """

    def __init__(
        self, pairs: Sequence[Pair], labels: str, names: tuple[str, ...] | None, source: str
    ) -> None:
        self._pairs, self._labels, self._names = pairs, labels, names
        self.source, self.classes = source, list(names or ())

    def check(self, categories: Categories) -> None:
        """Refuse named classes that are not declared; others are known when their files are read.

        Raises:
            ValueError: There are some.
        """
        if undeclared := set(self.classes) - categories.numbers.keys():
            raise ValueError(f"{self.source}: {categories.complaint(undeclared)}")

    def pairs(self, drawing: Drawing) -> list[Pair]:
        """The samples, with labels that are drawn in this way."""
        return [pair._replace(drawn=self._drawn(pair, drawing)) for pair in self._pairs]

    def _drawn(self, pair: Pair, drawing: Drawing) -> DrawnLabel:
        place = str(pair.mask or f"{pair.image} (no label file)")
        if self._labels == "yolo":
            return YoloLabel(pair.mask, place, self._names, drawing)
        return LabelmeLabel(pair.mask, place, drawing)


def file_samples(
    finder: FolderPairs,
    split: str,
    labels: str,
    label_dir: str | None,
    annotations: str | None,
    missing: Missing,
    held_out: tuple[float, int],
) -> FileSamples:
    """The samples of a split.

    Args:
        finder: Knows the root and the folder of images.
        split: Name of the split.
        labels: `yolo` or `labelme`.
        label_dir: Folder of the label files. None: `labels` for YOLO, if there is one, otherwise they lie
            beside the images.
        annotations: For YOLO, the file with the names of the classes, relative to the root.
        missing: What becomes of files without a partner; see `FolderPairs`.
        held_out: Fraction of the names that is held out without split folders, and the seed.

    Raises:
        FileNotFoundError: A folder or file is missing.
        ValueError: Images and labels do not pair up, or the file of names is malformed.
    """
    root, names = finder.root, None
    if labels == "yolo":
        names = yolo_names(root, annotations)
        places = [root, *folders_in(root)]
        if label_dir is None and any((place / "labels").is_dir() for place in places):
            label_dir = "labels"
    folder = finder.image_dir if label_dir is None else label_dir
    source = FolderPairs(
        root, finder.image_dir, folder, "", endings=ENDINGS[labels], missing=missing
    )
    pairs = source.pairs(split, None, *held_out)
    found, known = names or (root, None)
    return FileSamples(pairs, labels, known, str(found))
