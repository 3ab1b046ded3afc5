"""The recipes and commands of docs/unlabelled.md do what the page says, as printed."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segdistill.cli import main
from segdistill.run.folder import RunFolder
from segdistill.run.recipe import parse_recipe
from segdistill.run.training.train import train
from tests.run import small

PAGE = Path(__file__).parents[1] / "docs" / "unlabelled.md"
CLASSES = ["ground", "sky", "tree"]
SHORT = ["--train.steps", "2", "--train.crop", "[32,32]", "--train.batch", "4"]
"""What a test adds to a printed command: less of the same."""


def section(title: str) -> dict[str, str]:
    """The first block of each language under a heading."""
    text = re.split(r"^## ", PAGE.read_text("utf-8"), flags=re.MULTILINE)
    (found,) = [part for part in text if part.startswith(f"{title}\n")]
    blocks = re.findall(r"```(\w+)\n(.*?)```", found, re.DOTALL)
    return {language: block for language, block in reversed(blocks)}


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`data/mine` of twelve images, eight of the training images without a mask, and a teacher's run."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "data" / "mine"
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for number in range(count):
            ids = random.integers(0, 3, (4, 6)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
            noise = random.integers(0, 40, (*ids.shape, 3))
            pictures = {"images": (ids[..., None] * 80 + noise).astype(np.uint8), "masks": ids}
            for kind, pixels in pictures.items():
                path = root / kind / split / f"{number:02}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    data = {"name": "folder", "root": "data/mine", "options": {"classes": CLASSES}}
    recipe = small.values(
        data=data, train={"steps": 2, "crop": [32, 32]}, out="runs/mine/teacher-s0"
    )
    train(parse_recipe(recipe), progress=False)
    for number in range(8):
        (root / "masks" / "train" / f"{number:02}.png").unlink()
    return root


def written(title: str) -> list[str]:
    """Write the recipe under a heading to the file that its first line names, and return the command's arguments."""
    recipe = section("Labels for some images")["yaml"]
    Path(recipe.splitlines()[0].removeprefix("# ")).write_text(recipe)
    command = shlex.split(section(title)["bash"])
    assert command[0] == "segdistill"
    # A teacher of two steps is no better than chance.
    return [*command[1:], *SHORT, "--teacher.min_miou", "0"]


def test_labels_for_some_images(mine: Path, capsys: Any) -> None:
    main([*written("Labels for some images"), "--out", "run"])
    assert "4 of the 12 images of train have labels; 2 of the 4 of each batch" in (
        capsys.readouterr().err
    )
    info = RunFolder(Path("run")).model_info()
    assert (info["train_labelled"], info["train_images"]) == (4, 12)


def test_a_stronger_view_for_the_student(mine: Path) -> None:
    main(written("A stronger view for the student"))
    config = RunFolder(Path("runs/mine/strong-s0")).recipe().train
    assert (config.strong_photometric, config.cutmix, config.steps) == (0.8, 0.5, 2)
