"""The rows of metrics.jsonl: means of the terms' values, and what a gate let through."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor


def write_row(folder: Path, row: Mapping[str, Any]) -> None:
    """Append a row to metrics.jsonl."""
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(json.dumps(row) + "\n")


def kept_shares(counts: Mapping[str, Tensor]) -> dict[str, list[float | None]]:
    """The fraction of each class that a gate lets through, from `Distiller.kept`; None for a class without a pixel.

    The list ends with the last class that occurs.
    """
    shares = {}
    for name, table in counts.items():
        rows = table.tolist()
        while rows and not rows[-1][0]:
            rows.pop()
        shares[name] = [passed / pixels if pixels else None for pixels, passed in rows]
    return shares


class Window:
    """Means of the terms' values since the last row, kept on the device until read."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.steps, self.counted, self.seconds, self.waiting = 0, 0, 0.0, 0.0

    def add(self, values: Mapping[str, Tensor], seconds: float, waiting: float) -> None:
        for name, value in values.items():
            before = self.sums.get(name)
            self.sums[name] = value if before is None else before.to(value.device) + value
        # A skipped batch took time, but has no values.
        self.steps, self.counted = self.steps + 1, self.counted + bool(values)
        self.seconds += seconds
        self.waiting += waiting

    def state_dict(self) -> dict[str, Any]:
        """The state for resuming, so that later rows equal those of an uninterrupted training."""
        return {**vars(self), "sums": {name: value.cpu() for name, value in self.sums.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the values of `state_dict`; an empty state changes nothing."""
        vars(self).update(state)

    def means(self) -> dict[str, float]:
        return {name: float(value) / max(self.counted, 1) for name, value in self.sums.items()}
