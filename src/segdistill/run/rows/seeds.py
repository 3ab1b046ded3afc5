"""The seeds of a comparison whose rows share one teacher and one start, bit for bit."""

import logging
from collections.abc import Callable, Sequence
from itertools import count

from segdistill.config import Recipe
from segdistill.run.folder import RunFolder
from segdistill.run.identity import IdentityDiffers, read_identity
from segdistill.run.identity.digests import state_digest
from segdistill.run.networks import build_student, load_teacher
from segdistill.run.opening import open_split, with_teacher_classes
from segdistill.run.rows.taking import measured_run

_log = logging.getLogger(__name__)


def complete_seeds(
    recipes_of: Callable[[int], Sequence[Recipe]], first: int, number: int
) -> list[int]:
    """The seeds of a comparison: those from `first` on whose rows can share one teacher and one start.

    A seed that another machine began has records of some rows. Where this machine's teacher or the student's
    start has other bits, the missing rows would be paired with rows of other origin, so that seed is left as it
    is and a further one is opened. A seed without records is trained as usual.

    Args:
        recipes_of: Gives the recipes of a seed, one per row.
        first: The first seed.
        number: How many are wanted.

    Raises:
        IdentityDiffers: The rows of a seed were not all made with one teacher and one start.
    """
    chosen: list[int] = []
    seeds = count(first)
    while len(chosen) < number:
        seed = next(seeds)
        if _can_be_completed(seed, recipes_of(seed)):
            chosen.append(seed)
    return chosen


def _can_be_completed(seed: int, recipes: Sequence[Recipe]) -> bool:
    runs = [measured_run(recipe) for recipe in recipes]
    made = [run for run in runs if run is not None]
    if not any(run.recorded for run in made):
        return True
    # Those with weights as well: this machine may have trained them before the records came.
    origin = _shared(made)
    lacking = [recipe for recipe, run in zip(recipes, runs, strict=True) if run is None]
    differ = _differences(origin, lacking) if lacking else ""
    if differ:
        _log.warning(
            "seed %d is left as it is, with %d of %d rows: %s of this machine has other bits than that of the "
            "rows on record, so a further seed is opened",
            seed,
            len(made),
            len(recipes),
            differ,
        )
    return not differ


_Origin = tuple[str | None, str | None]
"""digests of the teacher (None: a row without one) and of the student's start"""


def _origin(run: RunFolder) -> _Origin:
    identity = read_identity(run)
    return (None, None) if identity is None else (identity.teacher, identity.student_start)


def _shared(rows: Sequence[RunFolder]) -> _Origin:
    """The one teacher and the one start of a seed's rows."""
    # A placebo's random teacher is not the one that the rows share.
    origins = {_origin(run) for run in rows if not run.recipe().random_teacher}
    teachers = {teacher for teacher, _ in origins if teacher}
    starts = {start for _, start in origins if start}
    for what, found in (("teacher", teachers), ("start of the student", starts)):
        if len(found) > 1:
            raise IdentityDiffers(
                f"the rows of seed {rows[0].seed} in {rows[0].path.parent}, some of them on record, were not made "
                f"with one {what}. Remove those of all but one machine"
            )
    return next(iter(teachers), None), next(iter(starts), None)


def _differences(made: _Origin, lacking: Sequence[Recipe]) -> str:
    """What this machine makes with other bits, in words; empty if nothing."""
    teacher, start = made
    taught = [one for one in lacking if one.teacher is not None and not one.random_teacher]
    recipe = with_teacher_classes((taught or lacking)[0])
    classes = [str(name) for name in open_split(recipe.data, "train", labelled=False).classes]
    student = state_digest(build_student(recipe.student, len(classes), recipe.train.seed))
    found = []
    if teacher is not None and _teacher_digest(recipe, classes) not in (None, teacher):
        found.append("the teacher")
    if start is not None and student != start:
        found.append("the start of the student")
    return " and ".join(found)


def _teacher_digest(recipe: Recipe, classes: Sequence[str]) -> str | None:
    teacher = recipe.teacher
    if teacher is None or teacher.random:
        return None
    return state_digest(load_teacher(teacher, classes)[0])
