"""Folders of images that are not RGB."""

import numpy as np
import pytest
import torch
from PIL import Image

from segdistill.data.files import read_image
from segdistill.data.folder import Folder
from segdistill.data.loader import training_loader
from segdistill.data.transforms import Augment
from segdistill.run.auditing.facts import pair_facts
from tests.data.files import ids, save_image, save_mask


def _ramp(channels, dtype=np.uint8, height=4, width=6):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("LA", 2), ("RGBA", 4), ("CMYK", 4)])
def test_pictures_are_read_as_stored(tmp_path, mode, channels):
    path = tmp_path / "x.tif"
    Image.fromarray(_ramp(channels), mode).save(path)
    image = read_image(path, channels)
    assert image.dtype == torch.uint8
    assert np.array_equal(image.permute(1, 2, 0).squeeze(-1).numpy(), _ramp(channels))


@pytest.mark.parametrize("ending", ["png", "tif", "npy"])
def test_sixteen_bits_are_scaled(tmp_path, ending):
    path, pixels = tmp_path / f"x.{ending}", _ramp(1, np.uint16) * 2849
    if ending == "npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels).save(path)
    image = read_image(path, 1)
    assert image.dtype == torch.float32 and float(image.max()) == pytest.approx(23 * 2849 / 65535)
    assert np.array_equal(image[0].numpy(), (pixels / 65535).astype(np.float32))


def test_arrays_may_have_any_number_of_channels(tmp_path):
    for pixels in (_ramp(7), _ramp(3), (_ramp(5) / 255).astype(np.float64)):
        np.save(tmp_path / "x.npy", pixels)
        image = read_image(tmp_path / "x.npy", pixels.shape[-1])
        same = torch.from_numpy(pixels).permute(2, 0, 1)
        assert torch.equal(image, same if same.dtype == torch.uint8 else same.float())


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (_ramp(5), r"x\.npy: the array is 4x6x5; expected height x width x 4\. Set `channels`"),
        (_ramp(1), r"the array is 4x6; expected height x width x 4"),
        (
            _ramp(4).astype(np.float32),
            r"float32 from 0 to 95; expected .* floating point in 0\.\.1",
        ),
        (np.full((4, 6, 4), np.nan), r"float64 from nan to nan; expected"),
        (_ramp(4).astype(np.int16) - 1, r"int16 from -1 to 94; expected"),
        (
            np.full((4, 6, 4), "a"),
            r"cannot read this array \(values of <U1\); expected a numeric array",
        ),
        (np.full((4, 6, 4), None), r"cannot read this array \(.*; expected a numeric array"),
    ],
)
def test_unsuitable_arrays_are_refused_in_one_line(tmp_path, pixels, message):
    np.save(tmp_path / "x.npy", pixels)
    with pytest.raises(ValueError, match=message) as error:
        read_image(tmp_path / "x.npy", 4)
    assert "\n" not in str(error.value)


def test_pictures_with_other_channels_are_refused(tmp_path):
    path = save_image(tmp_path / "x.png")
    with pytest.raises(
        ValueError, match=r"x\.png: the image \(mode RGB\) is 12x16x3; expected .* x 4"
    ):
        read_image(path, 4)
    Image.open(path).convert("P").save(path)
    with pytest.raises(ValueError, match="the image has a palette; expected 1 stored channels"):
        read_image(path, 1)
    with pytest.raises(FileNotFoundError, match="no such image file"):
        read_image(tmp_path / "none.npy", 1)


def test_a_folder_of_five_channels_is_loaded_and_audited(tmp_path):
    for i in range(4):
        (tmp_path / "images").mkdir(exist_ok=True)
        np.save(tmp_path / "images" / f"{i}.npy", _ramp(5, np.uint16, 12, 16) * (i + 1))
        save_mask(tmp_path / "masks" / f"{i}.png", ids(3))
    dataset = Folder(tmp_path, "all", classes=3, channels=5, cache=True)
    torch.testing.assert_close(dataset[1]["image"], dataset[0]["image"] * 2)
    augment = Augment(crop=(8, 8), photometric=0.2)
    batch = next(training_loader(dataset, augment, batch=2, seed=0, start_step=0, steps=1))
    assert (
        batch["image"].shape == (2, 5, 8, 8)
        and 0 <= batch["image"].min() <= batch["image"].max() <= 1
    )
    facts = [pair_facts(pair) for pair in dataset.pairs]
    assert not any(one.fault for one in facts) and len({one.digest for one in facts}) == 4
    wrong = Folder(tmp_path, "all", classes=3)
    assert "expected height x width x 3" in pair_facts(wrong.pairs[0]).fault
    with pytest.raises(ValueError, match="channels is 0; expected a positive integer"):
        Folder(tmp_path, "all", classes=3, channels=0)
