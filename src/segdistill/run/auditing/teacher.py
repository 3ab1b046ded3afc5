"""When a teacher is too poor to learn from, and how that is reported."""

from collections.abc import Callable, Sequence

from jaxtyping import Int64
from torch import Tensor

from segdistill.run.auditing.suspects import Cause

LOW = 50.0
"""Below this mIoU in per cent a teacher without a record of its own is asked whether it is misread."""
_LOSS = 2.0
"""Points below its own record from which on a teacher is asked the same."""
_MUCH = 0.8
"""Fraction of its own record below which a teacher is warned about."""


def chance(confusion: Int64[Tensor, "k k"]) -> float:
    """mIoU in per cent of the best constant answer on these labels: the commonest class everywhere.

    Example:
        >>> import torch
        >>> chance(torch.tensor([[3, 0], [1, 0]]))
        37.5
    """
    labelled = confusion.sum(1)
    defined = int((labelled > 0).sum())
    return float(100 * labelled.max() / labelled.sum() / max(defined, 1))


def refusal(percent: float, least: float | None, confusion: Int64[Tensor, "k k"] | None) -> str:
    """Why a teacher of this mIoU (0 to 100) is refused; "" if it is accepted.

    Args:
        percent: Its mIoU.
        least: `teacher.min_miou`.
        confusion: Its confusion matrix on this data; None: not known.
    """
    if least is not None:
        return f"expected at least {least} (teacher.min_miou)" if percent < least else ""
    if confusion is None:
        return ""
    predicted = int((confusion.sum(0) > 0).sum())
    if predicted == 1 and int((confusion.sum(1) > 0).sum()) > 1:
        return "it predicts one class everywhere"
    level = chance(confusion)
    if percent <= level:
        return f"expected better than chance ({level:.1f}, the commonest class everywhere)"
    return ""


def one_sided(counts: Int64[Tensor, "k"], classes: Sequence[str]) -> str:
    """Why a teacher cannot be trusted whose answer is one class; "" if it is several.

    Without labels this is all that tells a useless teacher: a student agrees with it fully.

    Args:
        counts: How many pixels it gives each class.
        classes: Names of the classes.
    """
    if int((counts > 0).sum()) != 1 or len(classes) < 2:
        return ""
    return (
        f"the teacher predicts {classes[int(counts.argmax())]} at every pixel; expected several classes. Check its "
        "weights, its input and the order of its classes, since a student agrees with any such teacher"
    )


def judged(
    percent: float,
    least: float | None,
    confusion: Int64[Tensor, "k k"] | None,
    record: float | None,
    search: Callable[[], Cause | None],
    thorough: bool = False,
) -> tuple[str, str]:
    """What is wrong with a teacher, as `segdistill check` and a training find it alike.

    The cause is looked for where the teacher is poor: refused, clearly below the mIoU that its own run
    recorded, or, without a record, below `LOW`. `teacher.min_miou: 0` accepts any teacher.

    Args:
        percent: Its mIoU on this data, 0 to 100.
        least: `teacher.min_miou`.
        confusion: Its confusion matrix; None: not known.
        record: The mIoU that its own run recorded, 0 to 100; None: it has none.
        search: Looks for the reading that measures clearly more.
        thorough: Look for it in a teacher without a record, whatever it measures.

    Returns:
        Why it is refused and what to do, and a warning; "" for each that there is not.
    """
    refused = refusal(percent, least, confusion)
    poor = percent < LOW if record is None else percent < record - _LOSS
    # A teacher that is as good as its own run recorded is read as it was trained: what scores higher is chance.
    asked = thorough and record is None
    cause = search() if asked or ((thorough or least != 0) and (refused or poor)) else None
    start = f"the teacher's mIoU is {percent:.2f}; "
    if refused or cause is not None:
        return f"{start}{explained(refused, cause)}", ""
    if record is not None and percent < _MUCH * record:
        return "", f"{start}its own run recorded {record:.2f}. Check that data and size suit it"
    return "", ""


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
