"""Cityscapes street scenes: 2048x1024 frames from 50 cities, 19 classes."""

from collections.abc import Iterable
from pathlib import Path

from segdistill.data.caching import Cache
from segdistill.data.dataset import PairDataset
from segdistill.data.label_map import IGNORED, LabelMap
from segdistill.data.published.layout import Files, Layout, paired
from segdistill.names import unknown

CLASSES = {
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}
"""Label id and colour of each class, in the order of the train ids 0..18."""

LABEL_IDS = tuple(label_id for label_id, _ in CLASSES.values())
SPLITS = ("train", "val", "test")
STORED = ("labelIds", "labelTrainIds")


class Cityscapes(PairDataset):
    """Cityscapes in its official layout, with the fine annotations.

    `root` holds `leftImg8bit/<split>/<city>/<name>_leftImg8bit.png` and
    `gtFine/<split>/<city>/<name>_gtFine_labelIds.png`: 2975 frames in train, 500 in val, 1525 in
    test. Of the 34 label ids, 19 become the train ids and 15 are ignored, as in the benchmark.
    The groups are the cities.

    The masks of test hold no classes (the ground truth is not published), so they are not read:
    its samples have no label.

    Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016.

    Args:
        root: The folder described above.
        split: `train`, `val` or `test`.
        masks: Which masks to read: `labelIds`, or the `labelTrainIds` that the official scripts
            write, with 0..18 and 255 for ignored.
        groups: Keep only these cities.
        limit: Keep only the first so many frames.
        cache: Keep decoded frames in memory (8 MB per frame); "disk": in files.
        orientation: What masks without an orientation tag match: `upright` or `stored`; see `PairDataset`.

    Raises:
        FileNotFoundError: `root` has another layout, or a mask is missing.
        ValueError: There is no such split, city or kind of mask.
    """

    server_ids = LABEL_IDS
    server_ending = "_pred_labelIds.png"

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "train",
        *,
        masks: str = "labelIds",
        groups: Iterable[str] | None = None,
        limit: int | None = None,
        cache: Cache = False,
        orientation: str | None = None,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(unknown("Cityscapes split", split, SPLITS))
        if masks not in STORED:
            raise ValueError(unknown("kind of Cityscapes masks", masks, STORED))
        layout = Layout("cityscapes", root)
        images = Files(layout.folder(f"leftImg8bit/{split}"), "_leftImg8bit.png")
        truth = None
        if split != "test":
            truth = Files(layout.folder(f"gtFine/{split}"), f"_gtFine_{masks}.png")
        super().__init__(
            paired(images, truth),
            LabelMap(_mapping(masks), len(CLASSES), official=True),
            list(CLASSES),
            [colour for _, colour in CLASSES.values()],
            groups=groups,
            limit=limit,
            cache=cache,
            orientation=orientation,
        )


def _mapping(masks: str) -> dict[int, int | None]:
    if masks == "labelTrainIds":
        return {**{number: number for number in range(len(CLASSES))}, IGNORED: None}
    ignored: dict[int, int | None] = dict.fromkeys(range(34))
    return ignored | {label_id: number for number, label_id in enumerate(LABEL_IDS)}
