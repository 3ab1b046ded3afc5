"""Parity from image files: the shipped script is run on them as a user runs it."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

import segdistill.run.shipping.export as export_module
from segdistill.data.folder import Folder
from segdistill.run.folder import RunFolder
from segdistill.run.shipping.bundle import write_files
from segdistill.run.shipping.export import export
from segdistill.run.training.train import train
from tests.run import small
from tests.run.plain import COLOURS, write_scenes

DATA: dict[str, Any] = {"classes": ["a", "b", "c"], "mapping": {10: 0, 20: 1, 30: 2}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A network that knows its three colours from the start; its run is one of before there were digests."""
    folder = tmp_path_factory.mktemp("files")
    recipe = small.recipe(
        data={"name": "folder", "root": str(write_scenes(folder / "data")), "options": DATA},
        student={"model": "tests.run.plain.ByColour"},
        train={"steps": 1, "crop": [16, 16], "lr": 1e-9},
        out=str(folder / "run"),
    )
    made = train(recipe, progress=False)
    (made.path / "identity.json").unlink()
    return made


@pytest.fixture(scope="module")
def bundle(run: RunFolder) -> Path:
    return export(run)


@pytest.fixture
def exported_before(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = (bundle / "model.onnx").read_bytes()
    monkeypatch.setattr(export_module, "onnx_bytes", lambda *_: content)


class Changed(Dataset[Any]):
    """A data set around that of the run; `change` is what it does to each image. It may drop the names."""

    classes = DATA["classes"]

    def __init__(
        self, run: RunFolder, change: Callable[[Tensor], Tensor], named: bool = True
    ) -> None:
        self.dataset = Folder(run.recipe().data.root or "", "val", **DATA)
        self.change, self.named = change, named

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample: Any = self.dataset[index]
        image, label = self.change(sample["image"]), sample["label"]
        return {"image": image, "label": label, "name": sample["name"] if self.named else "?"}


def _files(folder: Path) -> dict[str, Any]:
    files: dict[str, Any] = json.loads((folder / "parity.json").read_text())["files"]
    return files


def test_the_files_of_the_data_set_are_segmented(bundle: Path) -> None:
    assert _files(bundle) == {
        "images": 4,
        "own_files": 4,
        "pixel_difference": 0.0,
        "label_agreement": 1.0,
        "script_agreement": 1.0,
        "miou": {"pytorch": 1.0, "infer.py": 1.0},
        "passed": True,
    }
    card = (bundle / "MODEL_CARD.md").read_text()
    assert "From 4 image files `infer.py` predicts the classes of evaluation on 100.000 %" in card


@pytest.mark.parametrize(
    ("change", "named", "gap"),
    [
        (lambda x: x / 4 - 0.1, True, 0.5),
        (lambda x: x.flip(0), True, 0.3),  # another order of colours, which its range does not tell
        (lambda x: 2 * x + 0.5, False, 0.3),  # written as files, which hold 0..1
    ],
)
def test_pixels_that_files_do_not_hold_are_refused(
    change: Callable[[Tensor], Tensor], named: bool, gap: float, run: RunFolder,
    exported_before: None, tmp_path: Path,
) -> None:  # fmt: skip
    val_set = Changed(run, change, named)
    with pytest.raises(
        ValueError, match=r"infer.py agrees with evaluation on .* mIoU.* by up to .*Retrain on RGB"
    ) as caught:
        export(run, tmp_path, val_set=val_set)
    assert "\n" not in str(caught.value)
    files = _files(tmp_path)
    assert (files["passed"], files["own_files"]) == (False, 4 * named)
    assert files["script_agreement"] == 1
    assert files["pixel_difference"] > gap
    assert (tmp_path / "model.onnx").is_file()


def test_agreement_lost_by_rounding_is_a_warning(
    run: RunFolder, exported_before: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    middle = COLOURS[[1, 2]].mean(0)[:, None, None]

    def near_the_border(image: Tensor) -> Tensor:
        return middle + 0.0015 * torch.linspace(-1, 0.8, image.shape[-1]).expand_as(image)

    with caplog.at_level(logging.WARNING):
        export(run, tmp_path, val_set=Changed(run, near_the_border, named=False))
    files = _files(tmp_path)
    assert files["passed"] and files["own_files"] == 0 and files["label_agreement"] < 0.9
    assert "rounded to 8 bits in files. Evaluate on 8-bit images" in caplog.text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "/ 255",
            "/ 1020",
            r"infer.py agrees with evaluation on .*Do not ship it; see parity.json",
        ),
        ("labels = json", "labels = jason", r"infer.py fails on .*'jason' is not defined"),
    ],
)
def test_a_script_that_does_something_else_is_refused(
    old: str, new: str, message: str, run: RunFolder, exported_before: None, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def broken(run: RunFolder, target: Path, info: Any) -> None:
        write_files(run, target, info)
        script = target / "infer.py"
        text = script.read_text()
        assert old in text
        script.write_text(text.replace(old, new))

    monkeypatch.setattr(export_module, "write_files", broken)
    with pytest.raises(ValueError, match=message):
        export(run, tmp_path)
