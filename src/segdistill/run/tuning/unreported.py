"""Whether tuning evaluates on images that a figure is reported on, or that student or teacher learn from."""

import logging
from pathlib import Path

from segdistill.config import DataConfig, Recipe
from segdistill.data.dataset import list_names
from segdistill.run.comparing.folds import fold_recipes
from segdistill.run.identity.shared import learnt_by_teacher, shared_images
from segdistill.run.opening import open_split, set_data

_log = logging.getLogger(__name__)


def check_unreported(recipe: Recipe, tuning: Recipe) -> None:
    """Refuse to tune on images that the recipe reports or tuning trains on; warn of those the teacher learnt from.

    Args:
        recipe: The recipe whose settings are chosen.
        tuning: The same recipe on the data that it is tuned on.

    Raises:
        ValueError: Both evaluate on the same images, or tuning trains and evaluates on the same ones.
    """
    used = open_split(tuning.data, "val")
    reported: dict[str, DataConfig] = {}
    for fold, one in fold_recipes(recipe, Path()).items():
        place = f"folds.{fold}" if fold else ""
        reported[f" ({place})" if place else ""] = one.data
        for name, changes in one.evaluation.items():
            where = ": ".join(filter(None, (place, f"evaluation.{name}")))
            reported[f" ({where})"] = set_data(one.data, changes)
    for name, data in reported.items():
        shared = shared_images(used, open_split(data, "val"))
        if shared:
            raise ValueError(
                f"tuning.data evaluates on {len(shared)} images that the recipe itself evaluates on{name}: "
                f"{list_names(shared)}; expected none. Hold out others, such as tuning: {{data: {{val_split: "
                "train, val_options: {groups: [..]}, train_options: {groups: [..]}}}"
            )
    trained = open_split(tuning.data, "train", labelled=False)
    if shared := shared_images(used, trained):
        raise ValueError(
            f"tuning.data trains on {len(shared)} of the images that it evaluates on ({list_names(shared)}); expected "
            "none, as the settings that fit them best are not the best on new ones. Hold some out"
        )
    learnt = learnt_by_teacher(tuning.teacher, used)
    if learnt:
        _log.warning(
            "the teacher was trained on %d of the images that tuning evaluates on (%s), so it may look better "
            "there than where figures are reported. Set tuning.teacher to one that was not",
            len(learnt),
            list_names(learnt),
        )
