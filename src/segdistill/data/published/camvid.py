"""CamVid road scenes: 480x360 frames from four drives, 11 classes."""

from collections.abc import Iterable
from pathlib import Path

from segdistill.data.caching import Cache
from segdistill.data.dataset import PairDataset, list_names
from segdistill.data.files import IMAGE_SUFFIXES
from segdistill.data.label_map import LabelMap
from segdistill.data.pair import Pair
from segdistill.data.published.layout import listed_names
from segdistill.names import unknown

CLASSES = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (0, 0, 192),
    "tree": (128, 128, 0),
    "sign_symbol": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
VOID = 11
SPLITS = ("train", "val", "test")


class CamVid(PairDataset):
    """CamVid in the 11-class form that the SegNet authors published.

    Two layouts of `root` are supported:

    - `train/images/*.jpg`, `train/labels/*.png` and a list `train.txt` of names;
    - the SegNet tutorial's `CamVid/train/*.png`, `CamVid/trainannot/*.png` and `CamVid/train.txt`
      with a line `/SegNet/CamVid/train/x.png /SegNet/CamVid/trainannot/x.png` for each frame
      (`root` may also be that `CamVid` folder).

    The list sets frames and order; without one, all frames are used in name order.
    Masks hold 0..10, and 11 for void, which is ignored. The groups are the drives, named by the
    text before the underscore: `0001TP`, `0006R0` and `0016E5` in train (62, 101 and 204 frames),
    `0016E5` in val (101), `Seq05VD` and `0001TP` in test. Val is a seven-second clip from a
    training drive, so val metrics are far higher than on an unseen drive; use `groups` for folds
    by drive.

    Brostow, Fauqueur, Cipolla, "Semantic object classes in video", Pattern Recognition Letters
    30(2), 2009; Badrinarayanan, Kendall, Cipolla, "SegNet", PAMI 2017.

    Args:
        root: The folder described above.
        split: `train`, `val` or `test`.
        groups: Keep only these drives.
        limit: Keep only the first so many frames.
        cache: Keep decoded frames in memory (0.7 MB per frame).
        orientation: What masks without an orientation tag match: `upright` or `stored`; see `PairDataset`.

    Raises:
        FileNotFoundError: `root` has neither layout, or a listed frame is missing.
        ValueError: There is no such split or drive.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "train",
        *,
        groups: Iterable[str] | None = None,
        limit: int | None = None,
        cache: Cache = False,
        orientation: str | None = None,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(unknown("CamVid split", split, SPLITS))
        if root is None:
            raise ValueError(
                "camvid: `root` is missing; expected the folder that holds its frames and lists"
            )
        images, masks, names_file = _layout(Path(root), split)
        mapping: dict[int, int | None] = {i: i for i in range(len(CLASSES))}
        super().__init__(
            _pairs(images, masks, names_file),
            LabelMap({**mapping, VOID: None}, len(CLASSES), official=True),
            list(CLASSES),
            list(CLASSES.values()),
            groups=groups,
            limit=limit,
            cache=cache,
            orientation=orientation,
        )


def _layout(root: Path, split: str) -> tuple[Path, Path, Path]:
    """Folder of images, folder of masks, list file (which may not exist)."""
    for base in (root, root / "CamVid"):
        for images, masks in (
            (base / split / "images", base / split / "labels"),
            (base / split, base / f"{split}annot"),
        ):
            if images.is_dir() and masks.is_dir():
                return images, masks, base / f"{split}.txt"
    if not root.is_dir():
        contents = "There is no such folder"
    else:
        entries = sorted(entry.name for entry in root.iterdir())
        contents = f"It holds {list_names(entries, 8)}" if entries else "It is empty"
    raise FileNotFoundError(
        f"{root} is not a CamVid folder with a {split} split; expected {split}/images and "
        f"{split}/labels, or {split} and {split}annot. {contents}"
    )


def _pairs(images: Path, masks: Path, names_file: Path) -> list[Pair]:
    files = {p.stem: p for p in sorted(images.iterdir()) if p.suffix.lower() in IMAGE_SUFFIXES}
    names = listed_names(names_file) if names_file.is_file() else list(files)
    missing = [name for name in names if name not in files]
    if missing:
        raise FileNotFoundError(
            f"{names_file} names {len(missing)} frame(s) missing from {images}: {list_names(missing)}"
        )
    pairs = [Pair(n, files[n], masks / f"{n}.png", n.partition("_")[0]) for n in names]
    unlabelled = [pair.mask for pair in pairs if pair.mask and not pair.mask.is_file()]
    if unlabelled:
        raise FileNotFoundError(
            f"{len(unlabelled)} frame(s) have no mask; expected {list_names(unlabelled, 3)}"
        )
    if not pairs:
        raise FileNotFoundError(f"{images} holds no frames; expected .jpg or .png files")
    return pairs
