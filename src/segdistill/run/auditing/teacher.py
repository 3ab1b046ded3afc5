"""When a teacher is too poor to learn from, and how that is reported."""

from segdistill.run.auditing.suspects import Cause

CHANCE = 5.0
"""A teacher below this mIoU in per cent, and below 100 / number of classes, is no better than chance."""


def refusal(percent: float, least: float | None, classes: int) -> str:
    """Why a teacher of this mIoU (0 to 100) is refused; "" if it is accepted.

    Args:
        percent: Its mIoU.
        least: `teacher.min_miou`.
        classes: Number of classes.
    """
    if least is not None:
        return f"expected at least {least} (teacher.min_miou)" if percent < least else ""
    return "expected better than chance" if percent < min(100 / classes, CHANCE) else ""


def explained(refused: str, cause: Cause | None) -> str:
    """What is wrong with a teacher and what to do, in one line."""
    if cause is not None:
        return f"{refused or 'expected more, as its classes or input are misread'}. {cause}"
    suspects = "its weights, the order of its channels and classes, and its normalisation"
    override = "" if "min_miou" in refused else " (to continue anyway, set teacher.min_miou to 0)"
    return f"{refused}. Check {suspects}{override}"


def unmeasurable(least: float | None, split: str) -> str:
    """Why a lowest mIoU cannot be checked on a split without labels; "" if none is set."""
    if not least:
        return ""
    return (
        f"teacher.min_miou is {least}, but {split} has no labels to check it on. Leave it out, or "
        "name a labelled data.val_split"
    )
