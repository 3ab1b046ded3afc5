"""COCO-Stuff 164k: the images of COCO 2017, 80 thing classes and 91 stuff classes."""

import csv
from pathlib import Path

from segdistill.data.caching import Cache
from segdistill.data.dataset import PairDataset
from segdistill.data.label_map import IGNORED, LabelMap
from segdistill.data.published.layout import Files, Layout, paired
from segdistill.names import unknown

CLASSES = list(csv.DictReader(Path(__file__).with_suffix(".csv").read_text().splitlines()))
"""Id in the masks and name of each class, in order."""

SPLITS = ("train", "val")


class COCOStuff(PairDataset):
    """COCO-Stuff 164k with its 171 classes.

    `root` holds the images in `images/train2017` (or `train2017`) and the pixel maps in
    `annotations/train2017` (or `stuffthingmaps/train2017`), 118,287 of each, and the same for
    `val2017` (5000).

    COCO-Stuff numbers its labels 1..182. The maps hold that number minus one, 0..181, and 255
    for unlabelled, which is ignored. Eleven of the numbers (12, 26, 29, 30, 45, 66, 68, 69, 71, 83
    and 91: street sign, hat, shoe, ..) were removed from COCO and never occur; the other 171
    become the classes 0..170 in order. A map with one of the eleven is refused.

    The palette is generated, since no colours were published for the thing classes.

    Caesar, Uijlings, Ferrari, "COCO-Stuff: Thing and Stuff Classes in Context", CVPR 2018.

    Args:
        root: The folder described above.
        split: `train` or `val`.
        limit: Keep only the first so many images.
        cache: Keep decoded images in memory (about 1.2 MB per image).
        orientation: What masks without an orientation tag match: `upright` or `stored`; see `PairDataset`.

    Raises:
        FileNotFoundError: `root` has another layout, or a map is missing.
        ValueError: There is no such split.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "train",
        *,
        limit: int | None = None,
        cache: Cache = False,
        orientation: str | None = None,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(unknown("COCO-Stuff split", split, SPLITS))
        layout, place = Layout("cocostuff", root), f"{split}2017"
        images = Files(layout.folder(f"images/{place}", place), ".jpg")
        masks = Files(layout.folder(f"annotations/{place}", f"stuffthingmaps/{place}"), ".png")
        mapping: dict[int, int | None] = {int(row["id"]): n for n, row in enumerate(CLASSES)}
        super().__init__(
            paired(images, masks),
            LabelMap({**mapping, IGNORED: None}, len(CLASSES), official=True),
            [row["name"] for row in CLASSES],
            limit=limit,
            cache=cache,
            orientation=orientation,
        )
