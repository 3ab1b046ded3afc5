"""What the weights of a run depend on besides its seed."""

import json
from typing import Any

from segdistill.config import Recipe, Role, to_dict
from segdistill.distillation.catalogue import method_terms
from segdistill.distillation.method import override

_OF_THE_MACHINE = {"seed", "workers", "device", "hang_after"}
_OF_THE_RECORD = {"log_every", "save_every", "val_every"}


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
    left_out = _OF_THE_MACHINE | _OF_THE_RECORD
    kept["train"] = {k: v for k, v in values["train"].items() if k not in left_out}
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
