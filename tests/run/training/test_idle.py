from typing import Any

import pytest

from segdistill.config import Recipe
from segdistill.distillation.catalogue import build_method
from segdistill.distillation.distiller import Distiller
from segdistill.run.training.starting.idle import idle_settings
from tests.distillation.networks import Tiny
from tests.run import small

TEACHER = {"teacher": {"run": "runs/teacher"}}


def _lines(recipe: Recipe) -> list[str]:
    method = build_method(recipe.chosen_method().name, 3)
    return idle_settings(recipe, Distiller(Tiny(6), method, Tiny(9) if recipe.teacher else None))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (TEACHER, "nothing learns from the teacher: no term of method supervised reads it"),
        ({"train": {"lr": 0}}, "train.lr is 0: the student keeps its initial weights"),
        ({"train": {"warmup": 6}}, "train.warmup is 6 of 6 steps: the learning rate never reaches"),
        ({"train": {"val_every": 7}}, "train.val_every is 7 of 6 steps: the student is evaluated"),
        (
            {"train": {"optimizer": "adamw", "momentum": 0.95}},
            "train.momentum is 0.95, which adamw does not read",
        ),
        ({"evaluate": {"overlap": 0.5}}, "evaluate.overlap is 0.5, but there are no windows"),
    ],
)
def test_a_setting_without_effect_is_named(changes: dict[str, Any], line: str) -> None:
    (found,) = _lines(small.recipe(**changes))
    assert found.startswith(line)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {**TEACHER, "method": "kd"},
        {"train": {"warmup": 5, "val_every": 6, "momentum": 0.95}},
        {"train": {"optimizer": "adamw"}},
        {"evaluate": {"window": [32, 32], "overlap": 0.5}},
    ],
)
def test_settings_that_count_are_not_named(changes: dict[str, Any]) -> None:
    assert _lines(small.recipe(**changes)) == []
