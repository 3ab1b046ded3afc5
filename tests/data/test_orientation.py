"""Images and masks are read upright, each by its own orientation tag."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from segdistill.data.files import read_image, read_mask, read_with_geometry
from segdistill.data.folder import Folder
from segdistill.data.label_map import LabelMap
from segdistill.run.auditing.check import check
from segdistill.run.auditing.data_audit import refuse_unclear_orientation
from segdistill.run.training.train import train
from tests.run import small

TAG = 0x0112
MAP = LabelMap(None, 3)


def _exif(tag: object) -> Image.Exif:
    exif = Image.Exif()
    exif[TAG] = tag
    return exif


def _scene(height: int = 6, width: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """An asymmetric picture and its mask."""
    rows, columns = np.mgrid[:height, :width]
    ids = ((rows > 1).astype(np.uint8) + (columns > 6)).astype(np.uint8)
    picture = np.stack([rows * 20, columns * 20, ids * 90], -1).astype(np.uint8)
    return picture, ids


def _stored(pixels: np.ndarray, tag: int) -> Image.Image:
    """The picture that a viewer turns to `pixels` with this tag."""
    back = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
    image = Image.fromarray(pixels)
    image.getexif()[TAG] = back[tag]
    turned = ImageOps.exif_transpose(image)
    assert turned is not None
    return turned


def _pair(
    folder: Path, tag: int, mask_tag: int | None, mask_as: str, square: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Write `images/x.png` with a tag and `masks/x.png`; return both upright."""
    picture, ids = _scene(8, 8) if square else _scene()
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    _stored(picture, tag).save(folder / "images" / "x.png", exif=_exif(tag))
    if mask_tag is not None:
        _stored(ids, mask_tag).save(folder / "masks" / "x.png", exif=_exif(mask_tag))
    else:
        mask = _stored(ids, tag) if mask_as == "stored" else Image.fromarray(ids)
        mask.save(folder / "masks" / "x.png")
    return picture, ids


def _open(folder: Path, orientation: str | None = None) -> Folder:
    return Folder(folder, "all", classes=3, orientation=orientation)


def _as_layers(folder: Path, orientation: str | None = None) -> Folder:
    """The mask of `_pair` as a mask for each class but the first."""
    path = folder / "masks" / "x.png"
    with Image.open(path) as mask:
        ids, exif = np.array(mask), mask.getexif()
    path.unlink()
    for number, name in enumerate(("b", "c"), 1):
        layer = Image.fromarray(np.where(ids == number, 255, 0).astype(np.uint8))
        layer.save(folder / "masks" / f"x_{name}.png", exif=exif)
    options = {"labels": "layers", "annotations": "{name}_{class}", "unannotated": "a"}
    return Folder(folder, "all", classes=["a", "b", "c"], orientation=orientation, **options)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_an_image_of_any_format_is_read_as_a_viewer_shows_it(
    tmp_path: Path, tag: int, suffix: str
) -> None:
    picture, _ = _scene()
    lossless = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}
    path = tmp_path / f"x.{suffix}"
    _stored(picture, tag).save(path, exif=_exif(tag), **lossless.get(suffix, {}))
    image, geometry = read_with_geometry(path)
    assert image.shape == (3, 6, 10) and geometry.size == (10, 6) and geometry.tag == tag
    off = (image.permute(1, 2, 0).int() - torch.from_numpy(picture).int()).abs().max()
    assert off <= (24 if suffix == "jpg" else 0)


@pytest.mark.parametrize("mode", ["L", "LA", "CMYK"])
def test_images_with_other_channels_are_upright_too(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(_scene()[0][..., 1]).convert(mode)
    stored = grey.transpose(Image.Transpose.ROTATE_180)
    suffix = "tif" if mode == "CMYK" else "png"
    stored.save(tmp_path / f"x.{suffix}", exif=_exif(3))
    channels = len(grey.getbands())
    image = read_image(tmp_path / f"x.{suffix}", channels)
    expected = np.asarray(grey).reshape(6, 10, channels)
    assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("tag", [0, 9, 77])
def test_an_invalid_tag_is_ignored(tmp_path: Path, tag: int) -> None:
    picture, _ = _scene()
    Image.fromarray(picture).save(tmp_path / "x.png", exif=_exif(tag))
    assert np.array_equal(read_image(tmp_path / "x.png").permute(1, 2, 0).numpy(), picture)


@pytest.mark.parametrize("mask_tag", [1, 3, 6])
@pytest.mark.parametrize("tag", [1, 2, 3, 6])
def test_a_mask_with_a_tag_is_turned_by_its_own(tmp_path: Path, tag: int, mask_tag: int) -> None:
    picture, ids = _pair(tmp_path, tag, mask_tag, "upright")
    image, label = _open(tmp_path).read(0)
    assert np.array_equal(image.permute(1, 2, 0).numpy(), picture)
    assert np.array_equal(label.numpy(), ids)


@pytest.mark.parametrize("declared", ["upright", "stored"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_a_mask_without_a_tag_is_read_as_declared(tmp_path: Path, tag: int, declared: str) -> None:
    picture, ids = _pair(tmp_path, tag, None, declared)
    image, label = _open(tmp_path, declared).read(0)
    assert np.array_equal(image.permute(1, 2, 0).numpy(), picture)
    assert np.array_equal(label.numpy(), ids)


@pytest.mark.parametrize("mask_as", ["upright", "stored"])
@pytest.mark.parametrize("tag", [5, 6, 7, 8])
def test_sizes_settle_the_orientation_of_images_turned_by_90_degrees(
    tmp_path: Path, tag: int, mask_as: str
) -> None:
    _, ids = _pair(tmp_path, tag, None, mask_as)
    assert np.array_equal(_open(tmp_path).read(0)[1].numpy(), ids)
    refuse_unclear_orientation(_open(tmp_path))


@pytest.mark.parametrize(
    ("tag", "square"), [(2, False), (3, False), (4, False), (6, True), (5, True)]
)
def test_an_ambiguous_pair_is_refused_with_the_line_to_add(
    tmp_path: Path, tag: int, square: bool
) -> None:
    _pair(tmp_path, tag, None, "upright", square)
    for call in (
        lambda: _open(tmp_path).read(0),
        lambda: refuse_unclear_orientation(_open(tmp_path)),
    ):
        with pytest.raises(ValueError, match=r"x\.png: the image has an orientation tag") as error:
            call()
        assert "`orientation: upright` to data.options" in str(error.value)
    refuse_unclear_orientation(_open(tmp_path, "upright"), _open(tmp_path, "stored"))


@pytest.mark.parametrize("declared", ["upright", "stored"])
@pytest.mark.parametrize("tag", [1, 3, 4, 6, 8])
def test_masks_of_classes_are_read_as_declared(tmp_path: Path, tag: int, declared: str) -> None:
    _, ids = _pair(tmp_path, tag, None, declared)
    assert np.array_equal(_as_layers(tmp_path, declared).read(0)[1].numpy(), ids)


@pytest.mark.parametrize("mask_tag", [1, 6])
@pytest.mark.parametrize("declared", [None, "upright", "stored"])
def test_masks_of_classes_with_a_tag_are_turned_by_their_own(
    tmp_path: Path, mask_tag: int, declared: str | None
) -> None:
    _, ids = _pair(tmp_path, 3, mask_tag, "upright")
    dataset = _as_layers(tmp_path, declared)
    refuse_unclear_orientation(dataset)
    assert np.array_equal(dataset.read(0)[1].numpy(), ids)


@pytest.mark.parametrize("mask_as", ["upright", "stored"])
@pytest.mark.parametrize("tag", [5, 6, 7, 8])
def test_sizes_settle_the_orientation_of_masks_of_classes(
    tmp_path: Path, tag: int, mask_as: str
) -> None:
    _, ids = _pair(tmp_path, tag, None, mask_as)
    assert np.array_equal(_as_layers(tmp_path).read(0)[1].numpy(), ids)


@pytest.mark.parametrize(("tag", "square"), [(2, False), (3, False), (6, True)])
def test_ambiguous_masks_of_classes_are_refused(tmp_path: Path, tag: int, square: bool) -> None:
    _pair(tmp_path, tag, None, "upright", square)
    dataset = _as_layers(tmp_path)
    for call in (lambda: dataset.read(0), lambda: refuse_unclear_orientation(dataset)):
        with pytest.raises(ValueError, match=r"x_[bc]\.png.*: the image has an orientation tag"):
            call()


def test_an_unknown_orientation_is_refused(tmp_path: Path) -> None:
    _pair(tmp_path, 1, None, "upright")
    with pytest.raises(ValueError, match="did you mean 'upright'"):
        _open(tmp_path, "uprigt")


def test_palette_masks_keep_their_indices_when_turned(tmp_path: Path) -> None:
    _, ids = _scene()
    mask = Image.fromarray(ids)
    mask.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
    mask.transpose(Image.Transpose.ROTATE_180).save(tmp_path / "x.png", exif=_exif(3))
    assert np.array_equal(read_mask(tmp_path / "x.png", MAP).numpy(), ids)


def test_check_and_train_refuse_until_the_orientation_is_declared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _pair(tmp_path, 3, None, "upright")
    for number in range(6):
        for name in ("images", "masks"):
            source = tmp_path / name / "x.png"
            (tmp_path / name / f"{number}.png").write_bytes(source.read_bytes())
    options = {"classes": 3, "val_fraction": 0.4}
    data = {"name": "folder", "root": str(tmp_path), "options": options}
    recipe = small.recipe(data=data, out=str(tmp_path / "run"))
    with pytest.raises(ValueError, match="orientation upright or stored"):
        train(recipe, progress=False)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    with pytest.raises(ValueError, match="to fix before training"):
        check(recipe)
    printed = capsys.readouterr().out
    assert "orientation upright or stored" in printed
    assert "files (" in printed  # one line for all of them
    recipe.data.options["orientation"] = "upright"
    with pytest.raises(ValueError, match="to fix before training"):
        check(recipe)
    printed = capsys.readouterr().out
    assert "are also in train" in printed  # copies of one image
    assert "orientation" not in printed
