"""Every shipped recipe can be read and built, and one per data set of the paper trains."""

import math
from ast import literal_eval
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from segdistill.config import Recipe, TrainConfig
from segdistill.distillation.catalogue import build_method
from segdistill.models import build_model
from segdistill.run.recipe import load_recipe
from segdistill.run.training.train import train
from tests.data import trees

FOLDER = Path(__file__).parents[1] / "recipes"
RECIPES = sorted(FOLDER.rglob("*.yaml"))
CLASSES = {"camvid": 11, "synthetic": 11, "cityscapes": 19, "voc": 21, "ade20k": 150}

# Tables 1 and 3, Figure 5, Table 4: the students of each data set; five methods each.
STUDENTS = {
    "cityscapes": ["espnet", "pspnet_r18_half", "pspnet_r18"],
    "voc": ["pspnet_r18", "pspnet_mobilenet_v2"],
    "ade20k": ["pspnet_r18", "pspnet_mobilenet_v2"],
}
METHODS = ["supervised", "skd", "ifvd", "cwd", "idd"]
PAPER = [path for path in RECIPES if path.parent.name in STUDENTS]
QUICK = {"cityscapes/pspnet_r18_half_idd", "ade20k/pspnet_r18_skd"}


def _name(path: Path) -> str:
    return str(path.relative_to(FOLDER).with_suffix(""))


@cache
def _recipe(path: Path) -> Recipe:
    return load_recipe(path)


each_recipe = pytest.mark.parametrize("path", RECIPES, ids=_name)


def _classes(recipe: Recipe) -> int:
    return CLASSES.get(recipe.data.name) or len(recipe.data.options["classes"])


def test_there_are_recipes() -> None:
    assert {path.parent.name for path in RECIPES} >= {"camvid", "synthetic", *STUDENTS}


@each_recipe
def test_its_method_and_terms_can_be_built(path: Path) -> None:
    recipe = _recipe(path)
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
def test_its_variants_can_be_built(path: Path) -> None:
    recipe = load_recipe(path)
    for name, variant in recipe.variants.items():
        changes = {term: vars(change) for term, change in variant.terms.items()}
        method = build_method(str(variant.method), _classes(recipe), terms=changes)
        dropped = {term for term, change in changes.items() if change["weight"] == 0}
        assert set(changes) & set(method.terms) == set(changes) - dropped, name
        assert not method.needs_teacher or recipe.teacher is not None, name


@each_recipe
def test_its_networks_can_be_built(path: Path) -> None:
    recipe = _recipe(path)
    named: list[tuple[str, dict[str, Any]]] = [(recipe.student.model, recipe.student.options)]
    if recipe.teacher is not None and recipe.teacher.model is not None:
        named.append((recipe.teacher.model, recipe.teacher.options))
    for name, options in named:
        without = {key: value for key, value in options.items() if key != "weights"}
        assert _built_classes(name, _classes(recipe), repr(without)) == _classes(recipe)


@cache
def _built_classes(name: str, classes: int, options: str) -> int:
    with torch.device("meta"):
        model = build_model(name, classes, **literal_eval(options))
    return int(model.num_classes)


@pytest.mark.parametrize("folder", STUDENTS)
def test_each_row_of_the_papers_tables_has_a_recipe(folder: str) -> None:
    rows = set()
    for path in (FOLDER / folder).glob("*.yaml"):
        recipe = _recipe(path)
        off = tuple(sorted(recipe.terms))
        assert all(vars(term)["weight"] == 0 for term in recipe.terms.values())
        rows.add((recipe.student.model, recipe.chosen_method().name, off))
    expected = {(student, method, ()) for student, method in product(STUDENTS[folder], METHODS)}
    expected.add(("pspnet_r101", "supervised", ()))
    if folder == "cityscapes":  # the other rows of Table 1
        left_out = [("inter_class", "position"), ("inter_class",), ("position",)]
        expected |= {("pspnet_r18", "idd", terms) for terms in left_out}
    assert rows == expected


@pytest.mark.parametrize("path", PAPER, ids=_name)
def test_recipes_of_the_papers_rows_follow_the_paper(path: Path) -> None:
    recipe, folder = _recipe(path), path.parent.name
    assert recipe.data.name == folder
    scale = {"cityscapes": (0.7, 2.1), "voc": (0.5, 1.6), "ade20k": (0.5, 2.0)}[folder]
    published = TrainConfig(
        steps=40_000,
        batch=8,
        crop=(512, 512),
        scale=scale,
        flip=0.5,
        photometric=0.0,
        optimizer="sgd",
        lr=0.01,
        momentum=0.9,
        weight_decay=5e-4,
        power=0.9,
        # Not part of the paper's setting.
        save_every=recipe.train.save_every,
        log_every=recipe.train.log_every,
        workers=recipe.train.workers,
    )
    assert recipe.train == published
    shown = recipe.evaluate
    assert (shown.window, shown.flip, shown.scales, shown.absent) == (None, False, (1.0,), "zero")
    if recipe.teacher is not None:
        assert recipe.teacher.run == f"runs/{folder}/teacher-s0"
        assert recipe.chosen_method().preset == "paper"


def _teacher(folder: Path, classes: int) -> list[str]:
    """Overrides that replace ResNet-101 with a small, untrained teacher."""
    torch.manual_seed(0)
    weights = folder / "teacher.safetensors"
    save_file(build_model("pspnet_r18_half", classes).state_dict(), weights)
    values = {"run": "null", "model": "pspnet_r18_half", "weights": weights, "min_miou": 0}
    return [f"--teacher.{key}={value}" for key, value in values.items()]


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=_name(path), marks=[] if _name(path) in QUICK else pytest.mark.slow)
        for path in PAPER
        if path.stem != "base"
    ],
)
def test_a_row_of_the_paper_trains_on_a_small_tree(path: Path, tmp_path: Path) -> None:
    recipe, folder = _recipe(path), path.parent.name
    root = getattr(trees, folder)(tmp_path / "data", count=2, size=(72, 80))
    options = [f"--data.root={root}", f"--out={tmp_path / 'run'}"]
    changes = {"steps": 2, "batch": 2, "crop": "[65, 65]", "workers": 0, "log_every": 1}
    options += [f"--train.{key}={value}" for key, value in changes.items()]
    options.append("--train.device=cpu")
    if "weights" in recipe.student.options:
        options.append("--student.options.weights=null")
    if recipe.teacher is not None:
        options += _teacher(tmp_path, CLASSES[folder])
    run = train(load_recipe(path, options), progress=False)
    figures = run.evaluation()
    assert figures is not None
    assert (figures["images"], figures["classes_counted"]) == (2, CLASSES[folder])
    steps = [row for row in run.metrics() if row["kind"] == "train"]
    assert [row["step"] for row in steps] == [1, 2]
    off = {name for name, term in recipe.terms.items() if term.weight == 0}
    for row in steps:
        values = {name: term["value"] for name, term in row["terms"].items()}
        assert "cross_entropy" in values and not off & set(values)
        assert all(math.isfinite(value) for value in values.values()), values
