"""What the settings of a tuned recipe were chosen on, and whether a comparison stands on it."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from segdistill.config import Recipe, to_dict
from segdistill.run.comparing.entries import Entry

_CHOSEN = ("lr", "weight_decay", "seed")
"""Keys of `train` that tuning sets itself."""


def tuned_settings(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """The student's and the training's settings that differ from their defaults, but for what tuning chooses."""
    plain = to_dict(recipe)
    train = set_keys(recipe.train, plain["train"])
    return {
        "student": set_keys(recipe.student, plain["student"]),
        "train": {key: value for key, value in train.items() if key not in _CHOSEN},
    }


def tuning_remarks(recipe: Recipe, entries: Sequence[Entry]) -> list[str]:
    """Why a comparison with a tuned recipe is not one of rows that were tuned alike, one sentence per reason."""
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
    before = {"student": tuned.student, "train": tuned.train}
    if changed := _changes(before, tuned_settings(recipe)):
        found.append(
            f"tuned with other settings ({'; '.join(changed)}), so what was chosen may not suit. Repeat tune, or keep "
            "to them"
        )
    return found


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [
        f"{part}.{key} {_shown(before[part].get(key))}, now {_shown(now[part].get(key))}"
        for part in now
        for key in sorted({*before[part], *now[part]})
        if before[part].get(key) != now[part].get(key)
    ]


def _shown(value: Any) -> str:
    return "by default" if value is None else str(value)


def set_keys(part: Any, plain: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a part of a recipe that differ from their defaults, as plain values.

    Args:
        part: The recipe, or a part of it.
        plain: The same as plain values.
    """
    default, kept = type(part)(), {}
    for entry in fields(part):
        key, value = entry.name, getattr(part, entry.name)
        if value == getattr(default, key):
            continue
        kept[key] = plain[key]
        if is_dataclass(value) and not isinstance(value, type):
            kept[key] = set_keys(value, plain[key])
        elif isinstance(value, dict):
            kept[key] = {
                name: set_keys(one, plain[key][name]) if is_dataclass(one) else plain[key][name]
                for name, one in value.items()
            }
    return kept
