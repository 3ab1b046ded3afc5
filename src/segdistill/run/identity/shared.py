"""Images that two data sets have in common, or that a teacher was trained on."""

from collections.abc import Sequence
from typing import Any

import torch

from segdistill.config import Recipe, TeacherConfig
from segdistill.data.pair import Pair
from segdistill.data.samples import read_sample
from segdistill.run.folder import RunFolder
from segdistill.run.identity.data import pairs_of
from segdistill.run.identity.digests import file_digests
from segdistill.run.opening import open_split


def shared_pairs(one: Sequence[Pair], other: Sequence[Pair]) -> list[tuple[str, str]]:
    """Names in both lists of the images of `one` whose file has the bytes of one in `other`.

    Args:
        one: Pairs of files.
        other: Other pairs. Of several with the same image the first is named.

    Raises:
        OSError: A file cannot be read.
    """
    ours, theirs = (file_digests([pair.image for pair in pairs]) for pairs in (one, other))
    names: dict[str, str] = {}
    for digest, pair in zip(theirs, other, strict=True):
        names.setdefault(digest, pair.name)
    return [
        (pair.name, names[digest])
        for digest, pair in zip(ours, one, strict=True)
        if digest in names
    ]


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
        return [name for name, _ in shared_pairs(mine[1], theirs[1])]
    places = {name: place for place, name in enumerate(_names(other))}
    shared = [(i, places[name]) for i, name in enumerate(_names(one)) if name in places]
    if not shared or not _same_image(one, other, *shared[0]):
        return []
    names = _names(one)
    return [names[place] for place, _ in shared]


def learnt_by_teacher(teacher: TeacherConfig | None, dataset: Any) -> list[str]:
    """Names of the samples whose image the teacher's run was trained on; none where that cannot be told."""
    if teacher is None or teacher.run is None or teacher.random:
        return []
    try:
        learnt = trained_on(RunFolder(teacher.run).recipe())
    except (OSError, ValueError):
        return []
    return [] if learnt is None else shared_images(dataset, learnt)


def trained_on(recipe: Recipe) -> Any | None:
    """The training split of a recipe; None where it cannot be opened, as where it was moved."""
    try:
        return open_split(recipe.data, "train", labelled=False)
    except (OSError, ValueError):
        return None


def _names(dataset: Any) -> Sequence[str]:
    names = getattr(dataset, "names", None)
    return [str(place) for place in range(len(dataset))] if names is None else list(names)


def _same_image(one: Any, other: Any, place: int, other_place: int) -> bool:
    images = read_sample(one, place)[0], read_sample(other, other_place)[0]
    return images[0].shape == images[1].shape and bool(torch.equal(*images))
