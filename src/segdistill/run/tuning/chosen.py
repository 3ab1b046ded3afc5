"""The chosen settings as a recipe for `segdistill compare`, with all trials in a comment."""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from segdistill.config import Recipe, to_dict
from segdistill.run.comparing import set_keys, tuned_settings
from segdistill.run.console import render
from segdistill.run.contents import read_json
from segdistill.run.recipe import joined
from segdistill.run.tuning.outcome import RULE, Tuned, table

_log = logging.getLogger(__name__)
FILE = "tuned.yaml"


def tuned_recipe(
    recipe: Recipe,
    rows: Sequence[Tuned],
    folder: Path,
    source: Path | None,
    kept: Mapping[str, Any] | None = None,
) -> str:
    """The text of a recipe whose variants have the chosen settings.

    Args:
        recipe: The recipe whose settings are chosen, with its `tuning`.
        rows: What was chosen.
        folder: Folder that the text will be written to.
        source: File of the recipe, which becomes the `base`. None: the text holds the whole recipe.
        kept: `variants` and `trials` of rows that were chosen before; see `earlier`.
    """
    kept = kept or {"variants": {}, "trials": {}}
    variants = {**kept["variants"], **{_name(row): _changes(recipe, row) for row in rows}}
    trials = {**kept["trials"], **{_name(row): len(row.outcomes) for row in rows}}
    written = {"variants": variants, "tuned": {"trials": trials, **tuned_settings(recipe)}}
    if source is not None:
        values = {"base": _relative(source, folder), **written}
    else:
        whole = {**set_keys(recipe, to_dict(recipe)), "out": None}
        values = joined(whole, written)
        del values["out"]
    body = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    text = _comment(recipe, rows)
    if kept["trials"]:
        text += f"\nKept from before: {', '.join(kept['trials'])}.\n"
    comment = "".join(f"# {line}".rstrip() + "\n" for line in text.splitlines())
    return comment + body


def earlier(
    recipe: Recipe, rows: Sequence[Tuned], folder: Path, on: Mapping[str, Any]
) -> dict[str, Any]:
    """`variants` and `trials` of the other rows that a tuned recipe in the folder holds.

    None of them if they were chosen with another student or training, or on other data, with another teacher or
    other seeds, which the log says.

    Args:
        recipe: The recipe whose settings are chosen.
        rows: What is chosen now.
        folder: Folder of the tuning.
        on: `data` and `teacher` that are tuned on now, as plain values.
    """
    try:
        values = yaml.safe_load((folder / FILE).read_text(encoding="utf-8"))
        tuned, variants = values["tuned"], values["variants"]
        trials = {
            name: count
            for name, count in tuned["trials"].items()
            if name not in map(_name, rows) and name in variants
        }
        before = {part: tuned[part] for part in ("student", "train")}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, LookupError, TypeError, AttributeError):
        return {"variants": {}, "trials": {}}
    settings = tuned_settings(recipe)
    unlike = [f"other settings of {part}" for part in before if before[part] != settings[part]]
    unlike += _tuned_elsewhere(folder, on, rows)
    if trials and unlike:
        _log.warning(
            "%s: the choice for %s is dropped, as it was made with %s. Repeat tune with all rows",
            folder / FILE,
            ", ".join(trials),
            " and ".join(unlike),
        )
        trials = {}
    return {"variants": {name: variants[name] for name in trials}, "trials": trials}


def _tuned_elsewhere(folder: Path, on: Mapping[str, Any], rows: Sequence[Tuned]) -> list[str]:
    """What the trials in the folder's tuning.json do not share with those of now, in words; [] without the file."""
    before = read_json(folder / "tuning.json") or {}
    unlike = [
        f"another tuning.{part}"
        for part in on
        if part in before and _plain(before[part]) != _plain(on[part])
    ]
    first: Mapping[str, Any] = next(iter((before.get("methods") or {}).values()), {"trials": []})
    seeds = {str(seed) for seed in rows[0].best.miou_by_seed}
    if any({*trial["miou_by_seed"]} != seeds for trial in first["trials"][:1]):
        unlike.append("other tuning.seeds")
    return unlike


def _plain(part: Any) -> Any:
    """Data or teacher as JSON has it, without what changes no figure."""
    values = json.loads(json.dumps(part))
    for given in (values, (values or {}).get("options")):
        for key in ("cache", "min_miou"):
            (given or {}).pop(key, None)
    return values


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
