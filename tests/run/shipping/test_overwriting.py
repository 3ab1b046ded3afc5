"""Folders of a run's data take no predictions."""

from pathlib import Path

import pytest

from segdistill.run.commands import predict_run
from segdistill.run.folder import RunFolder
from segdistill.run.training.train import train
from tests.run import small
from tests.run.plain import write_scenes


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with a further set in a folder of its own."""
    folder = tmp_path_factory.mktemp("run")
    root, further = write_scenes(folder / "scenes"), write_scenes(folder / "further")
    options = {"classes": ["grass", "road", "sky"], "mapping": {10: 0, 20: 1, 30: 2}}
    recipe = small.recipe(
        data={"name": "folder", "root": str(root), "options": options},
        evaluation={"away": {"root": str(further)}},
        train={"steps": 1, "crop": [24, 36]},
        out=str(folder / "run"),
    )
    return train(recipe, progress=False)


@pytest.mark.parametrize(
    "place", ["scenes/train/masks", "scenes/val/masks", "scenes/val/images", "further/val/masks"]
)
def test_a_folder_of_the_run_s_data_takes_no_predictions(
    place: str, run: RunFolder, tmp_path: Path
) -> None:
    out = run.path.parent / place
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (picture,) = list((run.path.parent / "scenes/val/images").iterdir())[:1]
    other = tmp_path / "new.png"
    other.write_bytes(picture.read_bytes())
    message = rf"{place} holds images or labels of the run's data; expected .* --out"
    with pytest.raises(ValueError, match=message):
        predict_run(str(run.path), [str(other)], str(out), "model", "cpu", None)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_folder_inside_the_data_s_own_takes_predictions(run: RunFolder, tmp_path: Path) -> None:
    images = run.path.parent / "scenes/val/images"
    out = run.path.parent / "scenes/predicted"
    predict_run(str(run.path), [str(images)], str(out), "model", "cpu", None)
    assert len(list(out.glob("*.png"))) == len(list(images.iterdir()))
