"""The official folders, the two kinds of masks, and the real frames."""

import numpy as np
import pytest
import torch

from segdistill.data.published.cityscapes import CLASSES, LABEL_IDS, Cityscapes
from tests.data import trees
from tests.data.files import save_mask

# The published table {id: train id}; all other ids in 0..33 are ignored.
TRAIN_IDS = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11}
TRAIN_IDS |= {25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18}


@pytest.fixture
def root(tmp_path):
    return trees.cityscapes(tmp_path)


def test_all_34_label_ids_become_train_ids_or_are_ignored(root):
    save_mask(_truth(root), np.arange(34, dtype=np.uint8).repeat(6)[:192].reshape(12, 16))
    label = Cityscapes(root).read(0)[1].flatten()[::6]
    assert label.tolist() == [TRAIN_IDS.get(i, 255) for i in range(32)]
    assert dict(zip(LABEL_IDS, range(19), strict=True)) == TRAIN_IDS


def _truth(root, kind="labelIds", name="aachen_000000_000019"):
    return root / "gtFine" / "train" / name.partition("_")[0] / f"{name}_gtFine_{kind}.png"


def test_frames_are_named_and_grouped_by_city(root):
    train = Cityscapes(root)
    assert train.names[0] == "aachen_000000_000019" and len(train) == 6
    assert train.groups == ["aachen"] * 3 + ["ulm"] * 3
    assert Cityscapes(root, groups=["ulm"]).names == train.names[3:]


def test_masks_of_train_ids_are_read_when_asked_for(root):
    wanted = np.r_[np.arange(19), 255].astype(np.uint8)
    for name in Cityscapes(root).names:
        save_mask(_truth(root, "labelTrainIds", name), np.resize(wanted, (12, 16)))
    dataset = Cityscapes(root, masks="labelTrainIds", limit=1)
    assert dataset.read(0)[1].unique().tolist() == [*range(19), 255]
    # The server expects label ids, whichever masks were read.
    assert dataset.server_ids == LABEL_IDS


def test_missing_train_id_masks_are_reported_at_once(root):
    with pytest.raises(FileNotFoundError, match=r"no file named \*_gtFine_labelTrainIds\.png"):
        Cityscapes(root, masks="labelTrainIds")
    with pytest.raises(ValueError, match="'labelIDs'; did you mean 'labelIds'"):
        Cityscapes(root, masks="labelIDs")


def test_the_test_split_has_no_labels_although_it_has_masks(root):
    test = Cityscapes(root, "test")
    assert not test.labelled and sorted(test[0]) == ["image", "name"]
    assert test.read(0)[1].unique().tolist() == [255]
    assert Cityscapes(root).labelled


def test_an_instance_map_is_recognised(root):
    path = save_mask(_truth(root), np.full((12, 16), 26001, np.uint16))
    with pytest.raises(ValueError) as error:
        Cityscapes(root).read(0)
    assert str(error.value) == (
        f"{path}: label id is 26001; expected 0..33. "
        "Ids above 8 bits suggest an instance map: use the class map"
    )


def test_a_missing_mask_is_named(root):
    _truth(root).unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 6 images have no mask.*aachen_000000_0000"):
        Cityscapes(root)


def test_a_wrong_root_says_what_was_expected_and_what_is_there(root):
    with pytest.raises(FileNotFoundError) as error:
        Cityscapes(root / "gtFine")
    assert str(error.value) == (
        f"cityscapes: no folder leftImg8bit/train in {root}/gtFine; "
        f"{root}/gtFine holds test, train, val"
    )
    with pytest.raises(FileNotFoundError, match=r"leftImg8bit holds test, train$"):
        (root / "leftImg8bit" / "val").rename(root / "val")
        Cityscapes(root, "val")
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*none$"):
        Cityscapes(root / "none")
    with pytest.raises(ValueError, match="cityscapes: `root` is missing"):
        Cityscapes()


def test_the_real_frames(real_data):
    root = real_data / "samples" / "cityscapes"
    train, val = Cityscapes(root), Cityscapes(root, "val")
    assert (len(train), len(val)) == (3, 1)
    image, label = val.read(0)
    assert image.shape == (3, 1024, 2048)
    present = [train.classes[i] for i in label[label != 255].unique()]
    assert {"road", "car", "sky", "vegetation"} <= set(present)
    # Road lies below, sky above.
    rows = torch.arange(1024)[:, None].expand(1024, 2048)
    order = list(CLASSES)
    means = [rows[label == order.index(name)].double().mean() for name in ("sky", "car", "road")]
    assert means[0] < 300 < means[1] < means[2]
