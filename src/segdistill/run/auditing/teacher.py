"""When a teacher has nothing to teach, and what is said about it."""

from segdistill.run.auditing.suspects import Cause

CHANCE = 5.0
"""Below this mIoU in per cent, and below one over the number of classes, a teacher knows nothing."""


def refusal(percent: float, least: float | None, classes: int) -> str:
    """Why a teacher of this mIoU (0 to 100) teaches nothing; "" where it may.

    Args:
        percent: Its mIoU.
        least: `teacher.min_miou`.
        classes: Number of classes.
    """
    if least is not None:
        return f"under teacher.min_miou {least}" if percent < least else ""
    return "no better than chance" if percent < min(100 / classes, CHANCE) else ""


def explained(refused: str, cause: Cause | None) -> str:
    """What is wrong with a teacher and what to do, in one line."""
    if cause is not None:
        return f"{refused or 'not read as it was trained'}; {cause}"
    look = "its weights, the order of its channels and classes, and its normalisation"
    go_on = "" if "min_miou" in refused else " (teacher.min_miou 0 goes on all the same)"
    return f"{refused}: look at {look}{go_on}"


def unmeasurable(least: float | None, split: str) -> str:
    """What is wrong with asking a least mIoU of a split without labels; "" where none is asked."""
    if not least:
        return ""
    return (
        f"teacher.min_miou {least} cannot be checked, as {split} has no labels: leave it out, or "
        "name a labelled data.val_split"
    )
