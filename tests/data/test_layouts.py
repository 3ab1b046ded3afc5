"""Layouts of the user's files beyond two folders of equal names, and what messages propose."""

import re
import unicodedata

import numpy as np
import pytest
import yaml

from segdistill.data.folder import Folder, folder_pairs
from tests.data.files import ids, save_image, save_mask


def _proposed(text):
    """The options that a message proposes."""
    return yaml.safe_load(re.search(r"Set data\.options: (\{.*?\})", text)[1])


def _beside(root, image, mask, names=("a", "b_1", "c_2")):
    for value, name in enumerate(names):
        save_image(root / f"{name}{image}.png", value=value)
        save_mask(root / f"{name}{mask}.png", ids(3))


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("", "_mask"),
        ("_sat", "_mask"),
        ("_leftImg8bit", "_gtFine_labelIds"),
        ("", "-seg"),
        ("_rgb", "_x"),
    ],
)
def test_images_and_masks_side_by_side_are_proposed_and_read(tmp_path, image, mask):
    _beside(tmp_path, image, mask)
    with pytest.raises(FileNotFoundError) as error:
        Folder(tmp_path, "all", classes=3)
    options = _proposed(str(error.value))
    assert options.pop("image_dir") == options.pop("mask_dir") == "."
    assert options == {**({"image_suffix": image} if image else {}), "mask_suffix": mask}
    dataset = Folder(tmp_path, "all", classes=3, image_dir=".", mask_dir=".", **options)
    assert dataset.names == ["a", "b_1", "c_2"]
    assert [pair.mask.stem for pair in dataset.pairs] == [f"{n}{mask}" for n in dataset.names]
    assert [int(dataset.read(i)[0][2, 0, 0]) for i in range(3)] == [0, 1, 2]


def test_one_folder_needs_suffixes_and_they_are_proposed(tmp_path):
    _beside(tmp_path / "all", "", "_mask")
    with pytest.raises(ValueError, match=r"is both image_dir and mask_dir.*\{mask_suffix: _mask\}"):
        Folder(tmp_path, "all", classes=3, image_dir="all", mask_dir="all")
    dataset = Folder(
        tmp_path, "all", classes=3, image_dir="all", mask_dir="./all", mask_suffix="_mask"
    )
    assert len(dataset) == 3


def test_of_several_maps_of_an_image_one_is_meant(tmp_path, caplog):
    kinds = ("_gt_labelIds", "_gt_color", "_gt_instanceIds")
    for name in ("a_1", "b_2", "c_3"):
        save_image(tmp_path / "images" / f"{name}.png")
        for kind in kinds:
            save_mask(tmp_path / "masks" / f"{name}{kind}.png", ids(3))
    with pytest.raises(ValueError) as error:
        Folder(tmp_path, "all", classes=3)
    text = str(error.value)
    assert all(f"{{mask_suffix: {kind}}}" in text for kind in kinds)
    with caplog.at_level("INFO", "segdistill"):
        dataset = Folder(tmp_path, "all", classes=3, mask_suffix="_gt_labelIds")
    assert dataset.pairs[0].mask.name == "a_1_gt_labelIds.png"
    assert re.search(r"6 other files in .*masks are not read \(a_1_gt_color,", caplog.text)
    save_mask(tmp_path / "masks/zebra.png", ids(3))
    with pytest.raises(
        ValueError, match=r"1 of 10 files in .* belong to no image and mask \(zebra\)"
    ):
        Folder(tmp_path, "all", classes=3, mask_suffix="_gt_labelIds")


def test_frames_of_a_sequence_are_no_suffixes(tmp_path):
    for i in range(40):
        save_image(tmp_path / "images" / f"seq_f{i:03d}.png")
        save_mask(tmp_path / "masks" / f"seq_f{i + 3:03d}.png", ids(3))
    with pytest.raises(ValueError) as error:
        Folder(tmp_path, "all", classes=3)
    assert "Set data.options" not in str(error.value)


@pytest.mark.parametrize("layout", ["{kind}/{split}", "{split}/{kind}"])
@pytest.mark.parametrize(
    ("names", "asked", "remedy"),
    [
        (("training", "validation"), "train", "Set data.train_split: training"),
        (("training", "validation"), "val", "Set data.val_split: validation"),
        (("train", "valid", "test"), "val", "Set data.val_split: valid"),
        (("train", "test"), "val", "Set data.val_split: test"),
        (("Train", "Val"), "val", "Set data.val_split: Val"),
    ],
)
def test_other_names_of_split_folders_are_proposed(tmp_path, layout, names, asked, remedy):
    for split in names:
        save_image(tmp_path / layout.format(kind="images", split=split) / f"{split}.png")
        save_mask(tmp_path / layout.format(kind="masks", split=split) / f"{split}.png", ids(3))
    with pytest.raises(ValueError, match=rf"no split folder named {asked!r}.*{remedy}$"):
        Folder(tmp_path, asked, classes=3)
    split = remedy.split()[-1]
    assert Folder(tmp_path, split, classes=3).names == [split]


@pytest.mark.parametrize("layout", ["{kind}/{split}", "{split}/{kind}"])
@pytest.mark.parametrize("names", [("train", "val"), ("Training", "test")])
def test_split_folders_are_read_before_files_beside_them_which_are_counted(
    tmp_path, caplog, layout, names
):
    for place in (*(layout.replace("{split}", split) for split in names), "{kind}"):
        name = place.replace("/", "").replace("{kind}", "x")
        save_image(tmp_path / place.format(kind="images") / f"{name}.png")
        save_mask(tmp_path / place.format(kind="masks") / f"{name}.png", ids(3))
    for split in names:
        (name,) = Folder(tmp_path, split, classes=3).names
        assert name.strip("x") == split
    (line,) = [one.getMessage() for one in caplog.records]
    assert line == f"{tmp_path}/images: images beside split folders are not read: 1 (x.png)"


def test_folders_with_images_that_are_no_splits_do_not_hide_files(tmp_path, caplog):
    for place in ("", "old"):
        save_image(tmp_path / place / "images/a.png")
        save_mask(tmp_path / place / "masks/a.png", ids(3))
    assert Folder(tmp_path, "all", classes=3).names == ["a"]
    assert not caplog.records


def test_an_export_of_masks_by_roboflow_is_read(tmp_path):
    for split in ("train", "valid"):
        _beside(tmp_path / split, "", "_mask")
        (tmp_path / split / "_classes.csv").write_text(
            "Pixel Value, Class\n0, unlabeled\n1, road\n2, car\n"
        )
    with pytest.raises(FileNotFoundError) as error:
        Folder(tmp_path, "train", classes=3)
    options = _proposed(str(error.value))
    assert options == {"image_dir": ".", "mask_dir": ".", "mask_suffix": "_mask"}
    with pytest.raises(ValueError) as error:
        Folder(tmp_path, "train", **options)
    classes = _proposed(str(error.value))
    assert classes == {"classes": ["unlabeled", "road", "car"]}
    dataset = Folder(tmp_path, "valid", **options, **classes)
    assert len(dataset) == 3 and np.unique(dataset.read(0)[1]).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=r"Set data\.val_split: valid"):
        Folder(tmp_path, "val", **options, **classes)


def test_names_in_two_forms_of_unicode_are_one_name(tmp_path):
    composed, apart = (
        unicodedata.normalize(form, "stra\u00dfe-caf\u00e9") for form in ("NFC", "NFD")
    )
    assert composed != apart
    save_image(tmp_path / "images" / f"{composed}.png")
    save_mask(tmp_path / "masks" / f"{apart}.png", ids(3))
    assert Folder(tmp_path, "all", classes=3).names == [composed]
    (tmp_path / "train.txt").write_text(f"{apart}\n", "utf-8")
    assert Folder(tmp_path, "train", classes=3, list_file="train.txt").names == [composed]


def test_a_suffix_of_images_and_a_list_are_refused_together(tmp_path):
    _beside(tmp_path, "_sat", "_mask")
    with pytest.raises(ValueError, match="image_suffix is '_sat' with a list_file"):
        Folder(tmp_path, classes=3, image_suffix="_sat", list_file="x.txt")


@pytest.mark.parametrize(
    ("files", "options"),
    [
        (["train/_annotations.coco.json", "train/a.jpg"], {"labels": "coco", "image_dir": "."}),
        (["images/train/a.jpg", "labels/train/a.txt"], {"labels": "yolo"}),
        (["train/images/a.jpg", "train/labels/a.txt"], {"labels": "yolo"}),
        (["a.jpg", "a.json"], {"labels": "labelme", "image_dir": ".", "classes": [".."]}),
    ],
)
def test_labels_of_annotation_tools_are_proposed(tmp_path, files, options):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".jpg"):
            save_image(tmp_path / name)
        else:
            (tmp_path / name).write_text("{}")
    with pytest.raises(FileNotFoundError) as error:
        Folder(tmp_path, "train", classes=3)
    assert _proposed(str(error.value)) == options


def test_names_that_differ_at_their_beginnings_can_be_paired_by_a_list(tmp_path):
    lines = []
    for value, name in enumerate("abc"):
        save_image(tmp_path / f"images/img_{name}.png", value=value)
        save_mask(tmp_path / f"masks/mask_{name}.png", ids(3))
        lines.append(f"images/img_{name}.png masks/mask_{name}.png\n")
    advice = "name image and mask of each sample in a list_file"
    with pytest.raises(ValueError, match=f"3 of 3 images .* `mask_suffix`. .*{advice}$"):
        Folder(tmp_path, classes=3)
    with pytest.raises(ValueError, match=f"tell images from masks. .*{advice}$"):
        Folder(tmp_path, classes=3, image_dir="images", mask_dir="images")
    (tmp_path / "all.txt").write_text("".join(lines))
    assert len(Folder(tmp_path, "train", classes=3, list_file="all.txt")) == 3


def test_check_does_not_blame_the_held_out_fraction_for_names_that_do_not_pair(tmp_path):
    save_image(tmp_path / "images/img_a.png")
    save_mask(tmp_path / "masks/mask_a.png", ids(3))
    unpaired = []
    assert folder_pairs(tmp_path, "val", unpaired=unpaired) == []
    assert len(unpaired) == 1
