"""Small trees of files in the layouts that the data sets read."""

from pathlib import Path

import pytest

from tests.data.files import DRIVES, ids, save_image, save_mask


@pytest.fixture
def camvid_tree(tmp_path: Path) -> Path:
    """`train/images`, `train/labels`, `train.txt`; the list reverses the order of the names."""
    root = tmp_path / "camvid"
    for split in ("train", "val"):
        names = [drive.format(i) for drive in DRIVES for i in range(3)]
        for value, name in enumerate(names):
            save_image(root / split / "images" / f"{name}.png", value=value)
            save_mask(root / split / "labels" / f"{name}.png", ids(12))
        (root / f"{split}.txt").write_text("\n".join(reversed(names)) + "\n")
    return root


@pytest.fixture
def segnet_tree(tmp_path: Path) -> Path:
    """`CamVid/train`, `CamVid/trainannot`, and a list with absolute paths of another machine."""
    root = tmp_path / "segnet"
    for split in ("train", "val", "test"):
        names = [drive.format(i) for drive in DRIVES for i in range(3)]
        lines = []
        for name in names:
            save_image(root / "CamVid" / split / f"{name}.png")
            save_mask(root / "CamVid" / f"{split}annot" / f"{name}.png", ids(12))
            lines.append(
                f"/SegNet/CamVid/{split}/{name}.png /SegNet/CamVid/{split}annot/{name}.png"
            )
        (root / "CamVid" / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def folder_tree(tmp_path: Path) -> Path:
    """Forty pictures in `images`, forty masks of ids 0..2 in `masks`."""
    root = tmp_path / "folder"
    for i in range(40):
        save_image(root / "images" / f"{i:03d}.png", value=i)
        save_mask(root / "masks" / f"{i:03d}.png", ids(3))
    return root
