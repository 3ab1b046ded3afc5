"""Observers that come with the package: TensorBoard's curves, and early stopping.

Any class with the methods `row(values)` and `finished(run)` is an observer; see `docs/observers.md`.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from segdistill.extras import require
from segdistill.names import unknown
from segdistill.run.folder import RunFolder

_log = logging.getLogger(__name__)
_OF_EVALUATIONS = (
    "miou",
    "iou",
    "pixel_accuracy",
    "teacher_agreement",
    "teacher_miou",
    "teacher_iou",
)
"""First parts of the values that only an evaluation has."""


class EarlyStopping:
    """Asks to stop once a value has not improved for a number of rows.

    The schedule of the learning rate is not rescaled: the run ends at the rate that its recipe gives that
    step. A resumed run stops where an unbroken one would.

    Args:
        patience: Rows in a row that may pass without an improvement, 1 or more.
        monitor: Value of a row that is watched. `miou` (0 to 1) is in the rows of evaluations, which come
            every `train.val_every` steps; `total` and `terms.cross_entropy.value` are in training rows.
        mode: `max` where larger is better, `min` where smaller is.
        min_delta: Smallest change that counts as an improvement, in the value's own unit.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> stop = EarlyStopping(patience=1)
        >>> stop.row({"kind": "val", "step": 10, "miou": 0.5})
        >>> stop.row({"kind": "val", "step": 20, "miou": 0.4})
        'miou has not improved on 0.5 (step 10) for 1 row'
    """

    def __init__(
        self,
        patience: int = 5,
        monitor: str = "miou",
        mode: Literal["max", "min"] = "max",
        min_delta: float = 0.0,
    ) -> None:
        if not isinstance(patience, int) or patience < 1:
            raise ValueError(f"EarlyStopping: patience is {patience}; expected a positive integer")
        if mode not in ("max", "min"):
            raise ValueError(f"EarlyStopping: mode is {mode!r}; expected 'max' or 'min'")
        if not min_delta >= 0:
            raise ValueError(f"EarlyStopping: min_delta is {min_delta}; expected 0 or more")
        self.patience, self.monitor, self.min_delta = patience, monitor, min_delta
        self._sign = 1.0 if mode == "max" else -1.0
        self._begin()

    def _begin(self) -> None:
        self._best, self._best_step, self._waited = -math.inf, 0, 0
        self._keys: dict[str, set[str]] = {}
        self._seen = 0

    def started(self, run: RunFolder, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take up the state that the rows of a resumed run lead to."""
        self._begin()
        evaluated_once = self.monitor.partition(".")[0] in _OF_EVALUATIONS
        if evaluated_once and run.recipe().train.val_every == 0:
            _log.warning(
                "EarlyStopping: %s is measured only at the end, as train.val_every is 0, so nothing stops the training "
                "before. Set train.val_every",
                self.monitor,
            )
        for row in rows:
            self.row(row)

    def row(self, values: Mapping[str, Any]) -> str | None:
        """Why to stop, or None.

        Raises:
            ValueError: Neither the training nor the evaluation has the monitored value.
        """
        plain = dict(_flat(values, "."))
        self._keys.setdefault(str(values.get("kind")), set()).update(plain)
        if self.monitor not in plain:
            self._check_monitor()
            return None
        self._seen += 1
        value = self._sign * plain[self.monitor]
        if value > self._best + self.min_delta:
            self._best, self._best_step, self._waited = value, int(values["step"]), 0
            return None
        self._waited += 1
        if self._waited < self.patience:
            return None
        rows = "row" if self._waited == 1 else "rows"
        best = f"{self._sign * self._best:.4g} (step {self._best_step})"
        return f"{self.monitor} has not improved on {best} for {self._waited} {rows}"

    def _check_monitor(self) -> None:
        known = set().union(*self._keys.values())
        if {"train", "val"} <= self._keys.keys() and self.monitor not in known:
            raise ValueError(f"monitor: {unknown('value of a row', self.monitor, known)}")

    def finished(self, run: RunFolder) -> None:
        """Warn where there was nothing to decide on."""
        if self._seen <= 1:
            _log.warning(
                "EarlyStopping: %s is in %d rows of %s; expected more to compare. Set train.val_every to "
                "evaluate during the training",
                self.monitor,
                self._seen,
                run.path,
            )


class TensorBoard:
    """Writes every number of every row as a curve: `tensorboard --logdir runs` shows them.

    The files lie in the run's folder, under `tensorboard/`. They are written again from `metrics.jsonl`
    when a run is resumed, so that no step is there twice and an observer added later has the whole curve.

    Raises:
        ValueError: TensorBoard is not installed.
    """

    def __init__(self) -> None:
        require("tensorboard", "tensorboard")
        self._writer: Any = None

    def started(self, run: RunFolder, rows: Sequence[Mapping[str, Any]]) -> None:
        """Open the files and write the rows of a resumed run."""
        from torch.utils.tensorboard import SummaryWriter

        folder = run.path / "tensorboard"
        for file in folder.glob("events.out.tfevents.*"):
            file.unlink()
        self._writer = SummaryWriter(str(folder), flush_secs=10)
        for row in rows:
            self.row(row)

    def row(self, values: Mapping[str, Any]) -> None:
        """Write the numbers of a row under `<kind>/<key>`, such as `train/total` or `val/miou`."""
        prefix = "/".join(str(values[key]) for key in ("kind", "term") if key in values)
        for key, value in _flat(values, "/"):
            if key != "step":
                self._writer.add_scalar(f"{prefix}/{key}", value, int(values["step"]))

    def finished(self, run: RunFolder) -> None:
        """Close the files."""
        self._writer.close()


def _flat(values: Any, separator: str, path: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a row with its path; entries of lists by their number."""
    if isinstance(values, (Mapping, list, tuple)):
        items = values.items() if isinstance(values, Mapping) else enumerate(values)
        for key, value in items:
            yield from _flat(value, separator, f"{path}{separator}{key}" if path else str(key))
    elif isinstance(values, (int, float)):
        yield path, float(values)
