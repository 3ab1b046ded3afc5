"""Verdicts on a set of runs, in words that claim no more than the seeds show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from segdistill.run.reporting.notation import p_text, signed
from segdistill.run.reporting.statistics import Paired, holm
from segdistill.run.reporting.summary import (
    RunSummary,
    by_label,
    comparison_rows,
    mean_of_known,
    methods,
    paired_miou,
    seed_pairs,
)

_FEW_IMAGES = 10
"""on fewer, a single image moves mIoU by more than methods differ"""


@dataclass(frozen=True)
class Verdict:
    """The verdict on one method, in words."""

    label: str
    tone: Literal["better", "worse", "unclear"]
    headline: str
    details: list[str]
    difference: Paired


def verdicts(summaries: Sequence[RunSummary]) -> list[Verdict]:
    """One verdict per method that shares a seed with the control, largest mean gain first.

    `better` and `worse` require an interval of the paired mean that excludes zero and, if several
    methods are compared, p below 0.05 after Holm's correction. One seed is `unclear`.
    """
    found = {label: paired_miou(summaries, label) for label in methods(summaries)}
    known = {label: difference for label, difference in found.items() if difference is not None}
    corrected = holm({label: d.p for label, d in known.items() if d.p is not None})
    order = sorted(known, key=lambda label: -known[label].mean)
    return [_verdict(summaries, label, known[label], corrected) for label in order]


def best(judged: Sequence[Verdict]) -> str | None:
    """Label of the method with the largest mean gain among those better than the control; None if none is."""
    better = [verdict for verdict in judged if verdict.tone == "better"]
    return max(better, key=lambda v: v.difference.mean).label if better else None


def _verdict(
    summaries: Sequence[RunSummary], label: str, difference: Paired, corrected: Mapping[str, float]
) -> Verdict:
    n, grounds = len(difference.differences), _grounds(summaries, label, difference)
    survives = corrected.get(label, 1.0) < 0.05
    side = "above" if difference.mean > 0 else "below"
    stands = f"{label} is {abs(difference.mean):.1f} mIoU {side} plain training ({grounds})"
    if difference.mean == 0:
        stands = f"{label} equals plain training ({grounds})"
    tone: Literal["better", "worse", "unclear"] = "unclear"
    details = []
    if n == 1:
        headline = f"{stands}: this may be chance"
    elif not difference.clear:
        headline = f"{label}: no clear difference from plain training ({grounds})"
        details.append(f"Mean difference {signed(difference.mean)} mIoU.")
    elif not survives:
        headline = f"{stands}: this may be chance, as {len(corrected)} methods were compared"
    else:
        headline = stands
        tone = "better" if difference.mean > 0 else "worse"
    details += _chance(difference, corrected.get(label), len(corrected))
    details += _budget(summaries, label)
    return Verdict(label, tone, headline, details, difference)


def _grounds(summaries: Sequence[RunSummary], label: str, difference: Paired) -> str:
    """What a difference was measured on, such as "mean of 3 seeds, 101 images"."""
    n, count = len(difference.differences), image_count(summaries, label)
    seeds = "1 seed" if n == 1 else f"mean of {n} seeds"
    if count is None:
        return seeds
    return f"{seeds}, {count:,} image{'s' * (count != 1)}"


def image_count(summaries: Sequence[RunSummary], label: str) -> int | None:
    """How many images a method and the control were measured on; None if unknown or not the same in all runs."""
    pairs = seed_pairs(summaries, label)
    counts = {(run.evaluation or {}).get("images") for pair in pairs for run in pair}
    return counts.pop() if len(counts) == 1 else None


def _chance(difference: Paired, p: float | None, compared: int) -> list[str]:
    n = len(difference.differences)
    if difference.half_width is None or difference.low is None or difference.high is None:
        return []
    seeds = ", ".join(signed(value) for value in difference.differences)
    sentences = [f"Each seed: {seeds}."]
    for side, holds in (
        ("above", min(difference.differences) > 0),
        ("below", max(difference.differences) < 0),
    ):
        if holds:
            sentences.append(
                f"{side.capitalize()} the control in all {n} seeds; without any effect the chance of that is "
                f"1 in {2**n}."
            )
    sentences.append(
        f"95 % interval of the paired mean: {signed(difference.low)} to {signed(difference.high)}; "
        f"with this spread, {n} seeds cannot detect gains below {difference.half_width:.1f} mIoU."
    )
    if compared > 1 and p is not None:
        sentences.append(
            f"Paired t test with Holm's correction for {compared} methods: {p_text(p)}."
        )
    return sentences


def _budget(summaries: Sequence[RunSummary], label: str) -> list[str]:
    groups = by_label(summaries)
    runs, control = groups[label], groups["control"]
    steps = {run.steps for run in runs}, {run.steps for run in control}
    sentences = []
    if steps[0] != steps[1] and None not in steps[0] | steps[1]:
        counts = [" / ".join(f"{count:,}" for count in sorted(filter(None, one))) for one in steps]
        sentences.append(f"The budgets differ: {counts[0]} steps, and {counts[1]} for the control.")
    times = [mean_of_known(run.seconds_per_step for run in group) for group in (runs, control)]
    if times[0] and times[1] and times[0] > 1.05 * times[1]:
        ratio = times[0] / times[1]
        sentences.append(
            f"A step takes {ratio:.1f} times as long as the control's; in the same time the control could "
            f"run {ratio:.1f} times as many steps."
        )
    unpaired = sorted(
        {str(run.seed) for run in runs} ^ {str(run.seed) for run in control},
        key=lambda seed: (len(seed), seed),
    )
    if unpaired:
        sentences.append(f"Not in the difference, since unpaired: seed {', '.join(unpaired)}.")
    return sentences


def context(summaries: Sequence[RunSummary]) -> str:
    """The mIoU of teacher and control, and the part of their gap that each method closes.

    A second sentence warns of fewer than 10 images.
    """
    counts = [
        count
        for label in methods(summaries)
        if (count := image_count(summaries, label)) is not None
    ]
    fewest = min(counts, default=_FEW_IMAGES)
    if fewest >= _FEW_IMAGES:
        return _standing(summaries)
    measured = "one image" if fewest == 1 else f"{fewest} images"
    return (
        f"{_standing(summaries)} Measured on {measured}: others may rank the methods differently."
    )


def _standing(summaries: Sequence[RunSummary]) -> str:
    rows = {row.label: row for row in comparison_rows(summaries)}
    teacher = rows["teacher"].miou if "teacher" in rows else None
    control = rows["control"].miou if "control" in rows else None
    if control is None:
        return (
            "These runs have no control. Train the same student with the same seeds and without a teacher "
            "(method: supervised) to see what distillation adds."
        )
    if teacher is None:
        return f"The control (plain training) reaches {control:.1f} mIoU."
    gap = teacher - control
    stand = f"The teacher reaches {teacher:.1f} mIoU and the control (plain training) {control:.1f}"
    if gap <= 0:
        return f"{stand}. The teacher is not better than the control, so it has little to teach."
    # The gap is only mentioned for clear gains and for single seeds.
    spoken = [
        v for v in verdicts(summaries) if v.tone == "better" or len(v.difference.differences) == 1
    ]
    closed = [
        f"{verdict.label} closes {100 * verdict.difference.mean / gap:.0f} %"
        for verdict in spoken
        if verdict.difference.mean > 0
    ]
    if not closed:
        return f"{stand}, a gap of {gap:.1f}."
    return f"{stand}, a gap of {gap:.1f}, of which {', '.join(closed)}."
