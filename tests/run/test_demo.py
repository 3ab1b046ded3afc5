"""The demo in small: the same runs, table and report with a few scenes and steps."""

from dataclasses import replace
from pathlib import Path

import pytest

from segdistill.config import Recipe
from segdistill.run import demo as module
from segdistill.run.recipe import load_recipe


def _small(path: Path) -> Recipe:
    recipe = load_recipe(path)
    data = replace(recipe.data, options={"size": [32, 48], "count": 8, "seed": 100})
    train = replace(recipe.train, steps=3, batch=2, crop=(32, 48), log_every=1, device="cpu")
    return replace(recipe, data=data, train=train)


def test_the_demo_trains_all_rows_and_writes_table_and_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "load_recipe", _small)
    monkeypatch.setattr("segdistill.run.auditing.teacher.CHANCE", 0.0)
    page = module.demo(tmp_path, seeds=1)
    runs = {folder.parent.name for folder in tmp_path.glob("*/evaluation.json")}
    assert runs == {"teacher", "supervised-s0", "kd-s0", "idd-s0"}
    text = page.read_text()
    assert "were designed to reward knowledge of classes and of places" in text
    assert (tmp_path / "comparison.json").is_file()


def test_the_demos_recipes_are_found() -> None:
    assert (module.recipes_folder() / "synthetic" / "idd.yaml").is_file()
