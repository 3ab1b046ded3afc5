"""Each recipe that ships is read, and what it names can be built; nothing is downloaded or trained."""

from pathlib import Path
from typing import Any

import pytest
import torch

from segdistill.config import Recipe
from segdistill.distillation.catalogue import build_method
from segdistill.models import build_model
from segdistill.run.recipe import load_recipe

FOLDER = Path(__file__).parents[1] / "recipes"
RECIPES = sorted(FOLDER.rglob("*.yaml"))
CLASSES = {"camvid": 11, "synthetic": 11}

each_recipe = pytest.mark.parametrize(
    "path", RECIPES, ids=lambda p: str(p.relative_to(FOLDER).with_suffix(""))
)


def _classes(recipe: Recipe) -> int:
    return CLASSES.get(recipe.data.name) or len(recipe.data.options["classes"])


def test_there_are_recipes() -> None:
    assert {path.parent.name for path in RECIPES} >= {"camvid", "synthetic"}


@each_recipe
def test_its_method_and_terms_can_be_built(path: Path) -> None:
    recipe = load_recipe(path)
    changes = {name: vars(term) for name, term in recipe.terms.items()}
    chosen, count = recipe.chosen_method(), _classes(recipe)
    method = build_method(chosen.name, count, chosen.preset, changes)
    assert set(changes) <= set(method.terms) | {n for n, c in changes.items() if c["weight"] == 0}
    assert method.needs_teacher == (recipe.teacher is not None)
    logits = torch.zeros(1, count, 4, 4, requires_grad=True)
    labels = torch.arange(64).reshape(1, 8, 8) % count
    # A list of class weights of another length would only be noticed in the first step.
    assert torch.isfinite(method.terms["cross_entropy"].loss(student=logits, labels=labels))


@each_recipe
def test_its_networks_can_be_built(path: Path) -> None:
    recipe = load_recipe(path)
    named: list[tuple[str, dict[str, Any]]] = [(recipe.student.model, recipe.student.options)]
    if recipe.teacher is not None and recipe.teacher.model is not None:
        named.append((recipe.teacher.model, recipe.teacher.options))
    for name, options in named:
        without = {key: value for key, value in options.items() if key != "weights"}
        assert build_model(name, _classes(recipe), **without).num_classes == _classes(recipe)
