"""The grid that every entry is searched over, and the order of its trials."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from segdistill.config import TuningConfig

Axis = Literal["weights", "weight_decay"]
"""What a trial changes besides the learning rate."""


@dataclass(frozen=True)
class Grid:
    """Factors of the recipe's own values, in ascending order, 1 among them.

    Attributes:
        lr: Factors of the learning rate.
        weights: Factors of all distillation weights of an entry together.
        weight_decay: Factors of the weight decay, for entries without distillation weights; as many
            as of `weights`, 1 at the same place.
    """

    lr: Sequence[float]
    weights: Sequence[float]
    weight_decay: Sequence[float]

    @classmethod
    def of(cls, config: TuningConfig) -> "Grid":
        """The grid of a recipe.

        Raises:
            ValueError: Factors are not in ascending order or lack 1, or the entries with and without
                distillation weights would have different grids.
        """
        axes = {"lr": config.lr, "weights": config.weights, "weight_decay": config.weight_decay}
        for name, factors in axes.items():
            if 1 not in factors or sorted(set(factors)) != list(factors):
                raise ValueError(
                    f"tuning.{name} is {factors}; expected factors in ascending order, 1 among them"
                )
        shapes = [(len(axis), axis.index(1)) for axis in (config.weights, config.weight_decay)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"tuning.weight_decay is {config.weight_decay}; expected as many factors as tuning.weights "
                f"{config.weights}, 1 at the same place, so that every entry has the same grid"
            )
        return cls(config.lr, config.weights, config.weight_decay)

    def places(self, trials: int) -> list[tuple[int, int]]:
        """The first trials: places of their factors in `lr` and in the other axis.

        They go outwards from the recipe's own settings in squares, and within a square from the
        nearest to the corners, the lower factors first. So more trials hold the fewer ones.

        Args:
            trials: Number of trials.

        Raises:
            ValueError: There are fewer places than trials, or `trials` is not positive.
        """
        count = len(self.lr) * len(self.weights)
        if not 1 <= trials <= count:
            raise ValueError(
                f"trials is {trials}; expected 1 to {count}, the settings of the grid. Add factors to tuning.lr, "
                "tuning.weights and tuning.weight_decay for more"
            )
        row, column = list(self.lr).index(1), list(self.weights).index(1)

        def distance(place: tuple[int, int]) -> tuple[int, int, int, int]:
            down, across = abs(place[0] - row), abs(place[1] - column)
            return max(down, across), down + across, *place

        every = [(i, j) for i in range(len(self.lr)) for j in range(len(self.weights))]
        return sorted(every, key=distance)[:trials]

    def other(self, axis: Axis) -> Sequence[float]:
        """The factors of the axis besides the learning rate."""
        return self.weights if axis == "weights" else self.weight_decay


def at_edge(chosen: float, tried: Sequence[float]) -> Literal["", "lowest", "highest"]:
    """Whether a factor is the lowest or highest of several that were tried."""
    if len(set(tried)) < 2 or min(tried) < chosen < max(tried):
        return ""
    return "lowest" if chosen == min(tried) else "highest"
