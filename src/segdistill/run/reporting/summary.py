"""The metrics of runs as plain data, and their comparison with the control, paired by seed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median
from typing import Any, Literal

from rich.table import Table

from segdistill.config import Recipe
from segdistill.run.reporting.notation import difference_text, number, quantity, signed, spread
from segdistill.run.reporting.statistics import Paired, mean, paired, sd

Role = Literal["teacher", "control", "student"]


@dataclass(frozen=True)
class RunSummary:
    """The metrics of one run, as plain data.

    mIoU, IoU and pixel accuracy are fractions in `metrics` and `evaluation`, as in the run folder; the
    properties and tables here give them in points, 0 to 100.
    """

    name: str
    """name of the run folder"""
    method: str
    """label of the method; runs with the same label are seeds of one another"""
    role: Role
    """teacher; control (student trained without a teacher); student (distilled)"""
    seed: int | None = None
    """seed of initial weights and data order, used for pairing"""
    metrics: Sequence[Mapping[str, Any]] = ()
    """rows of metrics.jsonl"""
    evaluation: Mapping[str, Any] | None = None
    """evaluation.json: the last step's weights on the validation split"""
    profile: Mapping[str, Any] | None = None
    """parameters, multiply_adds, latency_ms_median, size, threads, device"""
    preparation: Mapping[str, Any] = field(default_factory=dict)
    """values that the losses recorded before step 1"""
    recipe: Recipe | None = None
    """the recipe as resolved; None for a teacher known only from its audit"""
    environment: Mapping[str, Any] = field(default_factory=dict)
    """versions, machine, threads"""
    wall_seconds: float | None = None
    """measured duration of the whole training; None: summed from the rows of `metrics`"""

    @property
    def label(self) -> str:
        """Name in tables and charts: the method of a distilled student, otherwise the role."""
        return self.method if self.role == "student" else self.role

    @property
    def train_rows(self) -> list[Mapping[str, Any]]:
        """Rows of `metrics` written while training."""
        return [row for row in self.metrics if row.get("kind") == "train"]

    @property
    def val_rows(self) -> list[Mapping[str, Any]]:
        """Rows of `metrics` written by validation."""
        return [row for row in self.metrics if row.get("kind") == "val"]

    def _final(self, key: str) -> Any:
        rows = [self.evaluation] if self.evaluation else self.val_rows[-1:]
        return rows[0].get(key) if rows else None

    @property
    def miou(self) -> float | None:
        """mIoU of the last step's weights, from the evaluation or, without one, the last validation."""
        return points(self._final("miou"))

    @property
    def iou(self) -> list[float | None]:
        """IoU of each class; None if undefined."""
        return [points(value) for value in self._final("iou") or []]

    @property
    def pixel_accuracy(self) -> float | None:
        """Fraction of labelled pixels predicted correctly, in points."""
        return points(self._final("pixel_accuracy"))

    @property
    def steps(self) -> int | None:
        """Last step with a row."""
        return max((int(row["step"]) for row in self.metrics if "step" in row), default=None)

    @property
    def seconds_per_step(self) -> float | None:
        """Median over the rows, so that pauses do not count."""
        rows = [row["seconds_per_step"] for row in self.train_rows if row.get("seconds_per_step")]
        return float(median(rows)) if rows else None

    @property
    def training_seconds(self) -> float | None:
        """Duration of the training; if it was not measured, of its steps only."""
        if self.wall_seconds is not None:
            return self.wall_seconds
        rows = [row for row in self.train_rows if row.get("seconds_per_step")]
        if not rows:
            return None
        steps = [0, *(int(row["step"]) for row in rows)]
        spans = (later - earlier for earlier, later in pairwise(steps))
        return float(
            sum(span * row["seconds_per_step"] for span, row in zip(spans, rows, strict=True))
        )


def points(share: float | None) -> float | None:
    """Convert a fraction to points, 0 to 100."""
    return None if share is None else 100 * float(share)


def by_label(summaries: Iterable[RunSummary]) -> dict[str, list[RunSummary]]:
    """Group runs by label: teacher, control, then the methods in order of appearance.

    Raises:
        ValueError: Two runs have the same label and seed, so that pairing would be arbitrary.
    """
    groups: dict[str, list[RunSummary]] = {"teacher": [], "control": []}
    for run in summaries:
        twins = [other for other in groups.get(run.label, []) if other.seed == run.seed]
        if twins and run.role != "teacher":
            raise ValueError(
                f"runs {twins[0].name!r} and {run.name!r} are both {run.label} with seed "
                f"{run.seed}. Leave one out, or set different labels"
            )
        groups.setdefault(run.label, []).append(run)
    return {label: runs for label, runs in groups.items() if runs}


def methods(summaries: Iterable[RunSummary]) -> list[str]:
    """Labels of the distilled students, in order of appearance."""
    return list(dict.fromkeys(run.label for run in summaries if run.role == "student"))


def default_subject(summaries: Iterable[RunSummary]) -> str:
    """Label of the method that a report focuses on: the first idd, or else the last.

    The control if no student was distilled.
    """
    known = methods(summaries)
    idd = [label for label in known if label.startswith("idd")]
    return idd[0] if idd else known[-1] if known else "control"


def with_profiles(
    summaries: Iterable[RunSummary], profiles: Mapping[str, Mapping[str, Any]]
) -> list[RunSummary]:
    """Replace the profiles of runs by measured ones; one student is measured for all of its kind.

    Args:
        summaries: The runs.
        profiles: Label -> profile of the network of one run of that label.
    """
    return [replace(run, profile=_measured(run, profiles)) for run in summaries]


def _measured(
    run: RunSummary, profiles: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    own = profiles.get(run.label)
    if not run.profile:
        return own
    # Multiply-adds cannot identify a network: a teacher's were counted at its own run's size.
    count = run.profile.get("parameters")
    alike = [p for p in (own, *profiles.values()) if p is not None and p["parameters"] == count]
    return alike[0] if alike else run.profile


def seed_pairs(
    summaries: Iterable[RunSummary], label: str, reference: str = "control"
) -> list[tuple[RunSummary, RunSummary]]:
    """Pairs of runs of two labels with the same seed, ordered by seed; runs without mIoU are left out."""
    groups = by_label(summaries)
    partners = {run.seed: run for run in groups.get(reference, []) if run.miou is not None}
    runs = [run for run in groups.get(label, []) if run.miou is not None and run.seed in partners]
    runs.sort(key=lambda run: (run.seed is None, run.seed or 0))
    return [(run, partners[run.seed]) for run in runs]


def paired_miou(
    summaries: Iterable[RunSummary], label: str, reference: str = "control"
) -> Paired | None:
    """Difference in mIoU points, `label` minus `reference`, per seed; None without pairs."""
    pairs = seed_pairs(summaries, label, reference)
    differences = [(one.miou or 0.0) - (other.miou or 0.0) for one, other in pairs]
    return paired(differences) if differences else None


@dataclass(frozen=True)
class ClassChange:
    """One class: mean IoU over seeds for each label, in points, and the paired change."""

    name: str
    iou: dict[str, float | None]
    change: Paired | None


def class_changes(
    summaries: Sequence[RunSummary], classes: Sequence[str], label: str, reference: str = "control"
) -> list[ClassChange]:
    """IoU of each class and its change from `reference` to `label`, largest gain first.

    Classes without a defined change come last, in the data set's order.
    """
    groups = by_label(summaries)
    pairs = seed_pairs(summaries, label, reference)
    changes = []
    for index, name in enumerate(classes):
        iou = {
            group: mean_of_known(_class_iou(run, index) for run in runs)
            for group, runs in groups.items()
        }
        both = [(_class_iou(one, index), _class_iou(other, index)) for one, other in pairs]
        differences = [one - other for one, other in both if one is not None and other is not None]
        changes.append(ClassChange(name, iou, paired(differences) if differences else None))
    return sorted(changes, key=lambda c: -c.change.mean if c.change else float("inf"))


def _class_iou(run: RunSummary, index: int) -> float | None:
    return run.iou[index] if index < len(run.iou) else None


def mean_of_known(values: Iterable[float | None]) -> float | None:
    """Mean of the known values; None if there are none."""
    known = [value for value in values if value is not None]
    return mean(known) if known else None


@dataclass(frozen=True)
class ComparisonRow:
    """One row of the comparison: a label, its means over seeds, its difference from the control."""

    label: str
    role: Role
    runs: int
    miou: float | None
    miou_sd: float | None
    difference: Paired | None
    pixel_accuracy: float | None
    parameters: float | None
    multiply_adds: float | None
    latency_ms: float | None
    seconds_per_step: float | None
    training_seconds: float | None


def comparison_rows(summaries: Sequence[RunSummary]) -> list[ComparisonRow]:
    """The comparison as data: teacher, control, then each method.

    mIoU, its sd and difference in points; latency in ms; times in seconds, mean over the seeds.
    """
    rows = []
    for label, runs in by_label(summaries).items():
        mious = [run.miou for run in runs if run.miou is not None]
        profiles = [run.profile for run in runs if run.profile]
        profile = profiles[0] if profiles else {}
        rows.append(
            ComparisonRow(
                label=label,
                role=runs[0].role,
                runs=len(runs),
                miou=mean(mious) if mious else None,
                miou_sd=sd(mious),
                difference=paired_miou(summaries, label) if runs[0].role == "student" else None,
                pixel_accuracy=mean_of_known(run.pixel_accuracy for run in runs),
                parameters=profile.get("parameters"),
                multiply_adds=profile.get("multiply_adds"),
                latency_ms=profile.get("latency_ms_median"),
                seconds_per_step=mean_of_known(run.seconds_per_step for run in runs),
                training_seconds=mean_of_known(run.training_seconds for run in runs),
            )
        )
    return rows


def input_sizes(summaries: Sequence[RunSummary]) -> str:
    """The input size for multiply-adds, with labels if it differs between runs; "" if unknown."""
    sizes: dict[tuple[int, ...], list[str]] = {}
    for label, runs in by_label(summaries).items():
        profile = next((run.profile for run in runs if run.profile), None)
        if profile and profile.get("size"):
            sizes.setdefault(tuple(profile["size"]), []).append(label)
    texts = {f"{size[0]} × {size[1]}": labels for size, labels in sizes.items()}
    if len(texts) < 2:
        return next((f"at {size} input" for size in texts), "")
    return "at " + ", ".join(f"{size} ({', '.join(labels)})" for size, labels in texts.items())


def comparison_table(summaries: Sequence[RunSummary]) -> Table:
    """The comparison for a terminal: mean ± sd over seeds, paired difference from the control."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("")
    for heading in (
        "mIoU",
        "vs. control",
        "each seed",
        "pixel acc.",
        "params",
        "mult-adds",
        "s/step",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in comparison_rows(summaries):
        table.add_row(
            row.label,
            spread(row.miou, row.miou_sd),
            difference_text(row.difference),
            " ".join(signed(value) for value in row.difference.differences)
            if row.difference
            else "",
            number(row.pixel_accuracy, 1),
            quantity(row.parameters),
            quantity(row.multiply_adds),
            number(row.seconds_per_step, 3),
        )
    sizes = input_sizes(summaries)
    table.caption = f"mult-adds {sizes}" if sizes else None
    return table
