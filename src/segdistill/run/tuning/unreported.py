"""Whether tuning evaluates on images that a figure is reported on, or that the teacher was trained on."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from segdistill.config import DataConfig, Recipe
from segdistill.data.dataset import list_names
from segdistill.data.samples import read_sample
from segdistill.run.comparing.folds import fold_recipes
from segdistill.run.folder import RunFolder
from segdistill.run.identity.data import pairs_of
from segdistill.run.identity.digests import file_digests
from segdistill.run.opening import open_split, set_data

_log = logging.getLogger(__name__)


def check_unreported(recipe: Recipe, tuning: Recipe) -> None:
    """Refuse to tune on images that the recipe reports, and warn of those that the teacher learnt from.

    Args:
        recipe: The recipe whose settings are chosen.
        tuning: The same recipe on the data that it is tuned on.

    Raises:
        ValueError: Both evaluate on the same images.
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
    learnt = shared_images(used, _teachers_images(tuning))
    if learnt:
        _log.warning(
            "the teacher was trained on %d of the images that tuning evaluates on (%s), so it may look better "
            "there than where figures are reported. Set tuning.teacher to one that was not",
            len(learnt),
            list_names(learnt),
        )


def _teachers_images(recipe: Recipe) -> Any:
    """The images that the teacher's run was trained on; none where that cannot be told."""
    if recipe.teacher is None or recipe.teacher.run is None:
        return ()
    try:
        return open_split(RunFolder(recipe.teacher.run).recipe().data, "train", labelled=False)
    except (OSError, ValueError):
        return ()


def shared_images(one: Any, other: Any) -> list[str]:
    """Names of the samples of `one` whose image is also in `other`.

    Files are told apart by their bytes. Samples without files are the same if they share their name
    and the first of these have the same image.

    Args:
        one: A data set.
        other: Another one; empty for none.
    """
    if len(other) == 0:
        return []
    mine, theirs = pairs_of(one), pairs_of(other)
    if mine[0] is not None and theirs[0] is not None:
        known = set(file_digests([pair.image for pair in theirs[1]]))
        digests = file_digests([pair.image for pair in mine[1]])
        return [p.name for p, digest in zip(mine[1], digests, strict=True) if digest in known]
    places = {name: place for place, name in enumerate(_names(other))}
    shared = [(i, places[name]) for i, name in enumerate(_names(one)) if name in places]
    if not shared or not _same_image(one, other, *shared[0]):
        return []
    names = _names(one)
    return [names[place] for place, _ in shared]


def _names(dataset: Any) -> Sequence[str]:
    names = getattr(dataset, "names", None)
    return [str(place) for place in range(len(dataset))] if names is None else list(names)


def _same_image(one: Any, other: Any, place: int, other_place: int) -> bool:
    images = read_sample(one, place)[0], read_sample(other, other_place)[0]
    return images[0].shape == images[1].shape and bool(torch.equal(*images))
