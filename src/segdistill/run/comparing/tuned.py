"""What the settings of a tuned recipe were chosen on, and whether a comparison stands on it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from segdistill.config import Recipe, to_dict
from segdistill.run.comparing.entries import Entry
from segdistill.run.comparing.settings import WITHOUT_EFFECT, set_keys, shown

_CHOSEN = {"lr", "weight_decay"}
"""Keys of `train` that tuning sets itself."""


def tuned_settings(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """The student's and the training's settings that differ from their defaults.

    Left out is what tuning chooses, and what no result depends on.
    """
    plain = to_dict(recipe)
    train = set_keys(recipe.train, plain["train"])
    return {
        "student": set_keys(recipe.student, plain["student"]),
        "train": {
            key: value for key, value in train.items() if key not in _CHOSEN | WITHOUT_EFFECT
        },
    }


def tuning_remarks(
    recipe: Recipe, entries: Sequence[Entry], seeds: Collection[int] = ()
) -> list[str]:
    """Why a comparison with a tuned recipe is not one of rows that were tuned alike, one sentence per reason.

    Args:
        recipe: The comparison's.
        entries: Its rows.
        seeds: Its seeds.
    """
    tuned = recipe.tuned
    if tuned is None:
        return []
    found = []
    names = [entry.name.replace(":", "-") for entry in entries]
    trials = {name: tuned.trials[name] for name in names if name in tuned.trials}
    if without := [name for name in names if name not in trials]:
        found.append(
            f"not tuned: {', '.join(without)}; tuned: {', '.join(trials) or 'no other row'}. Tune all rows, or compare "
            f"only those with --methods {','.join(tuned.trials)}"
        )
    if len(set(trials.values())) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in trials.items())
        found.append(
            f"rows had different numbers of trials ({counts}), and more trials find better settings. Repeat tune with "
            "all rows"
        )
    used = recipe.tuning.seeds if recipe.tuning is not None else ()
    if both := sorted({*used} & {*seeds}):
        found.append(
            f"seeds that settings were chosen by are compared, too: {', '.join(map(str, both))}. What suits them may "
            "not suit others, so choose others by --first_seed"
        )
    before = {"student": tuned.student, "train": tuned.train}
    if changed := _changes(before, tuned_settings(recipe)):
        found.append(
            f"tuned with other settings ({'; '.join(changed)}), so what was chosen may not suit. Repeat tune, or keep "
            "to them"
        )
    return found


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [
        f"{part}.{key} {shown(before[part].get(key))}, now {shown(now[part].get(key))}"
        for part in now
        for key in sorted({*before[part], *now[part]})
        if before[part].get(key) != now[part].get(key)
    ]
