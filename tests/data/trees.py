"""Small trees in the layouts of the benchmarks, with masks that hold every id."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segdistill.data.published.cocostuff import CLASSES as COCO_CLASSES
from tests.data.files import save_image, save_mask

Size = tuple[int, int]


def _mask(ids: Sequence[int], size: Size) -> np.ndarray:
    """The ids one after the other, row by row, in runs of four."""
    places = np.arange(size[0] * size[1]) // 4 % len(ids)
    return np.asarray(ids, np.uint8)[places].reshape(size)


def cityscapes(root: Path, count: int = 3, size: Size = (12, 16)) -> Path:
    """Two cities in train, one each in val and test, whose masks are blank as in the real test."""
    cities = (("train", "aachen"), ("train", "ulm"), ("val", "lindau"), ("test", "bonn"))
    for place, (split, city) in enumerate(cities):
        for i in range(count):
            stem = f"{city}_{i:06d}_000019"
            image = root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png"
            save_image(image, *size, value=40 * place + i)
            truth = root / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png"
            ids = [0] if split == "test" else range(34)
            save_mask(truth, _mask(ids, size))
    return root


def voc(root: Path, count: int = 3, size: Size = (12, 16)) -> Path:
    """`VOCdevkit/VOC2012`; train_aug is train and as many again."""
    base = root / "VOCdevkit" / "VOC2012"
    lists = base / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    names = {
        split: [f"20{year:02d}_{i:06d}" for i in range(count)]
        for year, split in enumerate(("train", "extra", "val", "test"), 7)
    }
    for place, (split, stems) in enumerate(names.items()):
        for i, stem in enumerate(stems):
            save_image(base / "JPEGImages" / f"{stem}.jpg", *size, value=40 * place + 4 * i)
            if split in ("train", "val"):
                save_mask(base / f"SegmentationClass/{stem}.png", _mask([*range(21), 255], size))
            if split in ("train", "extra"):
                save_mask(base / f"SegmentationClassAug/{stem}.png", _mask([*range(21), 255], size))
    names["train_aug"] = names["train"] + names.pop("extra")
    for split, stems in names.items():
        (lists / f"{split}.txt").write_text("\n".join(stems) + "\n")
    return root


def ade20k(root: Path, count: int = 3, size: Size = (20, 36)) -> Path:
    """`ADEChallengeData2016`, with the images of test beside."""
    base = root / "ADEChallengeData2016"
    splits = (("training", "train"), ("validation", "val"), ("testing", "test"))
    for place, (split, short) in enumerate(splits):
        for i in range(1, count + 1):
            stem = f"ADE_{short}_{i:08d}"
            save_image(base / "images" / split / f"{stem}.jpg", *size, value=40 * place + 4 * i)
            if split != "testing":
                save_mask(base / "annotations" / split / f"{stem}.png", _mask(range(151), size))
    return root


def cocostuff(root: Path, count: int = 3, size: Size = (20, 36)) -> Path:
    """The layout of the official README."""
    ids = [*(int(row["id"]) for row in COCO_CLASSES), 255]
    for place, split in enumerate(("train2017", "val2017")):
        for i in range(count):
            value = 40 * place + 4 * i
            save_image(root / "images" / split / f"{i:012d}.jpg", *size, value=value)
            save_mask(root / "annotations" / split / f"{i:012d}.png", _mask(ids, size))
    return root
