"""Malformed labels of annotation tools, and options that contradict each other: one line, before training."""

import json

import pytest

from segdistill.data import build_dataset
from tests.data.annotations.exports import CATEGORIES, SQUARE, annotation, coco


def _rle(counts, size=(12, 16)):
    return {"annotations": [annotation(1, {"size": list(size), "counts": counts})]}


def _images(**values):
    entry = {"id": 1, "file_name": "a.png", "width": 16, "height": 12}
    return {"images": [entry, {**entry, **values}]}


def _folder(root, split="train", **options):
    return build_dataset("folder", root, split, **{"image_dir": ".", "labels": "coco", **options})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, r"has no list 'images', but .*; expected one\. Check that this is the for"),
        ({"annotations": ["x"]}, r"annotations\[0\] is 'x'; expected a mapping"),
        ({"annotations": [annotation(1, [SQUARE], image=9)]}, r"annotations\[0\] has image_id 9, and no image"),
        ({"annotations": [annotation(1, [SQUARE], 4)]}, r"annotations\[0\] has category_id 4, and no category"),
        ({"annotations": [annotation(1, [["a"]])]}, r"annotations\[0\] of a\.png has the polygon \['a'\]"),
        ({"annotations": [annotation(1, [[1, 2, 3]])]}, r"a polygon of 3 numbers; expected an even"),
        ({"annotations": [annotation(1, SQUARE)]}, r"has the polygon 2; expected a list of numbers"),
        ({"annotations": [annotation(1, "x")]}, r"has segmentation 'x'; expected polygons or RLE"),
        ({"annotations": [annotation(1, [SQUARE], iscrowd="1")]}, r"annotations\[0\] has iscrowd '1'; expected 0 or 1"),
        ({"annotations": [annotation(1, [SQUARE], iscrowd=2)]}, r"annotations\[0\] has iscrowd 2; expected 0"),
        ({"annotations": [annotation(1, [SQUARE], iscrowd=[1])]}, r"annotations\[0\] has iscrowd \[1\]; expected 0"),
        (_rle([192], [16, 12]), r"size \[16, 12\]; expected \[12, 16\]"),
        (_rle([5, 200]), r"RLE of 205 pixels; .* add up to 192"),
        (_rle([200, -8]), r"RLE of 192 pixels; expected runs from 0"),
        (_rle("zzzz"), r"cut off or no RLE"),
        (_rle("33"), r"RLE of 6 pixels"),
        (_rle(""), r"cut off or no RLE"),
        (_rle(None), r"RLE counts None; expected text or integers"),
        ({"categories": [*CATEGORIES, {"id": 3, "name": "x"}]}, r"categories\[2\] has the id 3 again"),
        ({"categories": [{"id": "x", "name": "x"}]}, r"categories\[0\] is .*; expected an integer id and a name"),
        ({"images": [{"id": 1, "file_name": "a.png"}]}, r"\(a\.png\) has width None and height None"),
        (_images(id=2), r"images\[1\] has a\.png again"),
        (_images(file_name="b"), r"images\[1\] has the id 1 again"),
        (_images(id=2, file_name="../x.png"), r"images\[1\] is '\.\./x\.png', which leads out of"),
        ({"images": []}, r"lists no images"),
    ],
)  # fmt: skip
def test_what_is_malformed_is_one_line_with_file_and_place(tmp_path, changes, message):
    path = coco(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        _folder(tmp_path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"images": [', r"line 1, column 13 is not JSON \(Expecting value\)"),
        (b"\xff\xfe", r"byte 0 is not UTF-8"),
        (b"[]", r"holds a list; expected a mapping"),
        (b"[" * 100_000, r"cannot be read \(.*recursion"),
        (b'{"images": ' + b"9" * 5000 + b"}", r"cannot be read \(Exceeds the limit"),
    ],
)
def test_files_that_are_no_json_are_refused(tmp_path, content, message):
    coco(tmp_path).write_bytes(content)
    with pytest.raises(ValueError, match=rf"_annotations\.coco\.json.*{message}"):
        _folder(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 128}, "threshold is 128, and labels is coco"),
        ({"mask_suffix": "_x"}, "mask_suffix is '_x', and labels is coco"),
        ({"labels": "masks", "overlap": "smaller"}, "overlap is 'smaller', and labels is masks"),
        ({"labels": "cocoo"}, "option labels is 'cocoo'; expected 'masks' or 'layers' or"),
        (
            {"label_dir": "x"},
            "label_dir is 'x', and labels is coco; expected it only with yolo or labelme",
        ),
        (
            {"labels": "yolo", "crowds": "draw"},
            "crowds is 'draw', and labels is yolo; expected it only with coco",
        ),
        ({"classes": 3}, "classes is 3 with labels coco; expected names"),
    ],
)
def test_options_that_contradict_each_other_are_refused(tmp_path, options, message):
    coco(tmp_path)
    with pytest.raises(ValueError, match=message):
        _folder(tmp_path, **options)
