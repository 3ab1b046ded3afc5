"""Labels of YOLO's segmentation format."""

import numpy as np
import pytest

from segdistill.data import build_dataset
from tests.data.annotations.exports import yolo

SQUARE = "0.125 0.25 0.5 0.25 0.5 0.75 0.125 0.75"
"""Columns 2..7 and rows 3..8 of an image of 16x12."""


def _folder(root, split="all", **options):
    return build_dataset("folder", root, split, **{"labels": "yolo", **options})


def _label(root, **options):
    return _folder(root, **options).read(0)[1].numpy()


def test_a_polygon_is_in_fractions_of_width_and_height(tmp_path):
    yolo(tmp_path, {"a": f"1 {SQUARE}\n\n0 0 0 1 0 1 0.25 0 0.25\n"})
    dataset = _folder(tmp_path)
    assert dataset.classes == ["background", "road", "car"]
    expected = np.zeros((12, 16), np.uint8)
    expected[3:9, 2:8], expected[:3] = 2, 1
    np.testing.assert_array_equal(dataset.read(0)[1], expected)


def test_a_class_that_names_the_unannotated_one_is_the_same(tmp_path):
    yolo(tmp_path, {"a": f"1 {SQUARE}"}, ("road", "Ground"))
    dataset = _folder(tmp_path, unannotated="ground")
    assert dataset.classes == ["ground", "road"] and not dataset.read(0)[1].any()


def test_a_hole_is_cut_by_a_polygon_that_returns_along_its_bridge(tmp_path):
    ring = "0 0 1 0 1 1 0 1 0 0 0.25 0.25 0.25 0.75 0.75 0.75 0.75 0.25 0.25 0.25"
    yolo(tmp_path, {"a": f"0 {ring}"})
    expected = np.ones((12, 16), np.uint8)
    expected[3:9, 4:12] = 0
    np.testing.assert_array_equal(_label(tmp_path), expected)


@pytest.mark.parametrize("names", [("road", "car"), {0: "road", 1: "car"}])
def test_names_are_a_list_or_a_mapping(tmp_path, names):
    yolo(tmp_path, {"a": f"1 {SQUARE}"}, None)
    (tmp_path / "data.yaml").write_text(
        f"names: {list(names) if names == ('road', 'car') else names}"
    )
    assert _folder(tmp_path).classes == ["background", "road", "car"]


def test_names_may_stand_elsewhere_or_be_declared(tmp_path):
    yolo(tmp_path, {"a": f"1 {SQUARE}"}, None)
    with pytest.raises(ValueError, match=r"classes is missing, and .* names none"):
        _folder(tmp_path)
    label = _label(tmp_path, classes=["background", "car"], mapping={0: None, 1: "car"})
    assert label[5, 5] == 1
    with pytest.raises(
        ValueError, match=r"a\.txt: line 1: category '1' is not among .*mapping: \{1: CLASS\}"
    ):
        _label(tmp_path, classes=["background", "car"])
    (tmp_path / "classes.txt").write_text("road\ncar\n")
    assert _folder(tmp_path).classes[1:] == ["road", "car"]
    (tmp_path / "own.yaml").write_text("names: [street, vehicle]")
    assert _folder(tmp_path).classes[1:] == ["street", "vehicle"]
    (tmp_path / "other.yml").write_text("names: [x, y]")
    with pytest.raises(
        ValueError, match=r"holds other\.yml, own\.yaml, each with names; .*annotations: other\.yml"
    ):
        _folder(tmp_path)
    assert _folder(tmp_path, annotations="other.yml").classes[1:] == ["x", "y"]


def test_images_without_a_file_are_refused_left_out_or_empty(tmp_path, caplog):
    yolo(tmp_path, {"a": f"1 {SQUARE}", "b": None, "c": ""})
    with pytest.raises(
        ValueError, match=r"^1 of 3 images in .* have no label \(b\); .* Set missing: empty for"
    ):
        _folder(tmp_path)
    assert _folder(tmp_path, missing="skip").names == ["a", "c"]
    assert "have no label (b); they are left out" in caplog.text
    dataset = _folder(tmp_path, missing="empty")
    assert dataset.names == ["a", "b", "c"] and dataset.labelled
    assert [int(dataset.read(i)[1].max()) for i in range(3)] == [2, 0, 0]
    (tmp_path / "images/a.png").unlink()
    with pytest.raises(
        ValueError, match=r"^1 of 2 labels in .* have no image \(a\); .* Set missing: skip"
    ):
        _folder(tmp_path, missing="empty")
    with pytest.raises(ValueError, match=r"1 of 2 images .* \(b\), and 1 of 2 labels"):
        _folder(tmp_path)


@pytest.mark.parametrize("layout", ["{kind}/{split}", "{split}/{kind}"])
def test_labels_lie_in_the_folders_of_splits_or_beside_the_images(tmp_path, layout):
    for split in ("train", "val"):
        made = yolo(tmp_path / "made" / split, {split: f"1 {SQUARE}"}, None)
        for kind in ("images", "labels"):
            place = tmp_path / "set" / layout.format(kind=kind, split=split)
            place.parent.mkdir(parents=True, exist_ok=True)
            (made / kind).rename(place)
    (tmp_path / "set/data.yaml").write_text("names: [road, car]")
    for split in ("train", "val"):
        assert _folder(tmp_path / "set", split).names == [split]


def test_files_beside_the_images_need_no_option(tmp_path):
    yolo(tmp_path, {"a": f"1 {SQUARE}"})
    (tmp_path / "labels/a.txt").rename(tmp_path / "images/a.txt")
    (tmp_path / "labels").rmdir()
    (tmp_path / "images/classes.txt").write_text("road\ncar")
    assert _label(tmp_path)[5, 5] == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("car 0 0 1 0 1 1", r"line 2 is 'car 0 0 1 0 1 1'; expected numbers"),
        ("7 0 0 1 0 1 1", r"line 2 has class 7; expected 0\.\.1, as 2 classes are named"),
        ("0.5 0 0 1 0 1 1", r"line 2 has class 0\.5"),
        ("-1 0 0 1 0 1 1", r"line 2 has class -1"),
        ("0 3 3 90 3 90 44", r"line 2 has the coordinate 3; expected fractions"),
        ("0 0 0 nan 0 1 1", r"line 2 has the coordinate nan"),
        ("0 0 0 1 0 1 1 0.5", r"line 2 has 7 coordinates; expected an even"),
        ("0 0.5 0.5 0.2 0.2", r"line 2 \('road'\) is a box .*undrawable: skip"),
        ("0 0.5 0.5", r"line 2 \('road'\) is a polygon of 1 points"),
        ("0", r"line 2 \('road'\) is a polygon of 0 points"),
    ],
)
def test_what_is_malformed_is_one_line_with_file_and_line(tmp_path, line, message):
    yolo(tmp_path, {"a": f"1 {SQUARE}\n{line}\n"})
    with pytest.raises(ValueError, match=rf"^{tmp_path}/labels/a\.txt: {message}") as error:
        _label(tmp_path)
    assert "\n" not in str(error.value)


def test_names_may_be_numbers_and_agree_with_their_count(tmp_path):
    yolo(tmp_path, {"a": f"1 {SQUARE}"})
    (tmp_path / "data.yaml").write_text("names: [0, 'no']\nnc: 2\nkpt_shape:")
    assert _folder(tmp_path).classes == ["background", "0", "no"]


def test_a_line_of_names_is_not_blank_but_at_the_end(tmp_path):
    yolo(tmp_path, {"a": f"1 {SQUARE}"}, None)
    (tmp_path / "classes.txt").write_text("road\n\ncar\n")
    with pytest.raises(
        ValueError, match=r"classes\.txt: line 2 is blank; expected the name of class 1"
    ):
        _folder(tmp_path)
    (tmp_path / "classes.txt").write_text("road\r\ncar\r\n\r\n")
    assert _folder(tmp_path).classes == ["background", "road", "car"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a", r"line \d is not YAML"),
        ("nc: 2", "has names None"),
        ("names: {1: a}", r"has names \{1: 'a'\}; expected a list, or a mapping from 0"),
        ("[1, 2]", "has names None"),
        ("names: [yes, no]", r"has the name True for class 0; expected text\. Quote words such as no, yes"),
        ("names: {0: road, 1: off}", r"has the name False for class 1; expected text\. Quote"),
        ("names: [road, ~]", r"has the name None for class 1; expected text"),
        ("names: [road, [car]]", r"has the name \['car'\] for class 1"),
        ("names: [road, 1.5]", r"has the name 1\.5 for class 1"),
        ("names: [road]\nkpt_shape: [17, 3]", r"has kpt_shape \[17, 3\], so that its labels are keypoints"),
        ("names: [road, car]\nnc: 3", r"has nc 3 and 2 names; expected one name for each"),
        ("names: [road]\nnc: true", r"has nc True and 1 names"),
        ("names: [road, car]\nnc: '2'", r"has nc '2' and 2 names"),
        ("names: !!python/object/apply:os.getcwd []", r"line 1 is not YAML"),
    ],
)  # fmt: skip
def test_a_malformed_file_of_names_is_refused(tmp_path, text, message):
    yolo(tmp_path, {"a": f"1 {SQUARE}"})
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"data\.yaml:? ?{message}"):
        _folder(tmp_path)
