"""Pascal VOC 2012: photographs from Flickr, 20 object classes and background."""

from pathlib import Path

from segdistill.data.caching import Cache
from segdistill.data.dataset import PairDataset, generated_palette
from segdistill.data.label_map import IGNORED, LabelMap
from segdistill.data.published.layout import Files, Layout, paired
from segdistill.names import unknown

CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
MASKS = {
    "train": "SegmentationClass",
    "train_aug": "SegmentationClassAug",
    "val": "SegmentationClass",
    "test": None,
}
"""Folder of the masks of each split."""


class PascalVOC(PairDataset):
    """Pascal VOC 2012, segmentation, with the train_aug split that most papers train on.

    `root` is `VOC2012`, or a folder that holds `VOC2012` or `VOCdevkit/VOC2012`. It contains
    `JPEGImages/<name>.jpg`, `SegmentationClass/<name>.png` and the lists
    `ImageSets/Segmentation/<split>.txt`: 1464 names in train, 1449 in val, 1456 in test.

    `train_aug` (10,582 names) reads `SegmentationClassAug/<name>.png`, where the masks of SBD
    (Hariharan et al., "Semantic contours from inverse detectors", ICCV 2011) are added to those of
    train, without the images of val. Folder and list are not part of the official download.

    Masks hold palette indices: 0 background, 1..20 objects, 255 the object border, which is
    ignored. The masks of test are not published: its samples have no label.

    Everingham et al., "The Pascal Visual Object Classes Challenge: A Retrospective", IJCV 2015.

    Args:
        root: The folder described above.
        split: `train`, `train_aug`, `val` or `test`.
        limit: Keep only the first so many images.
        cache: Keep decoded images in memory (0.7 MB per image).
        orientation: What masks without an orientation tag match: `upright` or `stored`; see `PairDataset`.

    Raises:
        FileNotFoundError: `root` has another layout, or a listed file is missing.
        ValueError: There is no such split.
    """

    server_ids = tuple(range(len(CLASSES)))

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "train",
        *,
        limit: int | None = None,
        cache: Cache = False,
        orientation: str | None = None,
    ) -> None:
        if split not in MASKS:
            raise ValueError(unknown("Pascal VOC split", split, MASKS))
        layout = Layout("voc", root, inside=("VOC2012", "VOCdevkit/VOC2012"))
        images = Files(layout.folder("JPEGImages"), ".jpg")
        place = MASKS[split]
        masks = Files(layout.folder(place), ".png") if place else None
        super().__init__(
            paired(images, masks, layout.folder("ImageSets/Segmentation") / f"{split}.txt"),
            LabelMap(
                {**{i: i for i in range(len(CLASSES))}, IGNORED: None}, len(CLASSES), official=True
            ),
            CLASSES,
            [(0, 0, 0), *generated_palette(len(CLASSES) - 1)],
            limit=limit,
            cache=cache,
            orientation=orientation,
        )
