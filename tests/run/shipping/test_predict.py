"""Palette masks of the photograph's size, overlays, and early refusal of bad input."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor, nn

from segdistill.run.shipping.predict import find_images, predict

CLASSES = ["dark", "middle", "bright"]
PALETTE = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


class Brightness(nn.Module):
    """Class 0, 1 or 2 by the brightness of the red channel."""

    num_classes, align_corners, multiple_of = 3, True, 1
    calls = 0

    def forward(self, images: Tensor) -> Tensor:
        type(self).calls += 1
        return -(images[:, :1] * 2 - torch.arange(3)[:, None, None]).abs()


@pytest.fixture
def network():
    Brightness.calls = 0
    return Brightness()


@pytest.fixture
def photographs(tmp_path):
    """A folder with three grey levels from left to right, 6 high and 9 wide, in several formats."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    grey = np.repeat(np.array([0, 128, 255], dtype=np.uint8), 3)[None].repeat(6, 0)
    Image.fromarray(grey).convert("RGB").save(folder / "rgb.png")
    Image.fromarray(grey).save(folder / "grey.png")
    rgba = np.dstack([grey, grey, grey, np.zeros_like(grey)])
    Image.fromarray(rgba, "RGBA").save(folder / "transparent.png")
    (folder / "notes.txt").write_text("not an image")
    return folder


EXPECTED = np.repeat(np.array([0, 1, 2]), 3)[None].repeat(6, 0)


def run(network, inputs, out, **options):
    return predict(network, inputs, out, classes=CLASSES, palette=PALETTE, **options)


def test_masks_hold_ids_and_show_colours(network, photographs, tmp_path):
    written = run(network, photographs, tmp_path / "out")
    stems = ["grey", "rgb", "transparent"]
    expected = [f"{stem}{end}" for stem in stems for end in (".png", "_overlay.jpg")]
    assert [path.name for path in written] == [*expected, "classes.json"]
    assert all(path.is_file() for path in written)
    for stem in stems:
        mask = Image.open(tmp_path / "out" / f"{stem}.png")
        assert mask.mode == "P"
        assert np.array_equal(np.array(mask), EXPECTED)
        assert np.array_equal(np.array(mask.convert("RGB")), np.array(PALETTE)[EXPECTED])


def test_the_legend_names_the_class_of_each_id(network, photographs, tmp_path):
    legend = json.loads(run(network, photographs, tmp_path / "out")[-1].read_text())
    assert legend[1] == {"id": 1, "name": "middle", "colour": [0, 255, 0]}
    assert len(legend) == 3


def test_the_overlay_blends_photograph_and_colour(network, tmp_path):
    Image.new("RGB", (32, 16), (255, 255, 255)).save(tmp_path / "white.png")
    run(network, tmp_path / "white.png", tmp_path / "out", alpha=0.25)
    overlay = np.array(Image.open(tmp_path / "out" / "white_overlay.jpg")).astype(int)
    # Three quarters white, one quarter of class 2's blue; JPEG may be off by a little.
    assert overlay.shape == (16, 32, 3)
    assert np.abs(overlay - [191, 191, 255]).max() <= 4


def test_masks_have_the_photographs_own_size_whatever_the_network_sees(network, tmp_path):
    grey = np.repeat(np.array([0, 128, 255], dtype=np.uint8), 31)[None].repeat(57, 0)
    Image.fromarray(grey).save(tmp_path / "odd.png")
    run(network, tmp_path / "odd.png", tmp_path / "small", size=(16, 24), flip=True)
    mask = np.array(Image.open(tmp_path / "small" / "odd.png"))
    assert mask.shape == (57, 93)
    whole = grey.astype(float) / 127.5
    assert (mask == whole.round()).mean() > 0.9


def test_each_scale_is_a_view(network, photographs, tmp_path):
    run(network, photographs / "rgb.png", tmp_path / "out", scales=[1.0, 2.0], flip=True)
    assert Brightness.calls == 4
    assert np.array_equal(np.array(Image.open(tmp_path / "out" / "rgb.png")), EXPECTED)
    with pytest.raises(ValueError, match="expected factors above 0"):
        run(network, photographs, tmp_path / "out", scales=[0.0])


def test_the_exif_orientation_is_applied_first(network, tmp_path):
    grey = np.repeat(np.array([0, 128, 255], dtype=np.uint8), 16)[None].repeat(8, 0)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    Image.fromarray(grey).convert("RGB").save(tmp_path / "phone.jpg", quality=100, exif=exif)
    run(network, [tmp_path / "phone.jpg"], tmp_path / "out")
    mask = np.array(Image.open(tmp_path / "out" / "phone.png"))
    assert mask.shape == (48, 8)
    assert mask[2, 4] == 0 and mask[24, 4] == 1 and mask[45, 4] == 2
    assert Image.open(tmp_path / "out" / "phone_overlay.jpg").size == (8, 48)


def test_images_with_the_same_stem_do_not_overwrite_each_other(network, tmp_path):
    paths = []
    for index, name in enumerate(["a/x.png", "b/x.png", "a/x-2.png", "b/X.jpg"]):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8), [0, 128, 255, 128][index]).save(path)
        paths.append(path)
    written = run(network, [*paths, tmp_path / "a"], tmp_path / "out")
    assert len(written) == len({path.name.lower() for path in written}) == 9
    masks = [path for path in written if path.suffix == ".png"]
    assert [path.name for path in masks] == ["x.png", "x-3.png", "x-2.png", "X-4.png"]
    assert [int(np.array(Image.open(path))[0, 0]) for path in masks] == [0, 1, 2, 1]


def test_bad_images_are_refused_before_the_first_prediction(network, photographs, tmp_path):
    whole = (photographs / "rgb.png").read_bytes()
    (photographs / "zz_cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"zz_cut.png") as caught:
        run(network, photographs, tmp_path / "out")
    assert "\n" not in str(caught.value)
    (photographs / "zz_text.jpg").write_text("no image")
    message = r"2 of 5 images cannot be read \(zz_cut.png, zz_text.jpg\)"
    with pytest.raises(ValueError, match=message):
        run(network, photographs, tmp_path / "out")
    assert Brightness.calls == 0
    assert not (tmp_path / "out").exists()


def test_missing_inputs_are_refused(network, photographs, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no image or folder at .*nowhere.png"):
        run(network, [photographs, tmp_path / "nowhere.png"], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no image in .*empty; expected files that end in"):
        run(network, tmp_path / "empty", tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="no images to predict"):
        find_images([])
    assert Brightness.calls == 0


def test_hidden_files_and_those_of_systems_are_skipped(network, photographs, tmp_path):
    expected = find_images(photographs)
    for name in ("._rgb.png", ".hidden.jpg", "Thumbs.db"):
        (photographs / name).write_bytes(b"no image")
    for folder in (".ipynb_checkpoints", "__MACOSX", "deeper"):
        (photographs / folder).mkdir()
        shutil.copy(photographs / "rgb.png", photographs / folder / "other.png")
    assert find_images(photographs) == expected


def test_pictures_of_other_formats_are_counted(photographs, tmp_path, caplog):
    (photographs / "x.gif").write_bytes(b"picture")
    (photographs / "deeper").mkdir()
    (photographs / "deeper/y.gif").write_bytes(b"picture")
    assert len(find_images(photographs)) == 3
    assert f"{photographs}: pictures of these formats are not read: .gif 1. Convert" in caplog.text
    with pytest.raises(FileNotFoundError, match=r"no image in .*deeper; .* not read: \.gif 1\."):
        find_images(photographs / "deeper")


def test_a_pipe_is_named_and_not_opened(network, photographs, tmp_path):
    os.mkfifo(photographs / "pipe.png")
    for inputs in (photographs, [photographs / "pipe.png"]):
        with pytest.raises(ValueError, match=r"named pipe.*; expected"):
            run(network, inputs, tmp_path / "out")


def test_an_input_is_never_overwritten(network, photographs):
    before = (photographs / "rgb.png").read_bytes()
    with pytest.raises(ValueError, match=r"grey.png is an input and would be overwritten"):
        run(network, photographs, photographs)
    assert (photographs / "rgb.png").read_bytes() == before
    assert Brightness.calls == 0


@pytest.mark.parametrize("name", ["rgb.png", "grey.png", "rgb_overlay.jpg", "classes.json"])
def test_a_file_of_somebody_else_is_never_overwritten(network, photographs, tmp_path, name):
    out = tmp_path / "out"
    out.mkdir()
    if name.endswith(".json"):
        (out / name).write_text('["a", "b"]')
    else:
        Image.fromarray(EXPECTED.astype(np.uint8)).save(out / name)
    before = (out / name).read_bytes()
    with pytest.raises(
        ValueError, match=rf"{name}: predict did not write what is there, .*another"
    ):
        run(network, photographs, out)
    assert [path.name for path in out.iterdir()] == [name]
    assert (out / name).read_bytes() == before
    assert Brightness.calls == 0


def test_own_predictions_are_replaced_until_somebody_corrects_one(network, photographs, tmp_path):
    masks = run(network, photographs, tmp_path / "out")[0::2]
    run(network, photographs, tmp_path / "out", alpha=0.25)
    corrected = Image.open(masks[1])
    corrected.load()
    corrected.putpixel((0, 0), 2)
    corrected.save(masks[1])
    with pytest.raises(ValueError, match=r"rgb\.png: predict did not write .* changed since"):
        run(network, photographs, tmp_path / "out")
    # With the mark that an editor may keep, too.
    mark = PngInfo()
    mark.add_text("segdistill", Image.open(masks[0]).text["segdistill"])
    corrected.save(masks[1], pnginfo=mark)
    with pytest.raises(ValueError, match=r"rgb\.png: predict did not write .* changed since"):
        run(network, photographs, tmp_path / "out")
    masks[1].unlink()
    run(network, photographs, tmp_path / "out")


def test_a_folder_that_cannot_be_written_to_is_refused_first(network, photographs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write to .*file.*\. Name another folder"):
        run(network, photographs, tmp_path / "file")
    assert Brightness.calls == 0


def test_numbers_of_classes_must_agree(network, photographs, tmp_path):
    with pytest.raises(ValueError, match="2 colours for 3 classes"):
        predict(network, photographs, tmp_path, classes=CLASSES, palette=PALETTE[:2])
    with pytest.raises(ValueError, match="the network predicts 3 classes; expected 2"):
        predict(network, photographs, tmp_path, classes=CLASSES[:2], palette=PALETTE[:2])
    with pytest.raises(ValueError, match=r"alpha is 1.5; expected a fraction in \[0, 1\]"):
        run(network, photographs, tmp_path, alpha=1.5)


def test_the_network_is_restored_and_progress_is_reported(network, photographs, tmp_path):
    steps = []
    network.train()
    run(network, photographs, tmp_path / "out", progress=lambda *step: steps.append(step))
    assert network.training
    assert steps == [(1, 3), (2, 3), (3, 3)]
