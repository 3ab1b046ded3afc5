"""ADE20K scene parsing: indoor and outdoor scenes, 150 classes."""

import csv
from pathlib import Path

from segdistill.data.caching import Cache
from segdistill.data.dataset import PairDataset
from segdistill.data.label_map import LabelMap
from segdistill.data.published.layout import Files, Layout, paired
from segdistill.names import unknown

CLASSES = list(csv.DictReader(Path(__file__).with_suffix(".csv").read_text().splitlines()))
"""Id in the masks, name and colour of each class, in order.

The name is the first that the challenge lists. Road and skyscraper have the same colour there.
"""

SPLITS = {"train": "training", "val": "validation", "test": "testing"}


class ADE20K(PairDataset):
    """ADE20K as released for the scene parsing challenge of 2016.

    `root` is `ADEChallengeData2016` or the folder that holds it. It contains
    `images/training/*.jpg` and `annotations/training/*.png` (20,210), and the same for
    `validation` (2000). The images of `test` are a separate download: put them in
    `images/testing`. They have no label.

    Masks hold 1..150, which become the classes 0..149; 0 (everything else) is ignored.

    Zhou et al., "Scene Parsing through ADE20K Dataset", CVPR 2017.

    Args:
        root: The folder described above.
        split: `train`, `val` or `test`.
        limit: Keep only the first so many images.
        cache: Keep decoded images in memory (about 1.5 MB per image).
        orientation: What masks without an orientation tag match: `upright` or `stored`; see `PairDataset`.

    Raises:
        FileNotFoundError: `root` has another layout, or a mask is missing.
        ValueError: There is no such split.
    """

    server_ids = tuple(int(row["id"]) for row in CLASSES)

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
            raise ValueError(unknown("ADE20K split", split, SPLITS))
        layout, place = Layout("ade20k", root, inside=("ADEChallengeData2016",)), SPLITS[split]
        images = Files(layout.folder(f"images/{place}"), ".jpg")
        masks = None if split == "test" else Files(layout.folder(f"annotations/{place}"), ".png")
        mapping: dict[int, int | None] = {id_: n for n, id_ in enumerate(self.server_ids)}
        super().__init__(
            paired(images, masks),
            LabelMap({**mapping, 0: None}, len(CLASSES), official=True),
            [row["name"] for row in CLASSES],
            [[int(row[channel]) for channel in ("red", "green", "blue")] for row in CLASSES],
            limit=limit,
            cache=cache,
            orientation=orientation,
        )
