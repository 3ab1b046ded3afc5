"""The chosen settings as a recipe for `segdistill compare`, with all trials in a comment."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from segdistill.config import Recipe, to_dict
from segdistill.run.console import render
from segdistill.run.recipe import joined
from segdistill.run.tuning.outcome import RULE, Tuned, table

FILE = "tuned.yaml"


def tuned_recipe(recipe: Recipe, rows: Sequence[Tuned], folder: Path, source: Path | None) -> str:
    """The text of a recipe whose variants have the chosen settings.

    Args:
        recipe: The recipe whose settings are chosen, with its `tuning`.
        rows: What was chosen.
        folder: Folder that the text will be written to.
        source: File of the recipe, which becomes the `base`. None: the text holds the whole recipe.
    """
    variants = {_name(row): _changes(recipe, row) for row in rows}
    if source is not None:
        values = {"base": _relative(source, folder), "variants": variants}
    else:
        whole = {**_set_keys(recipe, to_dict(recipe)), "out": None}
        values = joined(whole, {"variants": variants})
        del values["out"]
    body = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    comment = "".join(f"# {line}".rstrip() + "\n" for line in _comment(recipe, rows).splitlines())
    return comment + body


def _comment(recipe: Recipe, rows: Sequence[Tuned]) -> str:
    first = rows[0]
    seeds = ", ".join(map(str, first.best.miou_by_seed))
    data = to_dict(recipe)["tuning"]["data"]
    changes = yaml.safe_dump(data, default_flow_style=True, width=10**6)
    return (
        f"Written by segdistill tune: the best of {len(first.outcomes)} trials for each entry.\n"
        f"Seeds: {seeds}. Data: {changes.strip()}\n"
        f"Chosen: {RULE}.\n\n{render(table(rows))}\n"
    )


def _relative(source: Path, folder: Path) -> str:
    return Path(os.path.relpath(source.resolve(), folder.resolve())).as_posix()


def _name(row: Tuned) -> str:
    entry = row.best.trial.entry
    # A preset's colon may not stand in the name of a variant.
    return entry.name.replace(":", "-")


def _changes(recipe: Recipe, row: Tuned) -> dict[str, Any]:
    """What the chosen trial changes of a variant; for a method of the catalogue the whole variant."""
    trial = row.best.trial
    train = {"lr": trial.recipe.train.lr}
    if trial.axis == "weight_decay":
        train["weight_decay"] = trial.recipe.train.weight_decay
    terms = {name: {"weight": weight} for name, weight in trial.weights.items()}
    changes = {**({"terms": terms} if terms else {}), "train": train}
    if trial.entry.name in recipe.variants:
        return changes
    label = {} if _name(row) == row.label else {"label": row.label}
    return {"method": vars(trial.recipe.chosen_method()), **label, **changes}


def _set_keys(part: Any, plain: Mapping[str, Any]) -> dict[str, Any]:
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
        if is_dataclass(value):
            kept[key] = _set_keys(value, plain[key])
        elif isinstance(value, dict):
            kept[key] = {
                name: _set_keys(one, plain[key][name]) if is_dataclass(one) else plain[key][name]
                for name, one in value.items()
            }
    return kept
