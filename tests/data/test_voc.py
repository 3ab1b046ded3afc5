"""Lists, palette masks and splits of Pascal VOC, and the real images."""

import pytest

from segdistill.data.published.layout import listed_names
from segdistill.data.published.voc import PascalVOC
from tests.data import trees


@pytest.fixture
def root(tmp_path):
    return trees.voc(tmp_path)


@pytest.mark.parametrize("inside", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_the_root_may_be_any_of_the_three_folders(root, inside):
    assert PascalVOC(root / inside).names == ["2007_000000", "2007_000001", "2007_000002"]


def test_train_aug_has_its_own_masks_and_val_the_official_ones(root):
    train = PascalVOC(root, "train_aug")
    assert train.names[:3] == PascalVOC(root).names and len(train) == 6
    assert {pair.mask.parent.name for pair in train.pairs} == {"SegmentationClassAug"}
    val = PascalVOC(root, "val")
    assert {pair.mask.parent.name for pair in val.pairs} == {"SegmentationClass"}
    assert val.read(0)[1].unique().tolist() == [*range(21), 255]


def test_the_list_sets_samples_and_order(root):
    lists = root / "VOCdevkit/VOC2012/ImageSets/Segmentation"
    # Some lists hold paths of image and mask.
    lines = [f"/JPEGImages/2007_{i:06d}.jpg /SegmentationClass/2007_{i:06d}.png" for i in (2, 0)]
    (lists / "train.txt").write_text("\n".join(lines))
    assert PascalVOC(root).names == ["2007_000002", "2007_000000"]
    (lists / "train.txt").write_text("2007_000000\n2007_999999\n2007_999998\n")
    with pytest.raises(FileNotFoundError) as error:
        PascalVOC(root)
    assert str(error.value) == (
        f"{lists}/train.txt names 2 file(s) missing from {root}/VOCdevkit/VOC2012/JPEGImages: "
        "2007_999999.jpg, 2007_999998.jpg"
    )
    (lists / "train.txt").write_text("2010_000000\n")
    with pytest.raises(FileNotFoundError, match=r"have no mask.*expected 2010_000000\.png"):
        PascalVOC(root, "train")
    (lists / "train.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"train\.txt is empty"):
        PascalVOC(root)
    (lists / "train.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"train\.txt: no such list.*holds test\.txt, tr"):
        PascalVOC(root)


def test_the_test_split_has_no_labels(root):
    test = PascalVOC(root, "test")
    assert len(test) == 3 and not test.labelled and "label" not in test[0]


def test_the_colours_are_the_published_ones(root):
    palette = dict(zip(PascalVOC(root).classes, PascalVOC(root).palette, strict=True))
    assert palette["background"] == (0, 0, 0) and palette["aeroplane"] == (128, 0, 0)
    assert palette["person"] == (192, 128, 128) and palette["tvmonitor"] == (0, 64, 128)


def test_the_real_images(real_data):
    val = PascalVOC(real_data / "samples" / "voc", "val")
    present = [{val.classes[c] for c in val.read(i)[1].unique() if c != 255} for i in range(2)]
    assert val.names == ["2011_000003", "2011_000025"]
    assert present == [{"background", "bottle", "person"}, {"background", "bus", "car"}]
    assert (val.read(0)[1] == 255).any()


def test_the_published_lists(real_data):
    train = listed_names(real_data / "lists" / "voc_train_aug.txt")
    val = listed_names(real_data / "lists" / "voc_val.txt")
    assert (len(set(train)), len(set(val))) == (10582, 1449)
    assert not set(train) & set(val)
