"""Labels of COCO files, pixel by pixel those of pycocotools."""

import json
import os
import pickle
import re
from unicodedata import normalize

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools import mask as api
from pycocotools.coco import COCO

from segdistill.data import build_dataset
from segdistill.data.annotations import coco as coco_module
from segdistill.run.auditing.masks import check_masks
from tests.data.annotations.exports import SQUARE, annotation, coco
from tests.data.files import save_image

LOWER_HALF = {"size": [12, 16], "counts": [6] + [6] * 31}


def _folder(root, split="train", **options):
    return build_dataset("folder", root, split, **{"image_dir": ".", "labels": "coco", **options})


def _label(root, **options):
    return _folder(root, **options).read(0)[1].numpy()


def test_every_shape_has_the_pixels_of_pycocotools(tmp_path):
    random = np.random.default_rng(3)
    polygons = [random.uniform(-9, 60, 2 * points).tolist() for points in (3, 4, 5, 8, 20)]
    runs = api.encode(np.asfortranarray(random.random((48, 64)) > 0.5))
    uncompressed = {"size": [48, 64], "counts": [100, 500, 1000, 72, 1400]}
    outlines = [
        *([polygon] for polygon in polygons),
        polygons[:2],
        {"size": [48, 64], "counts": runs["counts"].decode()},
        uncompressed,
    ]
    path = coco(tmp_path, [annotation(i, one) for i, one in enumerate(outlines, 1)], size=(64, 48))
    whole = json.loads(path.read_text())
    reference = COCO(str(path))
    for one in whole["annotations"]:
        path.write_text(json.dumps({**whole, "annotations": [one]}))
        os.utime(path, ns=(one["id"], one["id"]))
        expected = reference.annToMask(one)
        assert expected.any() and not expected.all()
        np.testing.assert_array_equal(_label(tmp_path) == 1, expected == 1)


def test_many_shapes_lie_over_one_another_in_the_order_of_the_file(tmp_path):
    random = np.random.default_rng(4)
    shapes = [
        annotation(i, [random.uniform(0, 48, 10).tolist()], (3, 7)[i % 2]) for i in range(1, 30)
    ]
    reference = COCO(str(coco(tmp_path, shapes, size=(64, 48))))
    expected = np.zeros((48, 64), np.uint8)
    for one in shapes:
        expected[reference.annToMask(one) == 1] = {3: 1, 7: 2}[one["category_id"]]
    np.testing.assert_array_equal(_label(tmp_path), expected)
    by_area = sorted(shapes, key=lambda one: -int(reference.annToMask(one).sum()))
    for one in by_area:
        expected[reference.annToMask(one) == 1] = {3: 1, 7: 2}[one["category_id"]]
    np.testing.assert_array_equal(_label(tmp_path, overlap="smaller"), expected)
    cars, roads = (
        np.any([reference.annToMask(one) for one in shapes if one["category_id"] == key], axis=0)
        for key in (3, 7)
    )
    expected = np.select([cars & roads, cars, roads], [255, 1, 2], 0)
    np.testing.assert_array_equal(_label(tmp_path, overlap="ignore"), expected)


def test_classes_of_the_file_are_in_the_order_of_ids_with_their_gaps(tmp_path):
    coco(tmp_path, [annotation(1, [SQUARE]), annotation(2, [[8, 0, 16, 0, 16, 4, 8, 4]], 7)])
    dataset = _folder(tmp_path)
    assert dataset.classes == ["background", "car", "road"]
    label = dataset.read(0)[1].numpy()
    expected = np.zeros((12, 16), np.uint8)
    expected[2:8, 2:8], expected[0:4, 8:16] = 1, 2
    np.testing.assert_array_equal(label, expected)
    named = _folder(tmp_path, classes=["road", "car"], unannotated="ignore")
    np.testing.assert_array_equal(
        named.read(0)[1].numpy(), np.array([255, 1, 0], np.uint8)[expected]
    )


def test_a_mapping_joins_renames_and_ignores_categories(tmp_path):
    coco(tmp_path, [annotation(1, [SQUARE]), annotation(2, [[8, 0, 16, 0, 16, 4, 8, 4]], 7)])
    label = _label(tmp_path, classes=["background", "car"], mapping={"road": None})
    assert np.unique(label[0:4, 8:16]).tolist() == [255] and label[5, 5] == 1
    by_name = _label(
        tmp_path, classes=["background", "vehicle"], mapping={"road": 0, "car": "vehicle"}
    )
    assert by_name[0, 10] == 0 and by_name[5, 5] == 1
    with pytest.raises(ValueError, match=r"category 'road' is not among the classes background, "
                       r"car; .*mapping: \{road: CLASS\}, with null"):  # fmt: skip
        _folder(tmp_path, classes=["background", "car"])
    with pytest.raises(
        ValueError, match="assigns category 'road' to 'boat'; expected one of the cl"
    ):
        _folder(tmp_path, classes=["background", "car"], mapping={"road": "boat"})


def test_pixels_without_annotation_need_a_class_or_are_ignored(tmp_path, caplog):
    coco(tmp_path, [annotation(1, [SQUARE])])
    with pytest.raises(ValueError, match=r"unannotated is 'background', which is not among the "
                       r"classes car, road; .*or set unannotated: ignore"):  # fmt: skip
        _folder(tmp_path, classes=["car", "road"])
    with caplog.at_level("INFO", "segdistill"):
        _folder(tmp_path, unannotated="ignore")
    assert "the classes are those of the file: car, road" in caplog.text
    assert (
        "pixels without annotation are ignored, later shapes lie over earlier ones, crowds are "
        "ignored, photographs are upright" in caplog.text
    )


def test_crowds_are_ignored_below_everything_else_or_drawn(tmp_path):
    crowd = annotation(2, LOWER_HALF, 7, iscrowd=1)
    coco(tmp_path, [annotation(1, [SQUARE]), crowd])
    label = _label(tmp_path)
    expected = np.zeros((12, 16), np.uint8)
    expected[6:], expected[2:8, 2:8] = 255, 1
    np.testing.assert_array_equal(label, expected)
    expected[6:] = 2
    np.testing.assert_array_equal(_label(tmp_path, crowds="draw"), expected)


@pytest.mark.parametrize("value", [0, 1, False, True, None])
def test_a_crowd_is_declared_by_a_number_or_a_truth_value(tmp_path, value):
    coco(tmp_path, [annotation(1, [SQUARE], iscrowd=value)])
    assert np.unique(_label(tmp_path)).tolist() == [0, 255 if value else 1]


def test_images_without_annotations_are_background(tmp_path):
    coco(tmp_path, [annotation(1, [SQUARE], image=2)], images=("a.png", "sub/b.jpg"))
    dataset = _folder(tmp_path)
    assert dataset.names == ["a", "sub/b"] and dataset.groups == ["", "sub"] and dataset.labelled
    assert not dataset.read(0)[1].any() and dataset.read(1)[1].any()


def test_a_box_has_no_pixels_of_its_own(tmp_path):
    """pycocotools takes a polygon of two points for a box and fills it."""
    coco(tmp_path, [annotation(5, [[2, 2, 8, 8]])])
    with pytest.raises(ValueError) as error:
        _label(tmp_path)
    assert re.search(r"_annotations\.coco\.json \(a\.png\): annotation 5 \('car'\) is a polygon of 2 "
                     "points, which covers no pixels; .*set undrawable: skip", str(error.value))  # fmt: skip
    assert not _label(tmp_path, undrawable="skip").any()


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([], "has no segmentation, only a box"),
        (None, "has no segmentation, only a box"),
        ([[20, 2, 28, 2, 28, 8]], r"lies outside its image of 12x16 \(height x width\)"),
    ],
)
def test_shapes_without_pixels_are_refused_or_skipped(tmp_path, segmentation, message):
    coco(tmp_path, [annotation(5, segmentation)])
    with pytest.raises(ValueError, match=rf"annotation 5 \('car'\) {message}.*undrawable: skip"):
        _label(tmp_path)
    assert not _label(tmp_path, undrawable="skip").any()


def test_what_lies_outside_is_cut_off_and_what_lies_far_outside_refused(tmp_path):
    coco(tmp_path, [annotation(1, [[-5, -5, 4, -5, 4, 3, -5, 3]])])
    assert np.argwhere(_label(tmp_path)).max(axis=0).tolist() == [2, 3]
    for far in (1e9, float("nan"), -40):
        coco(tmp_path, [annotation(1, [[0, 0, far, 0, 4, 4]])])
        with pytest.raises(
            ValueError, match=r"annotation 1 \('car'\) reaches from .*image of 12x16"
        ):
            _label(tmp_path, undrawable="skip")


def test_an_annotation_of_another_size_is_refused(tmp_path):
    coco(tmp_path, [annotation(1, [SQUARE])])
    save_image(tmp_path / "train/a.png", 24, 32)
    with pytest.raises(
        ValueError,
        match=r"\(a\.png\): the labels are for 12x16 \(height x width\); expected 24x32, the size of .*a\.png",
    ):
        _label(tmp_path)


def test_labels_match_the_upright_photograph_unless_declared_as_stored(tmp_path):
    path = coco(tmp_path, [annotation(1, [SQUARE])], images=("a.jpg",))
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.open(tmp_path / "train/a.jpg").copy()
    stored.save(tmp_path / "train/a.jpg", exif=exif)  # shown as 12x16
    with pytest.raises(
        ValueError, match=r"for 12x16 \(height x width\); expected 16x12, .*orientation: stored"
    ):
        _label(tmp_path)
    turned = _label(tmp_path, orientation="stored")
    expected = np.zeros((12, 16), np.uint8)
    expected[2:8, 2:8] = 1
    np.testing.assert_array_equal(turned, np.rot90(expected, -1))
    content = json.loads(path.read_text())
    content["images"][0] |= {"width": 12, "height": 16}
    path.write_text(json.dumps(content))
    upright = _label(tmp_path)
    assert upright.shape == (16, 12) and upright[2:8, 2:8].all()


def test_images_that_are_missing_are_refused_or_left_out(tmp_path, caplog):
    coco(tmp_path, [annotation(1, [SQUARE])], images=("a.png", "b.png"))
    (tmp_path / "train/b.png").unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r"^1 of 2 images .* not in .* \(b\.png\); .*missing: skip",
    ):
        _folder(tmp_path)
    assert _folder(tmp_path, missing="skip").names == ["a"]
    assert "(b.png); they are left out" in caplog.text
    with pytest.raises(ValueError, match="missing is 'empty' with labels coco"):
        _folder(tmp_path, missing="empty")


def test_images_that_are_not_listed_are_counted_once(tmp_path, caplog):
    path = coco(tmp_path, [annotation(1, [SQUARE])], images=("a.png", "sub/b.png"))
    with caplog.at_level("INFO", "segdistill"):
        _folder(tmp_path)
        assert "not listed" not in caplog.text
        for name in ("c.png", "sub/d.JPG", ".hidden.png", "__MACOSX/e.png"):
            save_image(tmp_path / "train" / name)
        for _ in range(2):
            assert _folder(tmp_path).names == ["a", "sub/b"]
    lines = [one.getMessage() for one in caplog.records if "not listed" in one.getMessage()]
    text = f"{path}: 2 of 4 images in {path.parent} are not listed and not read (c.png, sub/d.JPG)"
    assert lines == [text]


@pytest.mark.parametrize("folder", ["images/train", "train/images", "images", "train", "."])
def test_the_folder_that_holds_most_of_the_images_is_theirs(tmp_path, folder):
    names = [f"{i}.png" for i in range(5)]
    path = coco(tmp_path / "made", [annotation(1, [SQUARE], image=2)], images=names)
    path.rename(tmp_path / "all.json")
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for name in names[1:]:
        (path.parent / name).rename(tmp_path / folder / name)
    # Somewhere else one of them, the first, has a namesake.
    other = "images/train" if folder != "images/train" else "train/images"
    save_image(tmp_path / other / "1.png")
    options = {"annotations": "all.json", "image_dir": "images", "val_fraction": 0}
    with pytest.raises(FileNotFoundError, match=r"^1 of 5 images that .* are not in .*\(0\.png\)"):
        _folder(tmp_path, "train", **options)
    dataset = _folder(tmp_path, "train", **options, missing="skip")
    assert dataset.names == ["1", "2", "3", "4"]
    assert {pair.image.parent for pair in dataset.pairs} == {tmp_path / folder}


def test_images_that_lie_nowhere_are_named_with_the_folders(tmp_path):
    coco(tmp_path, images=[f"{i}.png" for i in range(250)], size=(2, 2))
    for path in tmp_path.glob("train/*.png"):
        path.unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r"lists 250 images \(0\.png, 1\.png, .*\), of which none is in .*train\. Set image_dir",
    ):
        _folder(tmp_path)
    save_image(tmp_path / "train/7.png", 2, 2)  # none of those that are looked for first
    assert _folder(tmp_path, missing="skip").names == ["7"]


def test_two_categories_of_one_name_are_one_class_and_an_unused_parent_is_none(tmp_path):
    categories = [
        {"id": 0, "name": "traffic", "supercategory": "none"},
        {"id": 1, "name": "car", "supercategory": "traffic"},
        {"id": 900, "name": "car", "supercategory": "traffic"},
    ]
    left, right = [0, 0, 4, 0, 4, 12, 0, 12], [8, 0, 16, 0, 16, 12, 8, 12]
    coco(
        tmp_path,
        [annotation(1, [left], 1), annotation(2, [right], 900)],
        categories=categories,
    )
    dataset = _folder(tmp_path)
    assert dataset.classes == ["background", "car"]
    assert dataset.read(0)[1][:, [0, 5, 9]].unique(dim=0).tolist() == [[1, 0, 1]]


def test_files_of_splits_with_categories_in_other_orders_are_refused_with_the_remedy(tmp_path):
    for split, order in (("train", 1), ("val", -1)):
        names = ("road", "car")[::order]
        categories = [{"id": number, "name": name} for number, name in enumerate(names)]
        made = coco(tmp_path / "made", [annotation(1, [SQUARE], 0)], categories=categories)
        save_image(made.parent / "a.png", value=order % 7)
        made.parent.rename(tmp_path / split)
    splits = [(split, _folder(tmp_path, split)) for split in ("train", "val")]
    with pytest.raises(ValueError) as error:
        check_masks(splits)
    remedy = "Set data.options.classes to one list for both"
    text = f"val: class 1 is 'car'; expected 'road', as in train. {remedy}"
    assert text in str(error.value)
    named = {"classes": splits[0][1].classes}
    check_masks([(split, _folder(tmp_path, split, **named)) for split in ("train", "val")])


@pytest.mark.parametrize("name", ["Background", "_background_", "BACKGROUND", "__background"])
def test_a_category_that_names_the_background_is_no_second_one(tmp_path, caplog, name):
    categories = [{"id": 3, "name": "car"}, {"id": 7, "name": name}]
    outer = [0, 0, 16, 0, 16, 12, 0, 12]
    coco(tmp_path, [annotation(1, [outer]), annotation(2, [SQUARE], 7)], categories=categories)
    with caplog.at_level("INFO", "segdistill"):
        dataset = _folder(tmp_path)
    assert dataset.classes == ["background", "car"]
    expected = np.ones((12, 16), np.uint8)
    expected[2:8, 2:8] = 0
    np.testing.assert_array_equal(dataset.read(0)[1], expected)
    assert f"{name!r} is class 'background'" in caplog.text
    assert _folder(tmp_path, unannotated="ignore").classes == ["car", name]
    assert _folder(tmp_path, mapping={name: None}).read(0)[1][5, 5] == 255


def test_names_with_accents_are_found_in_either_form(tmp_path):
    composed, apart = (normalize(form, "caf\u00e9.png") for form in ("NFC", "NFD"))
    for stored, listed in ((composed, apart), (apart, composed)):
        path = coco(tmp_path, [annotation(1, [SQUARE])], images=(stored,))
        path.write_text(path.read_text().replace(json.dumps(stored), json.dumps(listed)))
        assert _folder(tmp_path).names == ["caf\u00e9"]
        (tmp_path / "train" / stored).unlink()


def test_a_file_is_read_once_and_travels_with_the_data_set(tmp_path, monkeypatch):
    path = coco(tmp_path, [annotation(1, [SQUARE])])
    _folder(tmp_path)
    monkeypatch.setattr(coco_module, "read_json", None)
    dataset = _folder(tmp_path)
    copied = pickle.loads(pickle.dumps(dataset))
    path.unlink()
    np.testing.assert_array_equal(copied.read(0)[1], dataset.read(0)[1])


def test_a_file_is_read_again_after_an_edit_that_keeps_its_size_and_time(tmp_path):
    path = coco(tmp_path, [annotation(1, [SQUARE])])
    before = path.stat()
    assert _folder(tmp_path).classes[1] == "car"
    path.write_text(path.read_text().replace('"car"', '"bus"'))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert _folder(tmp_path).classes[1] == "bus"


def test_a_file_named_by_an_option_has_its_images_elsewhere(tmp_path):
    path = coco(tmp_path, [annotation(1, [SQUARE])], images=[f"{i}.png" for i in range(9)])
    for split in ("train", "val"):
        place = tmp_path / f"annotations/instances_{split}2017.json"
        place.parent.mkdir(exist_ok=True)
        place.write_text(path.read_text())
    path.unlink()
    (tmp_path / "train").rename(tmp_path / "images")
    wanted = "annotations/instances_{split}2017.json"
    with pytest.raises(FileNotFoundError) as error:
        _folder(tmp_path, image_dir="images")
    assert f'Set data.options: {{annotations: "{wanted}"}}' in str(error.value)
    dataset = _folder(tmp_path, "val", image_dir="images", annotations=wanted)
    assert len(dataset) == 9
    with pytest.raises(FileNotFoundError, match=r"no split named 'test' \(known: train, val\)"):
        _folder(tmp_path, "test", image_dir="images", annotations=wanted)
    one = wanted.replace("{split}", "val")
    parts = [
        _folder(tmp_path, split, image_dir="images", annotations=one).names
        for split in ("train", "val", "all")
    ]
    assert sorted(parts[0] + parts[1]) == sorted(parts[2]) and parts[1]


@pytest.mark.parametrize("before", ["/home/me/", "images\\", "https://host/"])
def test_names_in_folders_that_are_not_there_are_to_be_corrected(tmp_path, before):
    path = coco(tmp_path, images=["a.png", "b.png"])
    content = json.loads(path.read_text())
    for image in content["images"]:
        image["file_name"] = before + image["file_name"]
    path.write_text(json.dumps(content))
    with pytest.raises(FileNotFoundError) as error:
        _folder(tmp_path)
    text = str(error.value)
    assert f"lists {before + 'a.png'!r}, and {tmp_path / 'train'} holds a.png; expected" in text
    assert text.endswith("Correct the names in the file")


@pytest.mark.parametrize("name", [" road ", "no", "road: wet", "#1", "12", "road, wet", "null"])
def test_a_proposed_mapping_is_what_yaml_reads(tmp_path, name):
    categories = [{"id": 3, "name": name}]
    coco(tmp_path, [annotation(1, [SQUARE])], categories=categories)
    with pytest.raises(ValueError) as error:
        _folder(tmp_path, classes=["background", "way"])
    proposed = re.search(r"mapping: (\{.*\}), with null", str(error.value))[1]
    mapping = yaml.safe_load(proposed.replace("CLASS", "way"))
    label = _label(tmp_path, classes=["background", "way"], mapping=mapping)
    assert np.unique(label).tolist() == [0, 1]
