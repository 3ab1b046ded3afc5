"""What the trials of an entry came to, which of them is chosen, and both as a table and as JSON."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from segdistill.run.tuning.grid import at_edge
from segdistill.run.tuning.trials import TITLES, Trial

RULE = (
    "highest mIoU of the last weights, mean over the seeds; of equal ones the earliest, which is nearest to "
    "the recipe's own settings; a diverged trial is never chosen"
)


@dataclass(frozen=True)
class Outcome:
    """A trial and its mIoU.

    Attributes:
        trial: The trial.
        miou_by_seed: mIoU of the last weights in points, by seed; None where the training diverged.
    """

    trial: Trial
    miou_by_seed: Mapping[int, float | None]

    @property
    def miou(self) -> float | None:
        """Mean over the seeds; None if a training diverged."""
        values = [value for value in self.miou_by_seed.values() if value is not None]
        return statistics.mean(values) if len(values) == len(self.miou_by_seed) else None


@dataclass(frozen=True)
class Tuned:
    """An entry, its trials in their order, and the one that is chosen.

    Attributes:
        label: Its name in tables.
        outcomes: Its trials; the first has the recipe's own settings.
        chosen: Place of the best of them; see `RULE`.
    """

    label: str
    outcomes: Sequence[Outcome]
    chosen: int

    @property
    def best(self) -> Outcome:
        """The chosen trial."""
        return self.outcomes[self.chosen]

    def edges(self) -> list[str]:
        """Where the chosen trial is at the edge of what was tried, in words."""
        trials, best = [outcome.trial for outcome in self.outcomes], self.best.trial
        axes = {
            "learning rate": (best.lr, [trial.lr for trial in trials]),
            TITLES[best.axis]: (best.other, [trial.other for trial in trials]),
        }
        found = {title: at_edge(*factors) for title, factors in axes.items()}
        return [f"{edge} {title}" for title, edge in found.items() if edge]


def tuned(outcomes: Sequence[Outcome]) -> Tuned:
    """Choose among the trials of an entry.

    Raises:
        ValueError: All of them diverged.
    """
    label = outcomes[0].trial.entry.label
    finite = [place for place, outcome in enumerate(outcomes) if outcome.miou is not None]
    if not finite:
        raise ValueError(
            f"tune: {label}: all {len(outcomes)} trials diverged. Lower train.lr, or add lower factors to "
            "tuning.lr and trials"
        )
    # The first of equal ones.
    return Tuned(label, outcomes, max(finite, key=lambda place: outcomes[place].miou or 0.0))


def table(rows: Sequence[Tuned]) -> Table:
    """Every trial of every entry; the chosen ones are marked."""
    heads = ("method", "learning rate", "besides", "mIoU", "")
    found = Table(*heads, title="Trials, in their order")
    for row in rows:
        for place, outcome in enumerate(row.outcomes):
            trial = outcome.trial
            found.add_row(
                row.label if place == 0 else "",
                f"{trial.recipe.train.lr:g} (× {trial.lr:g})",
                f"{TITLES[trial.axis]} × {trial.other:g}",
                _figure(outcome),
                ", ".join(["chosen", *row.edges()]) if place == row.chosen else "",
            )
    return found


def _figure(outcome: Outcome) -> str:
    return "diverged" if outcome.miou is None else f"{outcome.miou:.2f}"


def as_json(rows: Sequence[Tuned]) -> dict[str, Any]:
    """Every trial as plain values, by label; mIoU in points."""
    return {
        row.label: {
            "axis": row.best.trial.axis,
            "chosen": row.chosen,
            "at_edge": row.edges(),
            "trials": [_trial(outcome) for outcome in row.outcomes],
        }
        for row in rows
    }


def _trial(outcome: Outcome) -> dict[str, Any]:
    trial = outcome.trial
    return {
        "lr_factor": trial.lr,
        f"{trial.axis}_factor": trial.other,
        "lr": trial.recipe.train.lr,
        "weight_decay": trial.recipe.train.weight_decay,
        "weights": dict(trial.weights),
        "miou": outcome.miou,
        "miou_by_seed": {str(seed): value for seed, value in outcome.miou_by_seed.items()},
    }
