"""The code in README and docs runs as printed, only with smaller sizes and folders."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from segdistill.run.folder import RunFolder
from segdistill.run.recipe import parse_recipe
from tests.run.plain import write_scenes

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SMALL = (
    (r"steps=[\d_]+", "steps=2"),
    (r"batch=\d+", "batch=2"),
    (r"crop=\(\d+, \d+\)", "crop=(32, 64)"),
)
COLOURS = torch.tensor([[0.2, 0.2, 0.2], [0.9, 0.1, 0.1], [0.6, 0.7, 0.9]])


def _blocks(language: str, *left_out: str) -> list[Any]:
    found = []
    for page in PAGES:
        if page.stem in left_out:
            continue
        blocks = re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
        found += [
            pytest.param(block, id=f"{page.stem}-{number}") for number, block in enumerate(blocks)
        ]
    return found


class ByColour(nn.Module):
    """Predicts the nearest of the three colours: a teacher that needs no training."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 3, 1, bias=False)
        self.head = nn.Conv2d(3, 3, 1)
        with torch.no_grad():
            self.body.weight.copy_(torch.eye(3)[:, :, None, None])
            self.head.weight.copy_(20 * COLOURS[:, :, None, None])
            self.head.bias.copy_(-10 * COLOURS.square().sum(1))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(images))
        return logits


class Scenes:
    """Three colours in a seeded pattern of blocks."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        blocks = torch.randint(3, (4, 6), generator=torch.Generator().manual_seed(index))
        label = blocks.repeat_interleave(8, 0).repeat_interleave(8, 1)
        return COLOURS[label].permute(2, 0, 1), label


# The quickstart's needs the runs that its commands make: tests/test_walks.py.
@pytest.mark.parametrize("block", _blocks("python", "quickstart"))
def test_a_python_block_runs_as_printed(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    for pattern, small in SMALL:
        block = re.sub(pattern, small, block)
    write_scenes(tmp_path / "data" / "mine")
    monkeypatch.chdir(tmp_path)
    names = {
        "teacher": ByColour(),
        "student": nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1)),
        "train_set": Scenes(),
        "val_set": Scenes(),
    }
    # The stand-ins are hardly trained, and some misread on purpose.
    accepted: Any = lambda *_, **__: ("", "")  # noqa: E731
    monkeypatch.setattr("segdistill.run.training.teacher_audit.judged", accepted)
    exec(compile(block, "block", "exec"), names)
    if "distill(" in block:
        run = names["run"]
        assert isinstance(run, RunFolder)
        assert run.finished


@pytest.mark.parametrize("block", _blocks("yaml"))
def test_a_recipe_in_the_docs_parses(block: str) -> None:
    values = yaml.safe_load(block)
    values.pop("base", None)  # the file beside it is not here
    recipe = parse_recipe(values, name="docs")
    assert recipe.chosen_method().name
    assert set(values) <= set(vars(recipe))


def test_every_link_to_a_file_leads_somewhere() -> None:
    broken = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf-8"))
        if not os.path.exists(page.parent / target)
    ]
    assert not broken
