"""Options of the command line that a variant or a fold would silently replace."""

from collections.abc import Mapping, Sequence
from typing import Any

from segdistill.config import Recipe, to_dict
from segdistill.run.recipe import split_options


def refuse_without_effect(
    recipe: Recipe, words: Sequence[str], names: Sequence[str] | None
) -> None:
    """Refuse options that some of what is compared replaces by settings of its own.

    Args:
        recipe: The recipe, with the options in it.
        words: The options, such as `["--train.lr", "0.1"]`.
        names: Names of the variants and methods that are compared; None: all of the recipe.

    Raises:
        ValueError: A variant or a fold sets the key of an option, or the option is the seed.
    """
    plain = to_dict(recipe)
    compared = None if names is None else {name.strip() for name in names}
    parts = {
        f"{kind}.{name}": values
        for kind in ("variants", "folds")
        for name, values in plain[kind].items()
        if kind == "folds" or compared is None or name in compared
    }
    for key, text in split_options(words).items():
        if key == "train.seed":
            raise ValueError(
                f"--train.seed is {text}; expected none, as rows are paired by the seeds of the comparison. "
                "Use --first_seed, or tuning.seeds"
            )
        holders = [holder for holder, values in parts.items() if _sets(values, key.split("."))]
        if holders:
            raise ValueError(
                f"--{key} has no effect on {', '.join(holders)}, which set it themselves; expected one value. "
                f"Use --{holders[0]}.{key}, or change the recipe"
            )


def _sets(values: Any, path: Sequence[str]) -> bool:
    """Whether something stands at a path, or a single value above it."""
    for key in path:
        if not isinstance(values, Mapping):
            return True
        values = values.get(key)
        if values is None or values == {}:
            return False
    return True
