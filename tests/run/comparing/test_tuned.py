"""A comparison says which of its rows were not tuned alike."""

from dataclasses import replace
from typing import Any

import pytest

from segdistill.config import Recipe, TunedConfig, TuningConfig
from segdistill.run.comparing import entries_of, tuned_settings, tuning_remarks
from tests.run import small

NAMES = ["supervised", "kd", "cwd:paper"]
TRIALS = {"supervised": 5, "kd": 5, "cwd-paper": 5}


def _recipe(trials: dict[str, int]) -> Recipe:
    recipe = small.recipe(train={"steps": 7, "lr": 0.1})
    return replace(recipe, tuned=TunedConfig(trials, **tuned_settings(recipe)))


def _remarks(recipe: Recipe, names: list[str] = NAMES) -> list[str]:
    return tuning_remarks(recipe, entries_of(recipe, names))


def test_nothing_is_said_of_rows_that_were_tuned_alike() -> None:
    assert _remarks(_recipe(TRIALS)) == []
    assert _remarks(small.recipe()) == []  # it does not come from tune
    assert _remarks(_recipe({**TRIALS, "idd": 2})) == []  # whose count does not matter here


@pytest.mark.parametrize(
    ("trials", "remark"),
    [
        ({"supervised": 5, "kd": 5}, "not tuned: cwd-paper; tuned: supervised, kd. Tune all rows"),
        ({"idd": 5}, "not tuned: supervised, kd, cwd-paper; tuned: no other row. "),
        ({**TRIALS, "kd": 1}, r"different numbers of trials (supervised 5, kd 1, cwd-paper 5)"),
    ],
)
def test_rows_that_were_not_tuned_alike_are_named(trials: dict[str, int], remark: str) -> None:
    (found,) = _remarks(_recipe(trials))
    assert remark in found


def test_seeds_that_settings_were_chosen_by_are_named() -> None:
    recipe = replace(_recipe(TRIALS), tuning=TuningConfig(seeds=[2, 1, 1000]))
    entries = entries_of(recipe, NAMES)
    assert tuning_remarks(recipe, entries, range(3, 8)) == []
    (found,) = tuning_remarks(recipe, entries, range(3))
    assert "seeds that settings were chosen by are compared, too: 1, 2. " in found
    assert tuning_remarks(replace(recipe, tuned=None), entries, range(3)) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train": {"steps": 9}}, "train.steps 7, now 9"),
        ({"train": {"momentum": 0.5}}, "train.momentum by default, now 0.5"),
        (
            {"student": {"options": {"width": 16}}},
            "student.options {'width': 8}, now {'width': 16}",
        ),
    ],
)
def test_settings_that_changed_since_are_named(changes: dict[str, Any], said: str) -> None:
    recipe = _recipe(TRIALS)
    parts = {part: replace(getattr(recipe, part), **new) for part, new in changes.items()}
    (found,) = _remarks(replace(recipe, **parts))
    assert said in found


def test_what_tuning_chooses_itself_or_changes_no_result_is_no_change() -> None:
    recipe = _recipe(TRIALS)
    other = replace(recipe.train, lr=0.3, weight_decay=0.1, seed=4, log_every=9, workers=2)
    assert _remarks(replace(recipe, train=other)) == []
