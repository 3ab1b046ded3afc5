"""Labels whose coordinates are at another scale than the image are refused."""

import numpy as np
import pytest

from segdistill.data import build_dataset
from tests.data.annotations.exports import SQUARE, annotation, coco, labelme, shape

OTHER = [9, 1, 15, 1, 15, 7, 9, 7]


def _coco(root, annotations, **options):
    coco(root, annotations, **options)
    return build_dataset("folder", root, "train", labels="coco", image_dir=".")


def _labelme(root, shapes):
    labelme(root, "a", shapes)
    options = {"labels": "labelme", "image_dir": ".", "classes": ["background", "car"]}
    return build_dataset("folder", root, "all", **options)


def _box(polygon, form="corner and size"):
    points = np.reshape(polygon, (-1, 2)) * 1.0
    low, high = points.min(axis=0), points.max(axis=0)
    written = {
        "corner and size": [*low, *(high - low)],
        "corners": [*low, *high],
        "centre": [*(low + high) / 2, *(high - low)],
        "fractions": [*low / (64, 48), *(high - low) / (64, 48)],
    }
    return [float(number) for number in written[form]]


def test_fractions_of_coco_are_refused(tmp_path):
    shapes = [annotation(i, [(np.array(SQUARE) / 16).tolist()]) for i in (1, 2)]
    with pytest.raises(ValueError, match=r"coco\.json: all coordinates .* in 0\.\.1; expected pixels, as of a\.png "
                       r"with 12x16 \(height x width\)\. Export"):  # fmt: skip
        _coco(tmp_path, shapes)
    assert _coco(tmp_path, [*shapes, annotation(3, [SQUARE])]).read(0)[1].any()


@pytest.mark.parametrize(
    "one",
    [
        shape("car", [[0.1, 0.1], [0.9, 0.1], [0.9, 1.0]]),
        shape("car", [[0.1, 0.1], [0.9, 1.0]], "rectangle"),
        shape("car", [[0.5, 0.5], [0.9, 0.5]], "circle"),
    ],
)
def test_fractions_of_labelme_are_refused(tmp_path, one):
    dataset = _labelme(tmp_path, [one, shape("car", [[0.5, 0.5]], "point")])
    with pytest.raises(
        ValueError,
        match=r"a\.json: all points of its shapes are in 0\.\.1; expected pixels .*12x16",
    ):
        dataset.read(0)
    mixed = _labelme(tmp_path, [one, shape("car", [[1, 1], [9, 1], [9, 9]])])
    assert mixed.read(0)[1].any()


@pytest.mark.parametrize("scale", [0.25, 0.5, 2, (0.5, 1)])
def test_polygons_at_another_scale_than_most_boxes_are_refused(tmp_path, scale):
    size = np.tile(np.broadcast_to(scale, 2), 4)
    polygons = [4 * np.array(one) for one in (SQUARE, OTHER, SQUARE)]
    shapes = [
        annotation(i, [(one * size).tolist()], bbox=_box(one)) for i, one in enumerate(polygons, 1)
    ]
    with pytest.raises(ValueError) as error:
        _coco(tmp_path, shapes, size=(64, 48))
    text = str(error.value)
    assert (
        "the polygons of 3 of 3 annotations compared are at another scale than their bbox" in text
    )
    assert "annotations[0] of a.png from (" in text and "\n" not in text


@pytest.mark.parametrize("form", ["corner and size", "corners", "centre", "fractions"])
def test_boxes_written_in_other_ways_are_no_reason(tmp_path, form):
    polygons = [4 * np.array(one) for one in (SQUARE, OTHER)]
    shapes = [annotation(i, [one.tolist()], bbox=_box(one, form)) for i, one in enumerate(polygons)]
    assert _coco(tmp_path, shapes, size=(64, 48)).read(0)[1].any()


@pytest.mark.parametrize("box", [[0, 0, 64, 48], [0, 0, 0, 0], [1, 1, 2, 2], [-9, -9, 3, 3]])
def test_placeholders_of_boxes_are_no_reason(tmp_path, box):
    polygons = [(4 * np.array(one)).tolist() for one in (SQUARE, OTHER, SQUARE)]
    shapes = [annotation(i, [one], bbox=box) for i, one in enumerate(polygons)]
    assert _coco(tmp_path, shapes, size=(64, 48)).read(0)[1].any()


def test_a_few_wrong_or_missing_boxes_are_no_reason(tmp_path):
    polygon = (4 * np.array(SQUARE)).tolist()
    boxes = [_box(polygon), _box(polygon), [0, 0, 3, 3], None, "x", [1, 2]]
    shapes = [annotation(i, [polygon], bbox=box) for i, box in enumerate(boxes)]
    parts = annotation(9, [[0, 0, 9, 9], polygon, [30, 8, 40, 8, 40, 9]], bbox=[8, 8, 32, 24])
    dataset = _coco(tmp_path, [*shapes, annotation(8, None, bbox=[1, 1, 3, 3])], size=(64, 48))
    assert len(dataset) == 1
    assert len(_coco(tmp_path, [parts, annotation(3, [])], size=(64, 48))) == 1
