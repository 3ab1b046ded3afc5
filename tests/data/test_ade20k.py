"""The shift by one, the 150 classes, and the real images of ADE20K."""

import numpy as np
import pytest

from segdistill.data.published.ade20k import ADE20K
from tests.data import trees
from tests.data.files import save_mask


@pytest.fixture
def root(tmp_path):
    return trees.ade20k(tmp_path)


@pytest.mark.parametrize("inside", ["", "ADEChallengeData2016"])
def test_ids_are_moved_down_by_one_and_0_is_ignored(root, inside):
    dataset = ADE20K(root / inside, "val")
    raw = np.arange(720).reshape(20, 36) // 4 % 151
    assert dataset.read(0)[1].tolist() == np.where(raw == 0, 255, raw - 1).tolist()
    assert dataset.names[0] == "ADE_val_00000001"


def test_the_classes_are_those_of_the_challenge(root):
    dataset = ADE20K(root)
    assert dataset.num_classes == len(set(dataset.classes)) == 150
    assert dataset.classes[:3] == ["wall", "building", "sky"] and dataset.classes[-1] == "flag"
    assert dataset.palette[0] == (120, 120, 120) and dataset.palette[149] == (92, 0, 255)


def test_the_test_images_have_no_labels(root):
    test = ADE20K(root, "test")
    assert test.names[0] == "ADE_test_00000001" and not test.labelled


def test_an_id_above_150_is_refused(root):
    path = root / "ADEChallengeData2016/annotations/training/ADE_train_00000001.png"
    save_mask(path, np.full((20, 36), 151, np.uint8))
    with pytest.raises(
        ValueError, match=rf"{path}: label id 151 .* is not in this data set; expected 0\.\.150\."
    ):
        ADE20K(root).read(0)


def test_a_wrong_root_is_refused(root):
    with pytest.raises(FileNotFoundError, match=r"images/training in .*ADE.*images holds test"):
        (root / "ADEChallengeData2016/images/training").rename(root / "training")
        ADE20K(root)


def test_the_real_images(real_data):
    val = ADE20K(real_data / "samples" / "ade20k", "val")
    present = [{val.classes[c] for c in val.read(i)[1].unique() if c != 255} for i in range(2)]
    assert present[0] == {"wall", "building", "sky", "tree", "road", "grass", "plant"}
    assert {"sky", "sidewalk", "bus", "car", "streetlight"} <= present[1]
