"""Masks of one class each."""

import numpy as np
import pytest
from PIL import Image

from segdistill.data import build_dataset
from tests.data.files import save_image, save_mask

CLASSES = ["background", "road", "car"]


def _tree(root, pattern="{name}_{class}", images="images", masks="masks", white=255):
    """Road in rows 2..7, a car in columns 4..6; image b has only the car, image c_car no mask of a road."""
    road, car = (np.zeros((12, 16), np.uint8) for _ in range(2))
    road[2:8], car[:, 4:7] = white, white
    for value, name in enumerate(("a", "b", "c_car")):
        save_image(root / images / f"{name}.png", value=value)
        for kind, mask in (("road", road), ("car", car)):
            if name == "a" or kind == "car":
                file = pattern.replace("{name}", name).replace("{class}", kind)
                save_mask(root / masks / f"{file}.png", mask)
    return road > 0, car > 0


def _folder(root, **options):
    defaults = {"labels": "layers", "classes": CLASSES, "annotations": "{name}_{class}"}
    return build_dataset("folder", root, "all", **{**defaults, **options})


@pytest.mark.parametrize("pattern", ["{name}_{class}", "{class}/{name}", "{class}-{name}"])
@pytest.mark.parametrize("white", [255, 1])
def test_masks_of_classes_are_one_label(tmp_path, pattern, white):
    road, car = _tree(tmp_path, pattern, white=white)
    dataset = _folder(tmp_path, annotations=pattern)
    assert dataset.names == ["a", "b", "c_car"] and dataset.classes == CLASSES
    np.testing.assert_array_equal(dataset.read(0)[1], np.select([car, road], [2, 1]))
    for place in (1, 2):
        np.testing.assert_array_equal(dataset.read(place)[1], 2 * car)


def test_masks_may_lie_beside_the_images(tmp_path):
    _, car = _tree(tmp_path, images=".", masks=".")
    dataset = _folder(tmp_path, image_dir=".", mask_dir=".")
    assert dataset.names == ["a", "b", "c_car"]
    np.testing.assert_array_equal(dataset.read(1)[1], 2 * car)


@pytest.mark.parametrize(
    ("pattern", "classes"),
    [
        ("{name}_{class}", ("line", "dashed_line", "very_dashed_line")),
        ("{name}_{class}", ("dashed_line", "line")),
        ("{class}_{name}", ("car", "car_part")),
        ("{name}{class}_m", ("b", "ab")),
        ("{class}/{name}", ("x", "x/y")),
        ("{name}_{class}", ("caf\u00e9", "x_cafe\u0301")),
    ],
)
@pytest.mark.parametrize("beside", [False, True])
def test_a_class_may_have_the_end_of_another_ones_name(tmp_path, pattern, classes, beside):
    folder = "images" if beside else "masks"
    for value, name in enumerate(("1", "2_part")):
        save_image(tmp_path / f"images/{name}.png", value=value)
        for row, one in enumerate(classes):
            mask = np.zeros((12, 16), np.uint8)
            mask[row] = 255
            file = pattern.replace("{name}", name).replace("{class}", one)
            save_mask(tmp_path / folder / f"{file}.png", mask)
    dataset = _folder(
        tmp_path, annotations=pattern, classes=["background", *classes], mask_dir=folder
    )
    assert dataset.names == ["1", "2_part"]
    for place in (0, 1):
        rows = dataset.read(place)[1][: len(classes), 0].tolist()
        assert rows == list(range(1, len(classes) + 1))


def test_a_mask_of_two_images_by_its_name_is_refused(tmp_path):
    for name in ("a", "a_dashed"):
        save_image(tmp_path / f"images/{name}.png")
    save_mask(tmp_path / "masks/a_dashed_line.png", np.zeros((12, 16), np.uint8))
    with pytest.raises(ValueError) as error:
        _folder(tmp_path, classes=["background", "line", "dashed_line"], missing="empty")
    text = str(error.value)
    assert (
        "a_dashed_line is by {name}_{class} the mask of class 'line' of image 'a_dashed' and of"
        in text
    )
    assert "of class 'dashed_line' of 'a'; expected one of them." in text


@pytest.mark.parametrize(
    ("options", "both"),
    [
        ({}, 2),
        ({"classes": ["background", "car", "road"]}, 2),
        ({"overlap": "smaller"}, 2),
        ({"classes": ["background", "car", "road"], "overlap": "smaller"}, 1),
        ({"overlap": "ignore"}, 255),
    ],
)
def test_pixels_of_two_classes(tmp_path, options, both):
    """The car has 36 pixels and the road 96."""
    road, car = _tree(tmp_path)
    label = _folder(tmp_path, **options).read(0)[1].numpy()
    assert np.unique(label[road & car]).tolist() == [both]


@pytest.mark.parametrize("overlap", ["later", "smaller", "ignore"])
def test_masks_of_one_class_are_one(tmp_path, overlap):
    """Road and car, together 132 - 18 pixels, are of one class; the lane is another, of 100 pixels."""
    road, car = _tree(tmp_path)
    lane = np.zeros((12, 16), bool)
    lane[1:11, 3:13] = True
    save_mask(tmp_path / "masks/a_lane.png", np.uint8(lane))
    classes, mapping = ["background", "lane", "traffic"], {"road": "traffic", "car": "traffic"}
    dataset = _folder(tmp_path, classes=classes, mapping=mapping, overlap=overlap)
    both = {"later": 2, "smaller": 1, "ignore": 255}[overlap]
    traffic = road | car
    assert lane.sum() < traffic.sum()
    expected = np.select([traffic & lane, traffic, lane], [both, 2, 1])
    np.testing.assert_array_equal(dataset.read(0)[1], expected)


def test_pixels_in_no_mask_and_mapped_masks(tmp_path):
    road, car = _tree(tmp_path)
    dataset = _folder(
        tmp_path, classes=["surface"], mapping={"road": 0, "car": None}, unannotated="ignore"
    )
    np.testing.assert_array_equal(dataset.read(0)[1], np.where(road & ~car, 0, 255))


def test_images_without_any_mask_are_refused_left_out_or_empty(tmp_path):
    _tree(tmp_path)
    (tmp_path / "masks/b_car.png").unlink()
    with pytest.raises(ValueError, match=r"^1 of 3 images in .* have no mask \(b\); "):
        _folder(tmp_path)
    assert _folder(tmp_path, missing="skip").names == ["a", "c_car"]
    dataset = _folder(tmp_path, missing="empty")
    assert dataset.names == ["a", "b", "c_car"] and not dataset.read(1)[1].any()


def test_grey_values_need_a_threshold(tmp_path):
    road, car = _tree(tmp_path)
    for path in (tmp_path / "masks").iterdir():
        picture = Image.open(path)
        Image.fromarray(np.where(np.array(picture) > 0, 250, 3).astype(np.uint8)).save(path)
    with pytest.raises(
        ValueError, match=r"holds 3, 250; expected 0 and one other .*threshold: 128"
    ):
        _folder(tmp_path).read(0)
    label = _folder(tmp_path, threshold=128).read(0)[1]
    np.testing.assert_array_equal(label, np.select([car, road], [2, 1]))
    with pytest.raises(ValueError, match="threshold is 300"):
        _folder(tmp_path, threshold=300)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["background", "road"]}, r"3 of 4 files .* no image and class .*\(a_car, b_car, c_car_car\)"),
        ({"undrawable": "skip"}, r"undrawable is 'skip', and labels is layers; expected it only with coco, yolo or"),
        ({"annotations": "{name}"}, r"annotations is '\{name\}' with labels layers; expected"),
        ({"annotations": None}, r"labels is layers; expected `classes`, `mask_dir`, and"),
        ({"classes": None}, r"labels is layers; expected `classes`"),
        ({"mask_suffix": "_x"}, r"mask_suffix is '_x', and labels is layers"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(tmp_path, options, message):
    _tree(tmp_path)
    with pytest.raises(ValueError, match=message):
        _folder(tmp_path, **options)


def test_masks_in_colour_or_of_another_size_are_refused(tmp_path):
    _tree(tmp_path)
    dataset = _folder(tmp_path)
    save_image(tmp_path / "masks/b_car.png")
    save_mask(tmp_path / "masks/c_car_car.png", np.zeros((3, 4), np.uint8))
    with pytest.raises(ValueError, match=r"b_car\.png: the mask of a class is in colour"):
        dataset.read(1)
    with pytest.raises(
        ValueError, match=r"c_car_car\.png: the mask is 3x4 \(height x width\); expected 12x16"
    ):
        dataset.read(2)
