"""The page of samples."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segdistill.data import build_dataset
from segdistill.run.auditing.data_audit import split_of
from segdistill.run.auditing.samples import write_samples
from tests.data.annotations.exports import SQUARE, annotation, coco
from tests.data.files import ids, save_image, save_mask


def _pictures(page: str) -> list[np.ndarray]:
    texts = re.findall('src="data:image/png;base64,([^"]+)"', page)
    return [np.array(Image.open(io.BytesIO(base64.b64decode(text)))) for text in texts]


def test_a_label_is_drawn_over_its_image_in_the_colours_of_the_classes(tmp_path: Path) -> None:
    crowd = annotation(2, [[0, 10, 16, 10, 16, 12, 0, 12]], 7, iscrowd=1)
    coco(tmp_path, [annotation(1, [SQUARE]), crowd])
    dataset = build_dataset("folder", tmp_path, labels="coco", image_dir=".")
    write_samples(tmp_path / "new/page.html", [split_of("train", dataset)])
    page = (tmp_path / "new/page.html").read_text("utf-8")
    image, drawn = (picture.astype(int) for picture in _pictures(page))
    np.testing.assert_array_equal(image, dataset.read(0)[0].permute(1, 2, 0))
    colours = np.array(dataset.palette)[np.where(dataset.read(0)[1][:10] == 1, 1, 0)]
    assert np.abs(drawn[:10] - (0.4 * image[:10] + 0.6 * colours)).max() <= 1
    assert np.ptp(drawn[10:]) > 100  # the stripes of ignored pixels
    assert all(
        word in page for word in ("train: 1 of 1 samples", ">background<", ">car<", "ignored")
    )
    assert ">road<" not in page


def test_names_of_classes_and_files_are_escaped(tmp_path: Path) -> None:
    name = "<script>alert(1)"
    save_image(tmp_path / "images" / f"{name}.png")
    save_mask(tmp_path / "masks" / f"{name}.png", ids(2))
    dataset = build_dataset("folder", tmp_path, "all", classes=["<b>", "x"])
    write_samples(tmp_path / "page.html", [split_of("all", dataset)])
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "<script>" not in page and "<b>" not in page and "&lt;b&gt;" in page


@pytest.mark.parametrize("channels", [1, 5])
def test_any_number_of_channels_and_many_samples_fit(tmp_path: Path, channels: int) -> None:
    (tmp_path / "images").mkdir()
    for i in range(20):
        pixels = np.zeros((9, 1200, channels), np.uint8)
        np.save(tmp_path / f"images/{i}.npy", pixels)
        save_mask(tmp_path / f"masks/{i}.png", ids(3, 9, 1200))
    (tmp_path / "masks/0.png").write_bytes(b"damaged")
    dataset = build_dataset("folder", tmp_path, "all", classes=3, channels=channels)
    write_samples(tmp_path / "page.html", [split_of("all", dataset)])
    pictures = _pictures((tmp_path / "page.html").read_text("utf-8"))
    assert len(pictures) == 2 * 7 and {picture.shape for picture in pictures} == {(3, 400, 3)}
