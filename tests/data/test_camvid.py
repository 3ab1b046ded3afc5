"""Both layouts of CamVid, its drives, and the real frames."""

import pytest
import torch

from segdistill.data.published.camvid import CamVid
from tests.data.files import DRIVES, ids, save_mask


def test_names_follow_the_list(camvid_tree):
    dataset = CamVid(camvid_tree)
    assert dataset.names == [drive.format(i) for drive in reversed(DRIVES) for i in (2, 1, 0)]
    assert dataset.groups == ["Seq05VD"] * 3 + ["0001TP"] * 3
    # The blue channel holds the number that the name was written with: image and name agree.
    assert dataset.read(0)[0][2].unique().tolist() == [5]


@pytest.mark.parametrize("inside", ["", "CamVid"])
def test_the_segnet_layout_is_read_from_either_folder(segnet_tree, inside):
    for split in ("train", "val", "test"):
        dataset = CamVid(segnet_tree / inside, split)
        assert dataset.names == [drive.format(i) for drive in DRIVES for i in range(3)]
        assert dataset.read(0)[1].shape == (12, 16)


def test_void_is_ignored(camvid_tree):
    label = CamVid(camvid_tree).read(0)[1]
    assert torch.equal(label == 255, torch.from_numpy(ids(12)) == 11)
    assert label[label != 255].unique().tolist() == list(range(11))


def test_without_a_list_all_frames_are_used(camvid_tree):
    (camvid_tree / "train.txt").unlink()
    assert len(CamVid(camvid_tree)) == 6


def test_a_listed_frame_that_is_missing_is_named(camvid_tree):
    (camvid_tree / "train" / "images" / "0001TP_0001.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"train\.txt names 1 frame.*: 0001TP_0001$"):
        CamVid(camvid_tree)


def test_a_missing_mask_is_named(camvid_tree):
    (camvid_tree / "train" / "labels" / "0001TP_0001.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 frame\(s\) have no mask.*0001TP_0001\.png"):
        CamVid(camvid_tree)


def test_a_wrong_root_says_what_was_expected_and_what_is_there(tmp_path):
    for name in ("pictures", "truth"):
        (tmp_path / name).mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"expected train/images.*trainannot\. It holds pic"
    ):
        CamVid(tmp_path)
    with pytest.raises(FileNotFoundError, match="There is no such folder"):
        CamVid(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="It is empty"):
        CamVid(tmp_path / "truth")
    with pytest.raises(ValueError, match="camvid: `root` is missing"):
        CamVid()


def test_an_id_outside_the_classes_is_named(camvid_tree):
    path = save_mask(camvid_tree / "train" / "labels" / "0001TP_0001.png", ids(12) + 1)
    dataset = CamVid(camvid_tree)
    message = rf"{path}: label id 12 .* is not in this data set; expected 0\.\.11\. .* own as data `folder`"
    with pytest.raises(ValueError, match=message):
        dataset.read(dataset.names.index("0001TP_0001"))


def test_the_real_frames(real_data):
    root = real_data / "camvid"
    train, val = CamVid(root), CamVid(root, "val")
    assert (len(train), len(val)) == (367, 101)
    drives = {name: train.groups.count(name) for name in sorted(set(train.groups))}
    assert drives == {"0001TP": 62, "0006R0": 101, "0016E5": 204}
    assert set(val.groups) == {"0016E5"} and not set(val.names) & set(train.names)
    # The published shares of four classes in val, in per cent of all pixels.
    counts = torch.zeros(256, dtype=torch.int64)
    for index in range(len(val)):
        image, label = val.read(index)
        assert image.shape == (3, 360, 480)
        counts += torch.bincount(label.flatten(), minlength=256)
    share = 100 * counts / counts.sum()
    published = {"sky": 9.18, "building": 25.96, "bicyclist": 2.22}
    assert {
        name: round(float(share[val.classes.index(name)]), 2) for name in published
    } == published
    assert round(float(share[255]), 2) == 1.70
