"""What the weights of a run depend on besides its seed."""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from segdistill.config import Recipe, Role, to_dict
from segdistill.distillation.catalogue import method_terms
from segdistill.distillation.method import override

WITHOUT_EFFECT = frozenset(
    {"seed", "workers", "device", "hang_after", "log_every", "save_every", "val_every"}
)
"""Keys of `train` that are the seed's, the machine's or the record's, and no settings of a row."""


def is_distilled(recipe: Recipe) -> bool:
    """Whether a run learns from a teacher; a recipe may also name a teacher without using it."""
    method = recipe.chosen_method()
    changed = method.labels != "data" or set(recipe.terms) - set(method_terms("supervised"))
    return method.name != "supervised" or (recipe.teacher is not None and bool(changed))


def role_of(recipe: Recipe) -> Role:
    """The part of a recipe's run in a comparison: as declared, or as its teacher has it."""
    if recipe.role is not None:
        return recipe.role
    if not is_distilled(recipe):
        return "control"
    return "placebo" if recipe.random_teacher else "method"


def same_settings(one: Recipe, other: Recipe) -> bool:
    """Whether two recipes train alike, whatever their names, seeds and folders.

    The terms count as the method and its changes make them: `kd` equals `kd` with its own weight repeated.
    """
    return _settings(one) == _settings(other)


def _settings(recipe: Recipe) -> str:
    values = to_dict(recipe)
    kept: dict[str, Any] = {key: values[key] for key in ("data", "student", "evaluate")}
    kept["train"] = {k: v for k, v in values["train"].items() if k not in WITHOUT_EFFECT}
    kept["labels"] = [recipe.chosen_method().labels, recipe.chosen_method().confidence]
    kept["teacher"] = values["teacher"] if is_distilled(recipe) else None
    kept["observers"] = values["observers"]  # may stop the training
    kept["terms"] = _terms(recipe)
    return json.dumps(kept, sort_keys=True, default=str)


def _terms(recipe: Recipe) -> Any:
    method = recipe.chosen_method()
    changes = {name: vars(change) for name, change in recipe.terms.items()}
    try:
        specs = override(method_terms(method.name, method.preset), changes)
    except ValueError:  # a recipe of another version
        return [method.name, method.preset, changes]
    return {
        name: [
            *(spec.loss, spec.weight, spec.on, spec.options, spec.optional, spec.cells),
            spec.schedule,
        ]
        for name, spec in specs.items()
        if spec.weight
    }


def shown(value: Any) -> str:
    """A setting in a sentence; null is what most are by default."""
    return "by default" if value is None else f"{value!s:.60}"


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
