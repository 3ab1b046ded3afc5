"""Labels of labelme."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from segdistill.data import build_dataset
from tests.data.annotations.exports import labelme, shape
from tests.data.files import save_image

CLASSES = ["background", "road", "car"]
SQUARE = [[2, 3], [8, 3], [8, 9], [2, 9]]


def _folder(root, split="all", **options):
    defaults = {"labels": "labelme", "image_dir": ".", "classes": CLASSES}
    return build_dataset("folder", root, split, **{**defaults, **options})


def _label(root, **options):
    return _folder(root, **options).read(0)[1].numpy()


def _png(pixels):
    stored = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8) * 255).save(stored, "PNG")
    return base64.b64encode(stored.getvalue()).decode()


@pytest.mark.parametrize(
    "one",
    [
        shape("car", SQUARE),
        {"label": "car", "points": SQUARE},
        shape("car", [[2, 3], [8, 9]], "rectangle"),
        shape("car", [[8, 9], [2, 3]], "rectangle"),
        shape("car", SQUARE, "rectangle"),
        shape("car", [[2, 3], [7, 8]], "mask", mask=_png(np.ones((6, 6)))),
    ],
)
def test_polygons_rectangles_and_masks_are_drawn(tmp_path, one):
    labelme(tmp_path, "a", [shape("road", [[0, 0], [16, 0], [16, 6], [0, 6]]), one])
    expected = np.zeros((12, 16), np.uint8)
    expected[:6], expected[3:9, 2:8] = 1, 2
    np.testing.assert_array_equal(_label(tmp_path), expected)


def test_a_circle_has_its_centre_and_a_point_on_it(tmp_path):
    labelme(tmp_path, "a", [shape("car", [[8, 6], [8, 2]], "circle")])
    rows, columns = np.mgrid[:12, :16] + 0.5
    distance = np.hypot(rows - 6, columns - 8)
    label = _label(tmp_path)
    assert (label[distance < 3.8] == 2).all() and not label[distance > 4.2].any()


def test_a_mask_has_holes(tmp_path):
    inside = np.array([[1, 0, 1], [1, 1, 1]])
    labelme(tmp_path, "a", [shape("car", [[13, 10], [15, 11]], "mask", mask=_png(inside))])
    expected = np.zeros((12, 16), np.uint8)
    expected[10:, 13:] = 2 * inside
    np.testing.assert_array_equal(_label(tmp_path), expected)


@pytest.mark.parametrize("kind", ["point", "points", "line", "linestrip"])
def test_points_and_lines_are_refused_or_left_out(tmp_path, kind):
    labelme(tmp_path, "a", [shape("car", SQUARE[:2], kind)])
    with pytest.raises(
        ValueError, match=rf"a\.json: shapes\[0\] \('car'\) is a {kind}, which .*undrawable: skip"
    ):
        _label(tmp_path)
    assert not _label(tmp_path, undrawable="skip").any()


def test_the_embedded_image_is_never_decoded(tmp_path):
    labelme(tmp_path, "a", [shape("car", SQUARE)], imageData="no image at all")
    assert _label(tmp_path).any()


def test_the_size_of_the_labelled_image_is_checked(tmp_path):
    labelme(tmp_path, "a", [shape("car", SQUARE)])
    save_image(tmp_path / "a.png", 24, 32)
    with pytest.raises(
        ValueError, match=r"a\.json: the labels are for 12x16 \(height x width\); expected 24x32"
    ):
        _label(tmp_path)
    labelme(tmp_path, "a", [shape("car", SQUARE)], imageWidth=None, imageHeight=None)
    assert _label(tmp_path).any()


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (shape("", SQUARE), r"shapes\[0\] has label ''; expected text"),
        (shape("car", SQUARE, "ellipse"), r"\('car'\) has shape_type 'ellipse'; expected one of polygon,"),
        (shape("car", [[1, 2, 3]]), r"has points \[\[1, 2, 3\]\]; expected a list of \[x, y\]"),
        (shape("car", [["a", 2]]), r"has points"),
        (shape("car", None), r"has points None"),
        (shape("car", SQUARE[:2]), r"is a polygon of 2 points"),
        (shape("car", SQUARE[:3], "rectangle"), r"is a rectangle of 3 points; expected 2 or 4"),
        (shape("car", SQUARE, "circle"), r"is a circle of 4 points; expected 2"),
        (shape("car", [[1, 1], [1, 1]], "circle"), r"is a circle without radius"),
        (shape("truck", SQUARE), r"shapes\[0\]: category 'truck' is not among .*mapping: \{truck: CLASS\}"),
        (shape("cars", SQUARE), r"mapping: \{cars: car\}"),
        (shape("car", [[2, 3], [7, 9]], "mask", mask=_png(np.ones((6, 6)))), r"cannot be read \(it has 6x6 pixels\)"),
        (shape("car", [[2, 3], [7, 8]], "mask", mask="???"), r"has a mask that cannot be read"),
        (shape("car", [[2, 3], [7, 8]], "mask", mask="AAAA"), r"has a mask that cannot be read"),
        (shape("car", [[2, 3], [40, 8]], "mask", mask=""), r"is a mask from \(2, 3\) to \(40, 8\); expected it in"),
        (shape("car", [[2, 3], [float("inf"), 8]], "mask", mask=""), r"expected numbers"),
    ],
)  # fmt: skip
def test_what_is_malformed_is_one_line_with_file_and_place(tmp_path, one, message):
    labelme(tmp_path, "a", [one])
    with pytest.raises(ValueError, match=rf"^{tmp_path}/a\.json: .*{message}") as error:
        _label(tmp_path)
    assert "\n" not in str(error.value)


def test_other_files_and_options_are_refused(tmp_path):
    path = labelme(tmp_path, "a", [], imageWidth="16")
    with pytest.raises(
        ValueError, match=r"imageWidth and imageHeight are '16' and 12; expected positive"
    ):
        _label(tmp_path)
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"a\.json has no list 'shapes', but nothing"):
        _label(tmp_path)
    with pytest.raises(
        ValueError,
        match="annotations is 'x', and labels is labelme; expected it only with layers",
    ):
        _folder(tmp_path, annotations="x")
    with pytest.raises(
        ValueError, match=r"classes is missing, and .* names none; expected a list of names"
    ):
        _folder(tmp_path, classes=None)
