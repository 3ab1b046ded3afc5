"""Samples kept on the disk: the same bits, by content of the files, and never an old one."""

import json
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch

from segdistill.data import caching
from segdistill.data.dataset import SegmentationDataset
from segdistill.data.folder import Folder
from segdistill.data.loader import training_loader
from segdistill.data.synthetic.dataset import Synthetic
from segdistill.data.transforms import Augment
from tests.data.files import ids, save_image, save_mask


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for number in range(4):
        save_image(tmp_path / "data" / "images" / "train" / f"{number}.png", value=number)
        save_mask(tmp_path / "data" / "masks" / "train" / f"{number}.png", ids(3))
    return tmp_path / "data"


def _folder(root: Path, cache: object = "disk", **options: object) -> Folder:
    return Folder(root, "train", classes=3, cache=cache, **options)  # type: ignore[arg-type]


def _kept(root: Path) -> list[Path]:
    return sorted((root.parent / "cache").rglob("*.safetensors"))


def test_kept_samples_are_those_that_were_decoded(root: Path) -> None:
    plain, kept = _folder(root, False), _folder(root)
    for index in range(4):
        for one, other in zip(plain.read(index), kept.read(index), strict=True):
            assert torch.equal(one, other) and one.dtype == other.dtype
    assert len(_kept(root)) == 4
    again = _folder(root, limit=3)
    assert again._cache is not None
    for index in range(3):
        found = again._cache.sample(index, lambda _: pytest.fail("decoded again"))
        assert all(map(torch.equal, found, plain.read(index)))


def test_what_changes_is_decoded_again(root: Path) -> None:
    before = _folder(root).read(1)
    image, mask = (root / part / "train" / "1.png" for part in ("images", "masks"))
    save_image(image, value=9)
    assert int(_folder(root).read(1)[0][2].max()) == 9
    save_mask(mask, np.ones((12, 16), np.uint8))
    assert set(_folder(root).read(1)[1].flatten().tolist()) == {1}
    mapped = Folder(root, "train", classes=3, mapping={0: 0, 1: 2, 2: None}, cache="disk")
    assert set(mapped.read(1)[1].flatten().tolist()) == {2}
    assert set(_folder(root).read(0)[1].flatten().tolist()) == {0, 1, 2}
    assert before[1].max() == 2 and len(_kept(root)) == 5


def test_a_sample_without_its_label_is_another(root: Path) -> None:
    _folder(root).read(0)
    few = _folder(root)
    few.keep_labels([1])
    assert set(few.read(0)[1].flatten().tolist()) == {255}
    assert set(_folder(root).read(0)[1].flatten().tolist()) == {0, 1, 2}


@pytest.mark.parametrize("content", [b"", b"\x10\0\0\0\0\0\0\0{damaged"])
def test_a_damaged_file_is_told_and_written_again(
    root: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    expected = _folder(root).read(2)
    (file,) = _kept(root)
    file.write_bytes(content)
    assert all(map(torch.equal, _folder(root).read(2), expected))
    assert "is damaged" in caplog.text and file.stat().st_size > 100
    caplog.clear()
    assert all(map(torch.equal, _folder(root).read(2), expected)) and not caplog.text


def test_without_room_nothing_is_begun(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 8, 2))
    with pytest.raises(
        ValueError, match=r"needs about .* for 4 samples in .* expected room for all of them"
    ):
        _folder(root).read(0)
    assert not _kept(root)


def test_only_what_is_missing_needs_room(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for index in range(3):
        _folder(root).read(index)
    usage = namedtuple("usage", "total used free")
    one = _kept(root)[0].stat().st_size
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 8, one))
    dataset = _folder(root)
    with caplog.at_level("INFO"):
        for index in range(4):
            dataset.read(index)
    assert len(_kept(root)) == 4 and "0.0 GB for 1 sample in" in caplog.text


def test_a_coco_file_that_changes_meanwhile_is_not_taken_for_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "data"
    save_image(root / "images" / "train" / "0.png")

    def write(left: int) -> None:
        ring = [left, 2, left + 4, 2, left + 4, 6, left, 6]
        shape = {"id": 1, "image_id": 7, "category_id": 1, "segmentation": [ring], "iscrowd": 0}
        shape |= {"bbox": [left, 2, 4, 4], "area": 16}
        image = {"id": 7, "file_name": "0.png", "width": 16, "height": 12}
        content = {"images": [image], "annotations": [shape]}
        content["categories"] = [{"id": 1, "name": "thing"}]
        (root / "train.json").write_text(json.dumps(content))

    def opened() -> Folder:
        classes = ["background", "thing"]
        return Folder(
            root, "train", classes=classes, labels="coco", annotations="{split}.json", cache="disk"
        )

    write(1)
    before = opened()
    write(9)
    old, new = before.read(0)[1], opened().read(0)[1]
    assert old[4, 2] == 1 and old[4, 11] == 0
    assert new[4, 2] == 0 and new[4, 11] == 1


def test_a_disk_that_fills_up_ends_no_training(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching, "save_file", full)
    assert _folder(root).read(0)[0].shape == (3, 12, 16)
    assert "cannot be written" in caplog.text and not _kept(root)


def test_a_folder_that_cannot_be_made_ends_no_training(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (root.parent / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(root.parent / "file"))
    assert torch.equal(_folder(root).read(0)[0], _folder(root, False).read(0)[0])
    assert "cannot be written" in caplog.text and "damaged" not in caplog.text


def test_the_space_is_told_once(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = _folder(root)
    with caplog.at_level("INFO"):
        for index in range(4):
            dataset.read(index)
    assert (
        caplog.text.count("decoded samples are kept on the disk, about 0.0 GB for 4 samples") == 1
    )


def test_workers_share_what_is_kept(root: Path) -> None:
    def batches(cache: object, workers: int) -> list[torch.Tensor]:
        loader = training_loader(
            _folder(root, cache), Augment((6, 8)), 2, seed=3, start_step=0, steps=4, workers=workers
        )
        return [batch["image"] for batch in loader]

    expected = batches(False, 0)
    for workers in (2, 0):
        assert all(map(torch.equal, batches("disk", workers), expected))
    assert len(_kept(root)) == 4 and not list((root.parent / "cache").rglob("*.tmp"))


@pytest.mark.usefixtures("unchecked")
def test_what_has_no_files_is_refused() -> None:
    class Own(SegmentationDataset):
        def __init__(self) -> None:
            super().__init__(["a"], ["b", "c"], cache="disk")

    for made in (Own, lambda: Synthetic(cache="disk")):  # type: ignore[arg-type]
        with pytest.raises(
            ValueError, match="nothing tells when they change; expected true or false"
        ):
            made()


@pytest.mark.usefixtures("unchecked")
def test_another_word_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match="cache is 'dsk'; expected true, false or disk"):
        _folder(root, "dsk")
