"""171 of 182 numbers, two layouts, and the real images of COCO-Stuff."""

import numpy as np
import pytest

from segdistill.data.published.cocostuff import COCOStuff
from tests.data import trees
from tests.data.files import save_mask

# Numbers 1..182 that the official labels.md marks as removed from COCO.
REMOVED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)


@pytest.fixture
def root(tmp_path):
    return trees.cocostuff(tmp_path)


def test_the_171_numbers_that_occur_become_consecutive_classes(root):
    dataset = COCOStuff(root)
    expected = np.full(256, 255)
    expected[[n - 1 for n in range(1, 183) if n not in REMOVED]] = np.arange(171)
    raw = np.array([*(n - 1 for n in range(1, 183) if n not in REMOVED), 255])
    stored = raw[np.arange(720).reshape(20, 36) // 4 % 172]
    assert dataset.read(0)[1].tolist() == expected[stored].tolist()
    assert dataset.num_classes == len(set(dataset.classes)) == 171
    # The last thing (number 90) and the first stuff (number 92) are neighbours.
    assert dataset.classes[79:81] == ["toothbrush", "banner"]


@pytest.mark.parametrize("number", REMOVED)
def test_a_removed_number_is_refused(root, number):
    path = root / "annotations/val2017/000000000000.png"
    save_mask(path, np.full((20, 36), number - 1, np.uint8))
    with pytest.raises(ValueError, match=rf"{path}: label id {number - 1} \(first"):
        COCOStuff(root, "val").read(0)


def test_the_layout_of_the_downloads_is_read_too(root):
    (root / "annotations").rename(root / "stuffthingmaps")
    for split in ("train2017", "val2017"):
        (root / "images" / split).rename(root / split)
    assert len(COCOStuff(root)) == len(COCOStuff(root, "val")) == 3


def test_a_wrong_root_is_refused(root):
    (root / "annotations").rename(root / "masks")
    with pytest.raises(FileNotFoundError, match=r"annotations/val2017 or stuffthing.*images, mas"):
        COCOStuff(root, "val")


def test_the_real_images(real_data):
    root = real_data / "samples" / "coco_stuff"
    train, val = COCOStuff(root), COCOStuff(root, "val")
    seen = {n: {val.classes[c] for c in val.read(i)[1].unique() if c != 255}
            for i, n in enumerate(val.names)}  # fmt: skip
    assert (len(train), len(val)) == (3, 4)
    assert seen["000000000785"] == {"person", "skis", "fog", "snow"}
    assert {"tv", "chair", "microwave", "clock", "wall-concrete"} <= seen["000000000139"]
