"""A method against every control and placebo, and which of the controls a verdict rests on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from segdistill.run.comparing import same_settings
from segdistill.run.reporting.notation import difference_text
from segdistill.run.reporting.statistics import Paired
from segdistill.run.reporting.summary import RunSummary, paired_miou, seed_pairs

ReferenceRole = Literal["control", "placebo", "method"]


@dataclass(frozen=True)
class Contrast:
    """One label minus another, paired by seed."""

    label: str
    reference: str
    role: ReferenceRole
    """of the reference"""
    difference: Paired
    itself: bool = False
    """both have the same settings, so that any difference is chance"""


def contrasts(
    summaries: Sequence[RunSummary],
    label: str,
    references: Sequence[str],
    role: ReferenceRole = "control",
) -> list[Contrast]:
    """A label against each of several others; those without a seed in common are left out."""
    found = {name: paired_miou(summaries, label, name) for name in references if name != label}
    return [
        Contrast(label, name, role, difference, _itself(summaries, label, name))
        for name, difference in found.items()
        if difference is not None
    ]


def _itself(summaries: Sequence[RunSummary], label: str, reference: str) -> bool:
    pairs = seed_pairs(summaries, label, reference)
    return all(
        one.recipe is not None
        and other.recipe is not None
        and one.start == other.start
        and same_settings(one.recipe, other.recipe)
        for one, other in pairs
    )


def strictest(found: Sequence[Contrast]) -> Contrast:
    """The contrast that says least for the method.

    That with a control of the same settings, which can only be chance; then a clear loss, an unclear
    difference, the smallest gain.
    """

    def favour(contrast: Contrast) -> tuple[bool, int, float]:
        d = contrast.difference
        return not contrast.itself, 1 if not d.clear else 2 if d.mean > 0 else 0, d.mean

    return min(found, key=favour)


def claim_p(found: Sequence[Contrast]) -> float | None:
    """p value of the claim that the strictest of several contrasts makes; None for one seed.

    Being above *every* control needs each contrast to hold, so the largest p counts (intersection-union
    test: Berger 1982, Multiparameter hypothesis testing and acceptance sampling). Being below *some*
    control is found by looking at all of them, so its p is multiplied by their number (Bonferroni).
    """
    chosen = strictest(found).difference
    if chosen.p is None:
        return None
    if chosen.mean < 0:
        return min(1.0, len(found) * chosen.p)
    return max(c.difference.p for c in found if c.difference.p is not None)


def named(contrast: Contrast, plain: str = "plain training") -> str:
    """The reference of a contrast in a sentence."""
    name = contrast.reference
    return name if contrast.role != "control" else control_in_words(name, plain)


def control_in_words(label: str, plain: str = "plain training") -> str:
    """A control in a sentence; the one that has no label of its own is plain training."""
    return plain if label == "control" else f"the control {label}"


def in_words(contrast: Contrast) -> str:
    """A contrast beside the one of the headline."""
    name = contrast.reference
    against = f"its placebo {name}" if contrast.role == "placebo" else named(contrast)
    text = f"Against {against}: {difference_text(contrast.difference)}"
    if contrast.itself:
        return f"{text}, the same settings."
    if len(contrast.difference.differences) == 1:
        return f"{text} (one seed)."
    return f"{text}." if contrast.difference.clear else f"{text}, not clear."
