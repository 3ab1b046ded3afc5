"""Every mask is read before step 1."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from segdistill.data import build_dataset
from segdistill.data.pair import Pair
from segdistill.run.auditing import facts
from segdistill.run.auditing.masks import check_masks, class_pixels
from segdistill.run.auditing.teacher import chance, judged
from segdistill.run.identity.data import data_digest
from segdistill.run.training.train import train
from tests.run import small
from tests.run.identity.folders import write_pairs


def _folder(root: Path, split: str = "train") -> Any:
    return build_dataset("folder", root, split, classes=["ground", "sky"])


def _wrong_id(path: Path) -> None:
    pixels = np.array(Image.open(path))
    pixels[0, 0] = 7
    Image.fromarray(pixels).save(path)


def _wrong_size(path: Path) -> None:
    Image.open(path).resize((10, 10)).save(path)


def _cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_wrong_id, "label id 7"),
        (_wrong_size, r"the mask is 10x10 \(height x width\); expected 32x48"),
        (_cut_off, "cannot read this mask"),
    ],
)
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_bad_mask_of_either_split_is_named_before_anything_is_trained(
    spoil: Any, message: str, split: str, tmp_path: Path
) -> None:
    root = write_pairs(tmp_path / "data", count=20)
    data = _folder(root, split)
    bad = data.pairs[-1].mask
    spoil(bad)
    recipe = small.recipe(
        data={"name": "folder", "root": str(root), "options": {"classes": ["ground", "sky"]}},
        out=str(tmp_path / "run"),
    )
    with pytest.raises(ValueError, match=message) as caught:
        train(recipe, progress=False)
    assert str(bad) in str(caught.value)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_masks_that_passed_are_not_read_again_until_a_byte_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_pairs(tmp_path / "data")
    read: list[Path] = []
    real = facts.open_label
    monkeypatch.setattr(facts, "open_label", lambda path, *a: read.append(path) or real(path, *a))
    data = _folder(root)
    for _ in range(2):
        check_masks([("train", data)], data_digest(data))
    assert len(read) == len(data)
    _wrong_id(data.pairs[0].mask)
    with pytest.raises(ValueError, match="label id 7"):
        check_masks([("train", data)], data_digest(data))


def test_pixels_of_each_class_are_those_of_the_masks_that_were_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_pairs(tmp_path / "data")
    data = _folder(root)
    expected = [0, 0]
    for pair in data.pairs:
        for value in np.array(Image.open(pair.mask)).ravel().tolist():
            expected[value] += 1
    assert class_pixels("train", data) == expected
    check_masks([("train", data), ("val", _folder(root, "val"))], "both")
    read: list[Path] = []
    real = facts.open_label
    monkeypatch.setattr(facts, "open_label", lambda path, *a: read.append(path) or real(path, *a))
    assert class_pixels("train", data, data_digest(data)) == expected
    assert read == []
    mapped = build_dataset("folder", root, "train", classes=["sky", "ground"], mapping={0: 1, 1: 0})
    assert class_pixels("train", mapped, data_digest(mapped)) == expected[::-1]
    assert len(read) == len(data)


def test_pixels_of_each_class_of_a_set_in_memory() -> None:
    assert class_pixels("train", Loaded(0, 1, 255)) == [24, 24]
    with pytest.raises(ValueError, match=r"sample 0.*label id is 7"):
        class_pixels("train", Loaded(0, 1, 7))
    with pytest.raises(ValueError, match=r"train: every pixel is ignored; expected pixels of some"):
        class_pixels("train", Ignored(255, 255))


def test_sound_images_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Path] = []
    real = facts.read_with_geometry
    monkeypatch.setattr(
        facts, "read_with_geometry", lambda path, *a: decoded.append(path) or real(path, *a)
    )
    data = _folder(write_pairs(tmp_path / "data"))
    check_masks([("train", data)])
    assert decoded == []
    bad = data.pairs[1].image
    bad.write_bytes(bad.read_bytes()[:-30])
    with pytest.raises(ValueError, match="cannot read this image") as caught:
        check_masks([("train", data)])
    assert decoded == [bad]
    assert str(caught.value).startswith(str(bad))


class Loaded:
    """A user's data set of two classes that gives the masks as they are stored."""

    num_classes = 2

    def __init__(self, *ids: int) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.rand(3, 4, 6), torch.tensor(self.ids).repeat(12)[:24].reshape(4, 6)


class Ignored(Loaded):
    num_classes = 3


def test_white_is_not_taken_for_the_ignored_id_of_a_data_set_in_memory() -> None:
    with pytest.raises(ValueError, match=r"255 occurs but 1 does not, with 2 classes.*Return 1"):
        check_masks([("val", Loaded(0, 255))])
    check_masks([("val", Loaded(0, 1, 255))])
    with pytest.raises(ValueError, match=r"sample 0.*label id is 7; expected 0\.\.1, or 255"):
        check_masks([("val", Loaded(0, 1, 7))])


def test_a_threshold_and_a_tolerance_are_part_of_the_datas_identity(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "data")

    def digest(**options: Any) -> str | None:
        return data_digest(build_dataset("folder", root, classes=2, **options))

    mapping = {0: 0, 100: 1}
    read = [{}, {"threshold": 1}, {"threshold": 9}, {"mapping": mapping}]
    read += [{"mapping": mapping, "tolerance": n} for n in (1, 2)]
    assert len({digest(**options) for options in read}) == len(read)


def test_a_teacher_is_held_against_the_commonest_class() -> None:
    confusion = torch.tensor([[90, 0, 0], [5, 0, 0], [5, 0, 0]])
    assert chance(confusion) == pytest.approx(30)
    refused, _ = judged(30.0, None, confusion, None, lambda: None)
    assert "it predicts one class everywhere" in refused
    mixed = torch.tensor([[80, 10, 0], [4, 1, 0], [5, 0, 0]])
    refused, _ = judged(29.0, None, mixed, None, lambda: None)
    assert "expected better than chance (30.0, the commonest class everywhere)" in refused
    assert judged(29.0, 0, mixed, None, lambda: None) == ("", "")


def test_a_teacher_clearly_below_its_record_is_searched_and_warned_about() -> None:
    asked: list[int] = []
    good = torch.tensor([[50, 10], [10, 50]])
    assert judged(52.0, None, good, 53.0, lambda: asked.append(1)) == ("", "")
    assert not asked
    refused, warning = judged(40.0, None, good, 52.6, lambda: asked.append(1))
    assert asked and not refused
    assert "its own run recorded 52.60" in warning
    # Without a record, a low figure is reason enough to look.
    judged(45.0, None, good, None, lambda: asked.append(2))
    assert asked == [1, 2]


@pytest.mark.parametrize("kept", [1.0, 0.9])
def test_the_end_of_a_thumbnail_is_not_the_end_of_a_photograph(kept: float, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    picture, thumbnail = io.BytesIO(), io.BytesIO()
    Image.fromarray(noise).save(picture, "JPEG")
    Image.fromarray(noise[:8, :8]).save(thumbnail, "JPEG")
    header = b"Exif\0\0" + thumbnail.getvalue()
    length = (len(header) + 2).to_bytes(2, "big")
    content = b"\xff\xd8\xff\xe1" + length + header + picture.getvalue()[2:]
    file = tmp_path / "a.jpg"
    file.write_bytes(content[: int(kept * len(content))])
    geometry = facts.sound_geometry(Pair("a", file, None))
    assert (geometry is not None) == (kept == 1)


@pytest.mark.parametrize(
    ("ids", "warning"),
    [
        ((0, 1, 2), ""),
        ((1, 2, 255), "val: no pixel of class0"),  # numbered from 1, the last taken for ignored
        ((0, 255), "val: no pixel of class1, class2"),
        ((0, 1, 2, *[255] * 5), "62 % of the pixels are ignored"),
    ],
)
def test_a_training_says_which_classes_have_no_pixel(
    ids: tuple[int, ...], warning: str, caplog: pytest.LogCaptureFixture
) -> None:
    check_masks([("val", Ignored(*ids))])
    assert warning in caplog.text and bool(warning) == bool(caplog.records)
