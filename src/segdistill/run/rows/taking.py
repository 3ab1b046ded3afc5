"""A run of a comparison: trained here, or taken over from a record that another machine left."""

import logging

from segdistill.config import Recipe
from segdistill.run.folder import RunFolder, measured_at
from segdistill.run.identity import check_resumable, read_identity
from segdistill.run.opening import with_teacher_classes
from segdistill.run.training.checks import check_seen_sets
from segdistill.run.training.train import open_folder, open_job, train

_log = logging.getLogger(__name__)
_MADE_ANEW = {"teacher", "student_start"}
"""What another machine may compute with other bits from the same recipe."""


def measured_run(recipe: Recipe) -> RunFolder | None:
    """The run in a recipe's folder if it has its metrics, with or without weights; None otherwise."""
    return measured_at(str(recipe.out))


def obtain(recipe: Recipe, progress: bool = True) -> RunFolder:
    """Train a run, hand it back if it is finished, or take it over if only its record is there.

    Args:
        recipe: The recipe, with its folder in `out`.
        progress: As for `train`.

    Raises:
        IdentityDiffers: What stands in the folder was made of another student, teacher or data set. A record
            may come from a teacher and start weights with other bits: see `rows.seeds`.
        ValueError: As for `train`; or the record lacks an evaluation set.
    """
    run = measured_run(recipe)
    if run is None or not run.recorded:
        return train(recipe, progress=progress)
    other = _check_record(run, with_teacher_classes(recipe))
    _log.info(
        "%s is taken over from its record, which has no weights%s",
        run.path,
        f"; {other}" if other else "",
    )
    return run


def _check_record(run: RunFolder, recipe: Recipe) -> str:
    """What another machine made with other bits, in words."""
    open_folder(recipe, run.path)
    job = open_job(recipe, run.path)
    check_resumable(run, job.identity, _MADE_ANEW)
    run.check_weights()
    check_seen_sets(job)
    known = run.sets()
    for name in job.sets:
        digest = job.set_digest(name)
        if name not in known or (known[name].get("of") or {}).get("data") != digest:
            raise ValueError(
                f"{run.path} is a record without weights and was not measured on evaluation set {name!r} as it "
                "is now. Remove the set or the record"
            )
    recorded = read_identity(run)
    taught_by = None if recorded is None else recorded.teacher
    return "its teacher had other bits than the one here" * (taught_by != job.identity.teacher)
