"""Shapes that are not drawn: what their pixels become, and that they are counted."""

import numpy as np
import pytest

from segdistill.data import build_dataset
from segdistill.run.auditing.masks import check_masks
from tests.data.annotations.exports import SQUARE, annotation, coco, labelme, shape, yolo

LINE = [1, 1, 5, 5, 9, 9]
SPECK = [3.1, 3.1, 3.4, 3.1, 3.4, 3.4]
"""Between the centres of pixels."""


def _yolo(root, shapes):
    """Of words of YOLO; one category, `car`."""
    yolo(root, {"a": "\n".join(shapes)}, ("car",))
    return build_dataset("folder", root, "all", labels="yolo", undrawable="skip")


def _coco(root, annotations):
    coco(root, annotations)
    options = {"labels": "coco", "image_dir": ".", "classes": ["background", "road", "car"]}
    return build_dataset("folder", root, "train", undrawable="skip", **options)


def _labelme(root, shapes):
    labelme(root, "a", shapes)
    options = {"labels": "labelme", "image_dir": ".", "classes": ["background", "car"]}
    return build_dataset("folder", root, "all", undrawable="skip", **options)


def _fractions(points):
    return "0 " + " ".join(str(x / size) for x, size in zip(points, (16, 12) * 9, strict=False))


def _warnings(dataset, caplog):
    check_masks([("train", dataset)])
    return [one.getMessage() for one in caplog.records if "not drawn" in one.getMessage()]


def test_the_pixels_of_a_box_of_yolo_are_ignored_below_other_shapes(tmp_path):
    dataset = _yolo(tmp_path, [_fractions([4, 4, 8, 4, 8, 8, 4, 8]), "0 0.5 0.5 0.5 0.5"])
    expected = np.zeros((12, 16), np.uint8)
    expected[3:9, 4:12], expected[4:8, 4:8] = 255, 1
    np.testing.assert_array_equal(dataset.read(0)[1], expected)


@pytest.mark.parametrize("outline", [None, [], [[2, 2, 8, 8]]])
def test_the_bbox_of_an_annotation_of_coco_without_outline_is_ignored(tmp_path, outline):
    dataset = _coco(tmp_path, [annotation(1, outline, bbox=[12.4, -3, 99, 5])])
    expected = np.zeros((12, 16), np.uint8)
    expected[:2, 12:] = 255
    np.testing.assert_array_equal(dataset.read(0)[1], expected)


def test_of_several_polygons_only_those_without_area_are_left_out(tmp_path, caplog):
    dataset = _coco(
        tmp_path, [annotation(1, [SQUARE, [9, 9, 12, 12], [1, 1]], bbox=[0, 0, 16, 12])]
    )
    expected = np.zeros((12, 16), np.uint8)
    expected[2:8, 2:8] = 2
    np.testing.assert_array_equal(dataset.read(0)[1], expected)
    (line,) = _warnings(dataset, caplog)
    assert "2 shapes are not drawn: 'car' has a part of less than three points (2)" in line


@pytest.mark.parametrize("box", [None, [1, 2], "abcd", [0, 0, 0, 9], [0, 0, float("nan"), 9], 7])
def test_a_bbox_that_is_none_is_not_read(tmp_path, box):
    dataset = _coco(tmp_path, [annotation(1, None, bbox=box)])
    assert not dataset.read(0)[1].any()


@pytest.mark.parametrize(
    ("open_with", "shapes", "reason"),
    [
        (_yolo, ["0 0.5 0.5 0.2 0.2"], "is a box (class, centre, width and height)"),
        (_yolo, ["0 0.5 0.5"], "is a polygon of 1 points"),
        (_yolo, [_fractions(LINE)], "covers the centre of no pixel"),
        (_coco, [annotation(1, None)], "has no segmentation, only a box or points"),
        (_coco, [annotation(1, [[20, 2, 28, 2, 28, 8]])], "lies outside its image"),
        (_coco, [annotation(1, [SPECK])], "covers the centre of no pixel"),
        (_coco, [annotation(1, {"size": [12, 16], "counts": [192]})], "covers the centre of no pixel"),
        (_labelme, [shape("car", [[1, 1]], "point")], "is a point"),
        (_labelme, [shape("car", [[1, 1], [1, 1]], "circle")], "is a circle without radius"),
        (_labelme, [shape("car", np.reshape(LINE, (3, 2)).tolist())], "covers the centre of no pixel"),
    ],
)  # fmt: skip
def test_shapes_that_are_not_drawn_are_counted_by_category_and_reason(
    tmp_path, caplog, open_with, shapes, reason
):
    dataset = open_with(tmp_path, shapes * 2)
    (line,) = _warnings(dataset, caplog)
    assert line.startswith(f"train: 2 shapes are not drawn: 'car' {reason} (2). ")


def test_specks_are_counted_where_undrawable_shapes_are_refused(tmp_path, caplog):
    coco(tmp_path, [annotation(1, [SPECK]), annotation(2, [SQUARE], 7)])
    dataset = build_dataset("folder", tmp_path, "train", labels="coco", image_dir=".")
    assert np.unique(dataset.read(0)[1]).tolist() == [0, 2]
    assert _warnings(dataset, caplog)[0].startswith("train: 1 shape is not drawn: 'car' covers")


def test_labels_that_are_drawn_in_full_need_no_warning(tmp_path, caplog):
    assert not _warnings(_coco(tmp_path, [annotation(1, [SQUARE])]), caplog)
