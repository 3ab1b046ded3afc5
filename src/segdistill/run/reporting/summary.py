"""The metrics of runs as plain data, and their comparison with controls, paired by seed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median
from typing import Any, Literal

from segdistill.config import DataConfig, Recipe
from segdistill.run.reporting.statistics import Paired, mean, paired, pooled

Role = Literal["teacher", "control", "placebo", "method"]


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
    """teacher; control (usually trained without a teacher); method; placebo of a method"""
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
    last_step: int | None = None
    """step at which the training ended; None: that of its last row"""
    wall_seconds: float | None = None
    """measured duration of the whole training; None: summed from the rows of `metrics`"""
    tests: str | None = None
    """label of the method that a placebo tests"""
    labels: tuple[int, int] | None = None
    """training images with labels, and all of them; None where it was not recorded"""
    own: Mapping[str, Any] | None = None
    """of a teacher whose `evaluation` is at the students' input: its evaluation at its own input"""
    start: str | None = None
    """digest of the initial weights"""
    sets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """metrics on each further evaluation set, by its name, in the form of `evaluation`"""
    transfer: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """what `evaluate --transfer` measured, by the set's name"""
    fold: str = ""
    """fold of the data that it belongs to; "": there are no folds"""
    taught_by: str | None = None
    """digest of its teacher's weights; None without a teacher, or where it was not recorded"""

    def on(self, name: str) -> "RunSummary":
        """The run as measured on a further set; without mIoU where it was not."""
        return replace(self, evaluation=self.sets.get(name) or {"miou": None}, own=None)

    @property
    def split(self) -> str:
        """Name of the evaluation split. Other groups of the training split are said to be held out."""
        name = str((self.evaluation or {}).get("split") or "val")
        data = DataConfig() if self.recipe is None else self.recipe.data
        groups = [set(one.get("groups") or ()) for one in (data.train_options, data.val_options)]
        apart = name == data.train_split and all(groups) and groups[0].isdisjoint(groups[1])
        return f"{name} (held out)" if apart else name

    @property
    def label(self) -> str:
        """Name in tables and charts; all teachers share one."""
        return "teacher" if self.role == "teacher" else self.method

    @property
    def random_teacher(self) -> bool:
        """Whether it learnt from a teacher with random weights."""
        return self.recipe is not None and self.recipe.random_teacher

    @property
    def view(self) -> dict[str, Any]:
        """How images were shown when `evaluation` was measured, as far as it is recorded."""
        return view_of(self.evaluation or {})

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
        """Last step of the training."""
        if self.last_step is not None:
            return self.last_step
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


def split_of(summaries: Sequence[RunSummary]) -> str:
    """Name of the evaluation split of runs that are compared; a teacher has a recipe of its own, with other splits."""
    known = sorted((run for run in summaries if run.evaluation), key=lambda r: r.role == "teacher")
    return known[0].split if known else "val"


def points(share: float | None) -> float | None:
    """Convert a fraction to points, 0 to 100."""
    return None if share is None else 100 * float(share)


def view_of(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The input size (height, width) and the protocol of an evaluation; what is not recorded is left out."""
    protocol = evaluation.get("protocol") or {}
    size = (evaluation.get("profile") or {}).get("size") or protocol.get("size")
    view = {key: protocol[key] for key in _PROTOCOL if key in protocol}
    view |= {key: evaluation[key] for key in ("split", "images") if key in evaluation}
    return {**view, **({"size": tuple(size)} if size else {})}


_PROTOCOL = ("window", "overlap", "flip", "scales", "average", "absent")


def same_view(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two views are the same in all that both record."""
    return all(one[key] == other[key] for key in one.keys() & other.keys())


def by_label(summaries: Iterable[RunSummary]) -> dict[str, list[RunSummary]]:
    """Group runs by label: teacher, controls, then each method followed by its placebos.

    Raises:
        ValueError: Two runs have the same label and seed, so that pairing would be arbitrary, or the same
            label and different roles.
    """
    groups: dict[str, list[RunSummary]] = {}
    for run in _in_order(summaries):
        twins = [other for other in groups.get(run.label, []) if _pair_key(other) == _pair_key(run)]
        if twins and run.role != "teacher":
            raise ValueError(
                f"runs {twins[0].name!r} and {run.name!r} are both {run.label} with seed "
                f"{run.seed}. Leave one out, or set different labels"
            )
        others = [other for other in groups.get(run.label, []) if other.role != run.role]
        if others:
            raise ValueError(
                f"runs {others[0].name!r} and {run.name!r} are both {run.label}, one as {others[0].role} and "
                f"one as {run.role}. Set different labels"
            )
        groups.setdefault(run.label, []).append(run)
    return groups


def _pair_key(run: RunSummary) -> tuple[str, int | None]:
    """What two runs must share to be a pair."""
    return run.fold, run.seed


def _in_order(summaries: Iterable[RunSummary]) -> list[RunSummary]:
    runs = list(summaries)
    found = {label: place for place, label in enumerate(methods(runs))}

    def place(run: RunSummary) -> tuple[int, int, int]:
        first = ("teacher", "control").index(run.role) if run.role in ("teacher", "control") else 2
        of = run.tests if run.role == "placebo" else run.label
        return first, found.get(of or "", len(found)) if first == 2 else 0, run.role == "placebo"

    return sorted(runs, key=place)


def methods(summaries: Iterable[RunSummary]) -> list[str]:
    """Labels of the methods that are compared, in order of appearance; placebos are not among them."""
    return _labels(summaries, "method")


def by_teacher(summaries: Iterable[RunSummary]) -> dict[str, list[str]]:
    """Seeds (with their fold, where there are folds) by the digest of the teacher that taught their methods."""
    found: dict[str, list[str]] = {}
    for run in summaries:
        seeds = found.setdefault(run.taught_by, []) if run.taught_by else []
        name = f"{run.fold}/{run.seed}" if run.fold else str(run.seed)
        if run.role == "method" and name not in seeds:
            seeds.append(name)
    return {teacher: seeds for teacher, seeds in found.items() if seeds}


def teachers_differ(summaries: Iterable[RunSummary]) -> str:
    """Which seeds had which teacher, in words; empty if each fold had one."""
    runs = list(summaries)
    folds = [by_teacher(run for run in runs if run.fold == fold) for fold in _folds(runs)]
    if all(len(one) < 2 for one in folds):
        return ""
    told = [
        f"{teacher[:8]} (seed{'s' * (len(seeds) != 1)} {', '.join(seeds)})"
        for one in folds
        for teacher, seeds in one.items()
    ]
    return f"teachers of the same recipe with other bits: {', '.join(told)}"


def _folds(runs: Iterable[RunSummary]) -> list[str]:
    return list(dict.fromkeys(run.fold for run in runs))


def controls(summaries: Iterable[RunSummary]) -> list[str]:
    """Labels of the controls, in order of appearance; tables show differences from the first."""
    return _labels(summaries, "control")


def placebos(summaries: Iterable[RunSummary], method: str) -> list[str]:
    """Labels of the placebos that test a method, in order of appearance."""
    return _labels((run for run in summaries if run.tests == method), "placebo")


def _labels(summaries: Iterable[RunSummary], role: Role) -> list[str]:
    return list(dict.fromkeys(run.label for run in summaries if run.role == role))


def compared(summaries: Iterable[RunSummary]) -> list[str]:
    """Labels of the methods, each followed by its placebos."""
    groups = by_label(summaries)
    return [label for label, runs in groups.items() if runs[0].role in ("method", "placebo")]


def default_subject(summaries: Iterable[RunSummary]) -> str:
    """Label of the method that a report focuses on: the first idd, or else the last.

    The first control if there is no method.
    """
    runs = list(summaries)
    known = methods(runs)
    idd = [label for label in known if label.startswith("idd")]
    alone = [*controls(runs), *(run.label for run in runs if run.role != "teacher"), "control"]
    return idd[0] if idd else known[-1] if known else alone[0]


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


def set_names(summaries: Iterable[RunSummary]) -> list[str]:
    """Names of the further sets that any run was measured on, in order of appearance."""
    return list(dict.fromkeys(name for run in summaries for name in run.sets))


def on_set(summaries: Iterable[RunSummary], name: str) -> list[RunSummary]:
    """The runs as measured on a further set."""
    return [run.on(name) for run in summaries]


def claims_on(summaries: Iterable[RunSummary]) -> str | None:
    """The set that claims are made on; None: the evaluation split."""
    recipes = (run.recipe for run in summaries if run.role != "teacher")
    return next((one.claims_on for one in recipes if one is not None and one.claims_on), None)


def judged(summaries: Iterable[RunSummary]) -> list[RunSummary]:
    """The runs as measured on the set that claims are made on."""
    runs = list(summaries)
    name = claims_on(runs)
    return runs if name is None else on_set(runs, name)


def on_thin(summaries: Iterable[RunSummary]) -> list[RunSummary] | None:
    """The runs with the mean IoU of the thin classes in place of mIoU; None where no recipe names any."""
    runs = list(summaries)
    recipes = [run.recipe for run in runs if run.recipe is not None and run.role != "teacher"]
    names = next((recipe.thin_classes for recipe in recipes if recipe.thin_classes), None)
    classes = next(
        (one["classes"] for run in runs if (one := run.evaluation or {}).get("classes")), None
    )
    if names is None or classes is None:
        return None
    places = [classes.index(name) for name in names if name in classes]
    return [replace(run, evaluation={"miou": _mean_iou(run, places)}, own=None) for run in runs]


def _mean_iou(run: RunSummary, places: Sequence[int]) -> float | None:
    """Mean IoU of some classes as a fraction; undefined ones are left out."""
    iou = (run.evaluation or {}).get("iou") or []
    return mean_of_known(iou[place] for place in places if place < len(iou))


def seed_pairs(
    summaries: Iterable[RunSummary], label: str, reference: str | None = None
) -> list[tuple[RunSummary, RunSummary]]:
    """Pairs of runs of two labels with the same fold and seed, in this order; runs without mIoU are left out.

    Args:
        summaries: The runs.
        label: The first of each pair.
        reference: The second; None: the first control.
    """
    groups = by_label(summaries)
    if reference is None:
        runs = [run for group in groups.values() for run in group]
        reference = next(iter(controls(runs)), "")
    partners = {_pair_key(run): run for run in groups.get(reference, []) if run.miou is not None}
    measured = [run for run in groups.get(label, []) if run.miou is not None]
    runs = [run for run in measured if _pair_key(run) in partners]
    runs.sort(key=lambda run: (run.fold, run.seed is None, run.seed or 0))
    return [(run, partners[_pair_key(run)]) for run in runs]


def paired_miou(
    summaries: Iterable[RunSummary], label: str, reference: str | None = None
) -> Paired | None:
    """Difference in mIoU points, `label` minus `reference` (None: the first control); None without pairs.

    Several folds are pooled with the fold as block (`statistics.pooled`).
    """
    pairs = seed_pairs(summaries, label, reference)
    return _over_folds(
        [(one.fold, (one.miou or 0.0) - (other.miou or 0.0)) for one, other in pairs]
    )


def _over_folds(differences: Sequence[tuple[str, float]]) -> Paired | None:
    """Statistics of differences, each with its fold; None without any."""
    by_fold: dict[str, list[float]] = {}
    for fold, difference in differences:
        by_fold.setdefault(fold, []).append(difference)
    if len(by_fold) > 1:
        return pooled(by_fold)
    return paired(next(iter(by_fold.values()))) if by_fold else None


def mean_and_sd(runs: Iterable[RunSummary]) -> tuple[float | None, float | None]:
    """mIoU of one label in points: mean over seeds (of fold means, where there are folds) and its sd.

    With folds, the sd is the one within folds.
    """
    found = _over_folds([(run.fold, run.miou) for run in runs if run.miou is not None])
    return (None, None) if found is None else (found.mean, found.sd)


@dataclass(frozen=True)
class ClassChange:
    """One class: mean IoU over seeds for each label, in points, and the paired change."""

    name: str
    iou: dict[str, float | None]
    change: Paired | None


def class_changes(
    summaries: Sequence[RunSummary],
    classes: Sequence[str],
    label: str,
    reference: str | None = None,
) -> list[ClassChange]:
    """IoU of each class and its change from `reference` (None: the first control) to `label`.

    Largest gain first.

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
        both = [(p[0].fold, _class_iou(p[0], index), _class_iou(p[1], index)) for p in pairs]
        known = [(f, one - two) for f, one, two in both if one is not None and two is not None]
        changes.append(ClassChange(name, iou, _over_folds(known)))
    return sorted(changes, key=lambda c: -c.change.mean if c.change else float("inf"))


def _class_iou(run: RunSummary, index: int) -> float | None:
    return run.iou[index] if index < len(run.iou) else None


def mean_of_known(values: Iterable[float | None]) -> float | None:
    """Mean of the known values; None if there are none."""
    known = [value for value in values if value is not None]
    return mean(known) if known else None
