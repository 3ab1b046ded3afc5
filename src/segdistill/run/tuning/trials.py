"""The trials of an entry: its recipe with other factors of learning rate and weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from segdistill.config import Recipe, TermConfig
from segdistill.distillation.catalogue import method_terms
from segdistill.distillation.method import build_terms, override
from segdistill.run.comparing import Entry
from segdistill.run.tuning.grid import Axis, Grid

_DIGITS = 6
TITLES: dict[Axis, str] = {"weights": "distillation weights", "weight_decay": "weight decay"}


@dataclass(frozen=True)
class Trial:
    """One setting of one entry.

    Attributes:
        entry: The entry.
        axis: What the second factor is of.
        lr: Factor of the learning rate.
        other: The second factor.
        recipe: The recipe of its runs, without seed and folder.
        weights: The distillation weights in it, by term.
    """

    entry: Entry
    axis: Axis
    lr: float
    other: float
    recipe: Recipe
    weights: Mapping[str, float]

    @property
    def name(self) -> str:
        """Start of the names of its run folders."""
        return f"{self.entry.folder}-lr{self.lr:g}-{self.axis}{self.other:g}"

    def run(self, seed: int, base: Path) -> Recipe:
        """The recipe of its run with a seed, in its folder inside `base`."""
        train = replace(self.recipe.train, seed=seed)
        return replace(self.recipe, train=train, out=str(base / f"{self.name}-s{seed}"))


def trials_of(
    entry: Entry, grid: Grid, places: Sequence[tuple[int, int]], classes: int
) -> list[Trial]:
    """The trials of an entry at some places of the grid.

    Raises:
        ValueError: A term cannot be built, or there is neither a distillation weight nor a weight decay.
    """
    try:
        weights = distillation_weights(entry.recipe, classes)
    except ValueError as error:
        raise ValueError(f"tune: {entry.label}: {error}") from None
    axis: Axis = "weights" if weights else "weight_decay"
    train, factors = entry.recipe.train, grid.other(axis)
    for key, value in (("lr", train.lr), (axis, weights or train.weight_decay)):
        if not value:
            raise ValueError(
                f"tune: {entry.label}: train.{key} is 0; expected a number above 0, as its factors are searched"
            )
    return [_trial(entry, axis, grid.lr[i], factors[j], weights) for i, j in places]


def distillation_weights(recipe: Recipe, classes: int) -> dict[str, float]:
    """The weights of the terms whose loss reads the teacher; none for a control.

    Args:
        recipe: The recipe of an entry.
        classes: Number of classes of its data.

    Raises:
        ValueError: A term cannot be built.
    """
    method = recipe.chosen_method()
    changes = {name: vars(change) for name, change in recipe.terms.items()}
    specs = override(method_terms(method.name, method.preset), changes)
    terms = build_terms(specs, classes)
    return {name: term.weight for name, term in terms.items() if "teacher" in term.inputs()}


def _trial(
    entry: Entry, axis: Axis, lr: float, other: float, weights: Mapping[str, float]
) -> Trial:
    recipe, train = entry.recipe, entry.recipe.train
    scaled = {name: _times(weight, other) for name, weight in weights.items()}
    terms = {
        name: replace(recipe.terms.get(name, TermConfig()), weight=weight)
        for name, weight in scaled.items()
    }
    decay = train.weight_decay if weights else _times(train.weight_decay, other)
    label = f"{entry.label}, lr × {lr:g}, {TITLES[axis]} × {other:g}"
    made = replace(
        recipe,
        terms={**recipe.terms, **terms},
        train=replace(train, lr=_times(train.lr, lr), weight_decay=decay),
        label=label,
        role=entry.role,
        tests=None,
    )
    return Trial(entry, axis, lr, other, made, scaled)


def _times(value: float, factor: float) -> float:
    return float(f"{value * factor:.{_DIGITS}g}")
