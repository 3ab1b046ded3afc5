"""Verdicts on a set of runs, in words that claim no more than the seeds show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segdistill.run.reporting.claims.alike import unlike_in_words
from segdistill.run.reporting.claims.contrasts import (
    Contrast,
    claim_p,
    contrasts,
    control_in_words,
    in_words,
    named,
    strictest,
)
from segdistill.run.reporting.claims.registered import (
    Claim,
    Tone,
    claims,
    corrected_over,
    registered_pairs,
)
from segdistill.run.reporting.claims.scenes import scenes_in_words
from segdistill.run.reporting.claims.table import by_seed, why_times_differ
from segdistill.run.reporting.notation import p_text, signed
from segdistill.run.reporting.statistics import Paired, holm
from segdistill.run.reporting.summary import (
    RunSummary,
    by_label,
    compared,
    controls,
    judged,
    mean_of_known,
    methods,
    placebos,
    seed_pairs,
)


@dataclass(frozen=True)
class Verdict:
    """The verdict on one method, or on a placebo beside it, in words."""

    label: str
    tone: Tone
    headline: str
    details: list[str]
    difference: Paired
    """from `control`"""
    control: str = "control"
    """label of the control that the headline compares with: the strictest of all"""
    tests: str | None = None
    """label of the method, if this is its placebo"""
    contrasts: Sequence[Contrast] = ()
    """against every control, then against the placebos"""


def verdicts(summaries: Sequence[RunSummary]) -> list[Verdict]:
    """One verdict per method that shares a seed with a control, largest mean gain first.

    A headline compares with the control that says least for the method; the other controls and the
    method's placebos stand in the details. The verdicts on placebos follow that of their method. `better`
    and `worse` require an interval of the paired mean that excludes zero and, if several methods are
    compared, p below 0.05 after Holm's correction. One seed is `unclear`, and so is a comparison of equal
    settings.

    All is judged on the set that claims are made on. Where a recipe registers claims, only labels that are
    the first of one get a verdict: the least favourable of their claims, corrected over all claims.
    """
    summaries = judged(summaries)
    if registered_pairs(summaries):
        return _of_claims(summaries)
    against = controls(summaries)
    found = {label: contrasts(summaries, label, against) for label in compared(summaries)}
    known = {label: one for label, one in found.items() if one}
    tested = [label for label in methods(summaries) if label in known]
    corrected = _corrected({label: known[label] for label in tested})
    tested.sort(key=lambda label: -strictest(known[label]).difference.mean)
    order = list(
        dict.fromkeys(one for name in tested for one in (name, *placebos(summaries, name)))
    )
    order += [label for label in known if label not in order]
    return [
        _verdict(summaries, known[label], corrected[label], len(corrected))
        if label in corrected
        else _verdict(summaries, known[label], claim_p(known[label]), 1)
        for label in order
        if label in known
    ]


def _of_claims(summaries: Sequence[RunSummary]) -> list[Verdict]:
    """One verdict for each label that claims something, largest mean difference first."""
    found = claims(summaries)
    by_subject: dict[str, list[Claim]] = {}
    for claim in found:
        by_subject.setdefault(claim.contrast.label, []).append(claim)
    count = corrected_over(summaries)
    made = [_of_subject(summaries, ones, count) for ones in by_subject.values()]
    return sorted(made, key=lambda verdict: -verdict.difference.mean)


def _of_subject(summaries: Sequence[RunSummary], ones: Sequence[Claim], count: int) -> Verdict:
    """The verdict on one label: its least favourable claim in the headline, the others in the details."""
    order = ("worse", "unclear", "better")
    least = min(order.index(one.tone) for one in ones)
    candidates = [one for one in ones if order.index(one.tone) == least]
    chosen_contrast = strictest([one.contrast for one in candidates])
    chosen = next(one for one in candidates if one.contrast is chosen_contrast)
    contrast = chosen.contrast
    tone, headline, details = _claim(summaries, contrast, 1, chosen.p, count, "registered claims")
    for other in ones:
        if other is not chosen:
            p = "" if other.p is None else f" ({p_text(other.p)} after Holm: {other.tone})"
            details.append(f"{in_words(other.contrast).rstrip('.')}{p}.")
    details += _budget(summaries, contrast.label, contrast.reference)
    tests = by_label(summaries)[contrast.label][0].tests
    everything = [one.contrast for one in ones]
    difference, reference = contrast.difference, contrast.reference
    return Verdict(
        contrast.label, tone, headline, details, difference, reference, tests, everything
    )


def _corrected(tested: Mapping[str, Sequence[Contrast]]) -> dict[str, float]:
    """p of each method after Holm's correction; one seed has none, and a method equal to a control makes no claim."""
    claims = {name: found for name, found in tested.items() if not strictest(found).itself}
    return holm({name: p for name, found in claims.items() if (p := claim_p(found)) is not None})


def best(judged: Sequence[Verdict]) -> str | None:
    """Label of the method with the largest mean gain among those better than every control; None if none is.

    A placebo is never the best.
    """
    better = [v for v in judged if v.tone == "better" and v.tests is None]
    return max(better, key=lambda v: v.difference.mean).label if better else None


def control_of(summaries: Sequence[RunSummary], label: str) -> str:
    """Label of the control that the verdict on a method rests on; without a verdict the first control's."""
    known = controls(summaries)
    rests = {verdict.label: verdict.control for verdict in verdicts(summaries)}
    rest = rests.get(label)
    return rest if rest in known else next(iter(known), "control")


def _verdict(
    summaries: Sequence[RunSummary], found: Sequence[Contrast], p: float | None, compared: int
) -> Verdict:
    chosen = strictest(found)
    label, difference = chosen.label, chosen.difference
    tests = by_label(summaries)[label][0].tests
    others = [one for one in found if one is not chosen]
    against_placebos = contrasts(summaries, label, placebos(summaries, label), "placebo")
    tone, headline, details = _claim(summaries, chosen, len(found), p, compared)
    unbeaten = [one.reference for one in against_placebos if not _above(one)]
    if tone == "better" and unbeaten:
        names = ", ".join(unbeaten)
        headline += f", but not clearly above its placebo{'s' * (len(unbeaten) > 1)} {names}"
    details += [in_words(one) for one in (*others, *against_placebos)]
    details += _unpaired_references(summaries, label, [*found, *against_placebos])
    details += _budget(summaries, label, chosen.reference)
    everything = [*found, *against_placebos]
    return Verdict(label, tone, headline, details, difference, chosen.reference, tests, everything)


def _above(contrast: Contrast) -> bool:
    return contrast.difference.clear and contrast.difference.mean > 0 and not contrast.itself


def _claim(
    summaries: Sequence[RunSummary],
    chosen: Contrast,
    count: int,
    p: float | None,
    compared: int,
    kind: str = "methods",
) -> tuple[Tone, str, list[str]]:
    """Tone, headline and details of a contrast with the strictest of `count` controls."""
    difference, against = chosen.difference, named(chosen)
    n = len(difference.differences)
    grounds = _grounds(summaries, chosen, count)
    subject = _subject(summaries, chosen.label)
    side = "above" if difference.mean > 0 else "below"
    stands = f"{subject} is {abs(difference.mean):.1f} mIoU {side} {against} ({grounds})"
    if difference.mean == 0:
        stands = f"{subject} equals {against} ({grounds})"
    tone: Tone = "unclear"
    details = []
    if chosen.itself:
        headline = f"{subject}: no clear difference from {against} ({grounds})"
        details.append(
            f"It has the same settings as {against}, so any difference ({signed(difference.mean)} mIoU) is "
            "chance: this tests the comparison itself."
        )
    elif n == 1:
        headline = f"{stands}: this may be chance"
    elif not difference.clear:
        headline = f"{subject}: no clear difference from {against} ({grounds})"
        details.append(f"Mean difference {signed(difference.mean)} mIoU.")
    elif p is None or p >= 0.05:
        many = f"{compared} {kind}" if compared > 1 else f"{count} controls"
        headline = f"{stands}: this may be chance, as {many} were compared"
    else:
        headline = stands
        tone = "better" if difference.mean > 0 else "worse"
    details += _chance(difference, p, compared, named(chosen, "the control"), kind)
    if scenes := scenes_in_words(summaries, chosen.label, chosen.reference):
        details.append(scenes)
    return tone, headline, details


def _subject(summaries: Sequence[RunSummary], label: str) -> str:
    tests = by_label(summaries)[label][0].tests
    return label if tests is None else f"{label} (placebo of {tests})"


def _grounds(summaries: Sequence[RunSummary], chosen: Contrast, controls: int) -> str:
    """What a difference was measured on, such as "mean of 3 seeds, 101 images"."""
    images = image_count(summaries, chosen.label, chosen.reference)
    parts = [_over(chosen.difference)]
    if images is not None:
        parts.append(f"{images:,} image{'s' * (images != 1)}")
    if controls > 1:
        parts.append(f"the strictest of {controls} controls")
    return ", ".join(parts)


def _over(difference: Paired) -> str:
    n, folds = len(difference.differences), len(difference.folds)
    if folds:
        return f"mean of {folds} folds, {n} paired runs"
    return "1 seed" if n == 1 else f"mean of {n} seeds"


def image_count(
    summaries: Sequence[RunSummary], label: str, reference: str | None = None
) -> int | None:
    """How many images two labels were measured on, over all folds; None if unknown or not the same in all runs."""
    counts: dict[str, set[int | None]] = {}
    for run in (run for pair in seed_pairs(summaries, label, reference) for run in pair):
        counts.setdefault(run.fold, set()).add((run.evaluation or {}).get("images"))
    known = [next(iter(found)) for found in counts.values() if len(found) == 1]
    if not counts or len(known) < len(counts) or None in known:
        return None
    return sum(count for count in known if count is not None)


def _chance(
    difference: Paired, p: float | None, compared: int, control: str, kind: str
) -> list[str]:
    n = len(difference.differences)
    if difference.half_width is None or difference.low is None or difference.high is None:
        return _folds(difference)
    seeds = ", ".join(signed(value) for value in difference.differences)
    sentences = [*_folds(difference), f"Each {_unit(difference)}: {seeds}."]
    if not any(difference.differences):
        return [*sentences, f"The mIoU is the same in every {_unit(difference)}."]
    for side, holds in (
        ("above", min(difference.differences) > 0),
        ("below", max(difference.differences) < 0),
    ):
        if holds:
            sentences.append(
                f"{side.capitalize()} {control} in all {n} {_unit(difference)}s; without any effect the "
                f"chance of that is 1 in {2**n}."
            )
    sentences.append(
        f"95 % interval of the paired mean: {signed(difference.low)} to {signed(difference.high)}; "
        f"with this spread, {n} {_unit(difference)}s cannot detect gains below {difference.half_width:.1f} mIoU."
    )
    if compared > 1 and p is not None:
        sentences.append(
            f"Paired t test with Holm's correction for {compared} {kind}: {p_text(p)}."
        )
    return sentences


def _unit(difference: Paired) -> str:
    return "paired run" if difference.folds else "seed"


def _folds(difference: Paired) -> list[str]:
    """Each fold's mean, and what the pooled interval leaves out or why there is none."""
    if not difference.folds:
        return []
    listed = ", ".join(f"{name} {signed(value)}" for name, value in difference.folds.items())
    if difference.half_width is None:
        return [f"Each fold: {listed}. With one seed in each fold there is no interval. Add seeds."]
    return [
        f"Each fold: {listed}. The interval is over seeds on these folds, not over other folds."
    ]


def _unpaired_references(
    summaries: Sequence[RunSummary], label: str, found: Sequence[Contrast]
) -> list[str]:
    known = {one.reference for one in found}
    wanted = [*controls(summaries), *placebos(summaries, label)]
    missing = [name for name in wanted if name not in known]
    return [f"Not compared, as they share no seed: {', '.join(missing)}."] if missing else []


def _budget(summaries: Sequence[RunSummary], label: str, reference: str) -> list[str]:
    groups = by_label(summaries)
    runs, control = groups[label], groups[reference]
    name = _in_role(summaries, reference)
    steps = {run.steps for run in runs}, {run.steps for run in control}
    sentences = []
    if steps[0] != steps[1] and None not in steps[0] | steps[1]:
        counts = [" / ".join(f"{count:,}" for count in sorted(filter(None, one))) for one in steps]
        told = f"The steps differ: {counts[0]} steps, and {counts[1]} for {name}"
        sentences.append(f"{told}{_in_time(summaries, label, reference)}.")
    if unlike := unlike_in_words(runs[0].recipe, control[0].recipe):
        sentences.append(unlike)
    sentences += _times(summaries, label, reference)
    unpaired = sorted(by_seed(runs).keys() ^ by_seed(control).keys(), key=lambda s: (len(s), s))
    if unpaired:
        sentences.append(f"Not in the difference, since unpaired: seed {', '.join(unpaired)}.")
    return sentences


def _in_time(summaries: Sequence[RunSummary], label: str, reference: str) -> str:
    """That both trained for about as long, as in a comparison at equal time; "" if not, or not known."""
    groups = by_label(summaries)
    if why_times_differ([*groups[reference], *groups[label]]):
        return ""
    one, other = (
        mean_of_known(
            r.seconds_per_step * r.steps for r in groups[each] if r.seconds_per_step and r.steps
        )
        for each in (label, reference)
    )
    if not one or not other or not 1 / 1.1 <= one / other <= 1.1:
        return ""
    return f", in {one / other:.2f} times the time"


def _in_role(summaries: Sequence[RunSummary], reference: str) -> str:
    role = by_label(summaries)[reference][0].role
    return control_in_words(reference, "the control") if role == "control" else reference


def _times(summaries: Sequence[RunSummary], label: str, reference: str) -> list[str]:
    groups = by_label(summaries)
    times = [
        mean_of_known(run.seconds_per_step for run in groups[one]) for one in (label, reference)
    ]
    if not times[0] or not times[1]:
        return []
    if why := why_times_differ([*groups[reference], *groups[label]]):
        return [f"Times are not comparable: {why}."]
    steps = [mean_of_known(run.steps for run in groups[one]) or 1.0 for one in (label, reference)]
    if times[0] <= 1.05 * times[1] or times[0] * steps[0] <= 1.1 * times[1] * steps[1]:
        return []
    name, ratio = _in_role(summaries, reference), times[0] / times[1]
    return [
        f"A step takes {ratio:.1f} times as long as {name}'s; in the same time {name} could run "
        f"{ratio:.1f} times as many steps."
    ]
