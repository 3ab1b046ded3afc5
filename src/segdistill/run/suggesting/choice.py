"""Which candidates fit a budget, the table of all, and the recipe of the chosen one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table

from segdistill.config import ModelConfig
from segdistill.run.console import render
from segdistill.run.evaluation.profile import Latency, count_text
from segdistill.run.suggesting.candidates import Candidate


@dataclass(frozen=True)
class Measured:
    """A candidate with its latency.

    Attributes:
        candidate: The candidate.
        latency: Of one image; None: it could not be measured.
        miou: Of a short training, 0 to 100; None: not trained, or the training diverged.
    """

    candidate: Candidate
    latency: Latency | None
    miou: float | None = None

    def fits(self, budget: float) -> bool:
        """Whether the median is at most the budget, in milliseconds."""
        return self.latency is not None and self.latency.median <= budget

    @property
    def size(self) -> tuple[float, float]:
        """Parameters as shipped, then multiply-adds."""
        cost = self.candidate.cost
        if cost is None:
            return 0, 0
        return cost.parameters_deployed or 0, cost.multiply_adds or 0


def largest_first(rows: Sequence[Measured], budget: float) -> list[Measured]:
    """Those that fit, the one with the most parameters first."""
    return sorted((row for row in rows if row.fits(budget)), key=lambda row: row.size, reverse=True)


def check_any_fits(rows: Sequence[Measured], budget: float, size: Sequence[int]) -> None:
    """Refuse to choose where nothing fits.

    Raises:
        ValueError: No candidate could be measured, or none is fast enough; the message names the nearest.
    """
    timed = [(row.latency.median, row) for row in rows if row.latency is not None]
    if not timed:
        first = rows[0].candidate
        raise ValueError(
            f"suggest: no candidate could be measured; the first, {first.label}, because: {first.reason}"
        )
    median, nearest = min(timed, key=lambda pair: pair[0])
    if median > budget:
        raise ValueError(
            f"suggest: no candidate takes {budget:g} ms or less at {size[0]}x{size[1]}; the nearest is "
            f"{nearest.candidate.label} with {median:.1f} ms. Raise --latency, lower --size, or name faster "
            "networks with --candidates. Nothing is written"
        )


def table_of(rows: Sequence[Measured], budget: float) -> str:
    """All candidates, the fastest first and those that could not be measured last, with the reasons below."""
    probed = any(row.miou is not None for row in rows)
    table = Table()
    table.add_column("network")
    for title in ("parameters", "mult-adds", "median ms", "p90 ms"):
        table.add_column(title, justify="right")
    table.add_column("fits")
    if probed:
        table.add_column("mIoU of probe", justify="right")
    for row in sorted(rows, key=lambda row: row.latency.median if row.latency else math.inf):
        table.add_row(*_cells(row, budget), *([_number(row.miou, 2)] if probed else []))
    failed = [
        f"{row.candidate.label}: {row.candidate.reason}" for row in rows if row.latency is None
    ]
    return "\n".join([render(table), *failed])


def _cells(row: Measured, budget: float) -> list[str]:
    cost, latency = row.candidate.cost, row.latency
    return [
        row.candidate.label,
        count_text(None if cost is None else cost.parameters_deployed, 1e6, "M"),
        count_text(None if cost is None else cost.multiply_adds, 1e9, "G"),
        _number(None if latency is None else latency.median, 2),
        _number(None if latency is None else latency.p90, 2),
        _verdict(row, budget),
    ]


def _verdict(row: Measured, budget: float) -> str:
    if row.latency is None:
        return "failed"
    if not row.fits(budget):
        return "no"
    return "yes" if row.latency.p90 <= budget else "yes, p90 does not"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def recipe_text(
    values: Mapping[str, Any] | None, student: ModelConfig, own: bool, comment: Sequence[str]
) -> str:
    """The text of a recipe with this student.

    Args:
        values: The values of the recipe that was given, bases merged; None: there was none.
        student: The chosen network.
        own: It is the student of that recipe, whose settings stay.
        comment: Lines that say how it was chosen.
    """
    made = dict(values or {})
    if not own:
        options = {"options": student.options} if student.options else {}
        made["student"] = {"model": student.model, **options}
    # A run of another student is not resumed in the folder of the given recipe.
    made.pop("out", None)
    lines = "".join(f"# {line}".rstrip() + "\n" for text in comment for line in text.splitlines())
    return lines + yaml.safe_dump(made, sort_keys=False, allow_unicode=True)


def check_out(out: str) -> Path:
    """The path of the recipe to write.

    Raises:
        FileExistsError: There is a file.
        FileNotFoundError: Its folder does not exist.
    """
    path = Path(out)
    if path.exists():
        raise FileExistsError(
            f"--out {out} exists; expected a new file. Name another, or remove it"
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(f"--out {out}: no folder {path.parent}. Create it")
    return path
