"""One sentence on what a student costs and keeps."""

from collections.abc import Mapping, Sequence
from typing import Any

from segdistill.run.reporting.notation import factor, spread
from segdistill.run.reporting.statistics import mean, sd
from segdistill.run.reporting.summary import (
    RunSummary,
    by_label,
    claims_on,
    judged,
    mean_of_known,
    same_view,
)


def gist(summaries: Sequence[RunSummary], subject: str) -> str | None:
    """One sentence on size, speed and mIoU of a student relative to its teacher, and how they were measured.

    Unknown parts are left out: speed without latencies measured side by side, mIoU if the two were
    evaluated on different images or at different inputs. mIoU is that of the set that claims are made on.

    Args:
        summaries: The runs.
        subject: Label of the student.

    Returns:
        For example "idd: 12.2× smaller, 7.5× faster, keeps 88.2 % of the teacher's mIoU (..)"; None if
        nothing is known.
    """
    name, groups = claims_on(summaries), by_label(judged(summaries))
    if subject not in groups or "teacher" not in groups:
        return None
    pair = groups["teacher"], groups[subject]
    known = [_smaller(*pair), _faster(*pair), _kept(*pair, f" on {name}" if name else "")]
    claims = [claim for claim, _ in filter(None, known)]
    grounds = "; ".join(ground for _, ground in filter(None, known))
    return f"{subject}: {', '.join(claims)} ({grounds})" if claims else None


_Part = tuple[str, str] | None
"""a claim, and how it was measured"""


def _smaller(teacher: Sequence[RunSummary], student: Sequence[RunSummary]) -> _Part:
    one, other = (_profile(runs).get("parameters") for runs in (teacher, student))
    return (factor(one / other, "smaller", "larger"), "parameters") if one and other else None


def _faster(teacher: Sequence[RunSummary], student: Sequence[RunSummary]) -> _Part:
    profiles = [_profile(runs) for runs in (teacher, student)]
    one, other = (profile.get("latency_ms_median") for profile in profiles)
    # Times from different machines, thread counts or sizes are not comparable.
    settings = [[p.get(key) for key in ("size", "device", "threads")] for p in profiles]
    size, device, count = settings[0]
    if not one or not other or not size or settings[0] != settings[1]:
        return None
    where = f"{size[0]} × {size[1]} on {device}, {count} thread{'s' * (count != 1)}"
    return factor(one / other, "faster", "slower"), f"median latency of one image, {where}"


def _kept(teacher: Sequence[RunSummary], student: Sequence[RunSummary], on: str) -> _Part:
    if not all(same_view(teacher[0].view, run.view) for run in (*teacher, *student)):
        return None
    whole = mean_of_known(run.miou for run in teacher)
    shares = [100 * run.miou / whole for run in student if run.miou is not None and whole]
    if not shares:
        return None
    verb = "keeps" if mean(shares) <= 100 else "reaches"
    seeds = f"mean ± sd of {len(shares)} seeds" if len(shares) > 1 else "one seed"
    share = spread(mean(shares), sd(shares))
    return f"{verb} {share} % of the teacher's mIoU", f"mIoU{on}: {seeds}"


def _profile(runs: Sequence[RunSummary]) -> Mapping[str, Any]:
    return next((run.profile for run in runs if run.profile), {})
