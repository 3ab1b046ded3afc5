"""Images of five channels from the folder to the shipped file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segdistill.data.channels import visible
from segdistill.run.folder import RunFolder
from segdistill.run.recipe import parse_recipe
from segdistill.run.reporting.report import report
from segdistill.run.shipping.export import export
from segdistill.run.shipping.predict import load_predictor, predict
from segdistill.run.training.train import train
from tests.run import small


@pytest.fixture(scope="module")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images of five channels, of which only the last distinguishes the two classes."""
    root = tmp_path_factory.mktemp("fields")
    chance = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for i in range(count):
            mask = np.kron(chance.integers(0, 2, (4, 6), np.uint8), np.ones((8, 8), np.uint8))
            image = chance.integers(0, 65535, (32, 48, 5), np.uint16)
            image[..., 4] = np.uint16(60000) * mask
            np.save(root / "images" / split / f"{i}.npy", image)
            Image.fromarray(mask).save(root / "masks" / split / f"{i}.png")
    return root


def _values(
    fields: Path, channels: int = 5, reads: int = 5, **changes: object
) -> dict[str, object]:
    options = {"classes": ["soil", "crop"], "channels": channels, "mapping": {0: 0, 1: 1}}
    student = {"model": "compact", "options": {"width": 6, "depth": 1, "in_channels": reads}}
    data = {"name": "folder", "root": str(fields), "options": options}
    return small.values(data=data, student=student, method="supervised", **changes)


def test_data_and_networks_of_different_channels_are_refused(fields: Path, tmp_path: Path) -> None:
    out = {"out": str(tmp_path / "run")}
    wrong = parse_recipe(_values(fields, reads=3, **out))
    with pytest.raises(
        ValueError, match=r"images have 5 channels and the student reads 3\. Change"
    ):
        train(wrong, progress=False)
    rgb = {**_values(fields, **out), "data": small.values()["data"]}
    with pytest.raises(
        ValueError, match=r"images have 3 channels and the student reads 5\. Change"
    ):
        train(parse_recipe(rgb), progress=False)


@pytest.fixture(scope="module")
def run(fields: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A student distilled from a teacher with the same number of channels."""
    out = tmp_path_factory.mktemp("run")
    first = _values(fields, out=str(out / "teacher"))
    teacher = train(parse_recipe(first), progress=False)
    second = _values(fields, train={"photometric": 0.2, "steps": 80}, out=str(out / "student"))
    made = {**second, "method": "kd", "teacher": {"run": str(teacher.path), "min_miou": 0}}
    return train(parse_recipe(made), progress=False)


def test_it_learns_from_the_last_channel(run: RunFolder) -> None:
    figures = run.evaluation()
    assert figures is not None and figures["miou"] > 0.6


def test_files_of_these_channels_are_predicted_from_run_and_export(
    run: RunFolder, fields: Path, tmp_path: Path
) -> None:
    folder = export(run, tmp_path / "export")
    assert not (folder / "infer.py").exists()
    assert "in 0..1, `b 5 h w`" in (folder / "MODEL_CARD.md").read_text()
    images = fields / "images" / "val"
    for name, source in (("run", run.path), ("export", folder)):
        loaded = load_predictor(source)
        network, look = loaded.network, {"classes": loaded.classes, "palette": loaded.palette}
        predict(network, images, tmp_path / name, **look)  # type: ignore[arg-type]
        assert network.in_channels == 5  # type: ignore[comparison-overlap]
    masks = [np.asarray(Image.open(tmp_path / name / "0.png")) for name in ("run", "export")]
    assert masks[0].shape == (32, 48) and np.array_equal(*masks)
    stored = np.load(images / "0.npy")
    colours = np.array([[128, 0, 0], [0, 128, 0]])[masks[0]]
    shown = np.asarray(Image.open(tmp_path / "run" / "0_overlay.jpg")).astype(float)
    blend = (stored[..., :3] / 65535 * 255 + colours) / 2
    assert abs(shown.mean((0, 1)) - blend.mean((0, 1))).max() < 4  # JPEG
    with pytest.raises(ValueError, match=r"\(mode RGB\) is 8x8x3; expected height x width x 5"):
        Image.new("RGB", (8, 8)).save(tmp_path / "rgb.png")
        predict(network, tmp_path / "rgb.png", tmp_path / "none", **look)  # type: ignore[arg-type]


def test_pictures_show_the_first_three_channels(run: RunFolder, tmp_path: Path) -> None:
    image = torch.rand(5, 4, 6)
    assert torch.equal(visible(image), image[:3])
    assert torch.equal(visible(image[:2]), image[:1].expand(3, 4, 6))
    page = report([run.path], tmp_path / "report.html", panels=1, latency=False).read_text()
    assert "1 validation images, evenly spread" in page
