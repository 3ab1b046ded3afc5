"""The folds of a comparison: the recipe of each, with its own data and teacher."""

from dataclasses import replace
from pathlib import Path

from segdistill.config import Recipe, to_dict
from segdistill.run.opening import check_set_name
from segdistill.run.recipe import joined, parse_recipe, tell_dropped


def fold_recipes(recipe: Recipe, base: Path) -> dict[str, Recipe]:
    """The recipe of each fold by its name, in a folder of its own; without folds the recipe itself, as "".

    Args:
        recipe: The recipe; what a fold names is merged with it key by key.
        base: Folder of the comparison.

    Raises:
        ValueError: A fold's name is not a folder's name, or a change of it is wrong.
    """
    if not recipe.folds:
        return {"": replace(recipe, out=str(base))}
    return {name: _of_fold(recipe, name, base) for name in recipe.folds}


def _of_fold(recipe: Recipe, name: str, base: Path) -> Recipe:
    check_set_name(name, "folds")
    changes = {key: value for key, value in vars(recipe.folds[name]).items() if value}
    whole = {**to_dict(recipe), "folds": {}, "out": str(base / name)}
    if whole["teacher"] is None:
        whole.pop("teacher")
    tell_dropped(whole, changes, f"folds.{name}")
    try:
        return parse_recipe(joined(whole, changes))
    except ValueError as error:
        raise ValueError(f"folds.{name}: {str(error).removeprefix('recipe: ')}") from None
