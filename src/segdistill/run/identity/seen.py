"""Whether a network is measured on images that it or its teacher was trained on."""

import logging
from collections.abc import Sequence
from typing import Any

from torch.utils.data import Subset

from segdistill.config import Recipe, TeacherConfig
from segdistill.data.dataset import list_names
from segdistill.data.pair import Pair
from segdistill.run.identity.data import handed_on, pairs_of
from segdistill.run.identity.shared import learnt_by_teacher, shared_pairs, trained_on

_log = logging.getLogger(__name__)


def check_seen(
    recipe: Recipe, train_set: Any, name: str, dataset: Any, further: bool, claimed: bool = False
) -> None:
    """Warn of images that a run or its teacher was trained on, before a network is measured on them.

    Args:
        recipe: The run's recipe.
        train_set: What it is trained on; None: not known.
        name: What messages call the data that is measured on.
        dataset: That data.
        further, claimed: As for `judged_shared`.

    Raises:
        OSError: A file cannot be read.
        ValueError: The run is trained on images that are meant to be held out.
    """
    if train_set is not None:
        train = recipe.data.train_split, train_set
        refused, warning = judged_shared(train, (name, dataset), further, claimed)
        if refused:
            raise ValueError(refused)
        _warn(warning)
    _warn(learnt_already(recipe.teacher, name, dataset))


def check_seen_by(recipe: Recipe, name: str, dataset: Any, claimed: bool = False) -> None:
    """As `check_seen`, for a further set and a run whose training data is opened, where it is at hand."""
    check_seen(recipe, trained_on(recipe), name, dataset, True, claimed)


def learnt_already(teacher: TeacherConfig | None, name: str, dataset: Any) -> str:
    """A warning where a teacher was trained on images that its student is measured on; "" where it was not."""
    learnt = learnt_by_teacher(teacher, dataset)
    return (
        f"the teacher was trained on {len(learnt)} image{'s' * (len(learnt) != 1)} of {name} "
        f"({list_names(learnt)}), so it and what learns from it look better there than on new images. Measure "
        "on others, or name a teacher that has not seen them"
        if learnt
        else ""
    )


def judged_shared(
    train: tuple[str, Any], val: tuple[str, Any], further: bool = False, claimed: bool = False
) -> tuple[str, str]:
    """What is wrong with images that are in both splits, as `check` and a training find it alike.

    Images are compared by the bytes of their files; only pairs of files are, and subsets of them.

    Args:
        train: Name and data set of the training split.
        val: The same for the evaluation split. Naming the training split for both is taken as intended.
        further: It is a further evaluation set, whose images may be trained on.
        claimed: It is the one that claims are made on, whose images may not.

    Returns:
        Why it is refused and what to do, and a warning; "" for each that there is not.

    Raises:
        OSError: A file cannot be read.
    """
    shared = [
        name if name == trained else f"{name} = {trained}"
        for name, trained in shared_pairs(_unchanged_pairs(val[1]), _unchanged_pairs(train[1]))
    ]
    if not shared:
        return "", ""
    start = (
        f"{len(shared)} image{'s' * (len(shared) > 1)} of {val[0]} {'are' if shared[1:] else 'is'} also in "
        f"{train[0]} ({list_names(shared)}); metrics on them are meaningless"
    )
    if claimed:
        return f"{start}. Name another set in claims_on", ""
    if further or train[0] == val[0] or train[1] is val[1]:
        return "", f"{start}. Name another split for evaluation, unless this is intended"
    return (
        f"{start}. Remove them from one split, or set data.val_split to {train[0]} to measure on training "
        "images on purpose",
        "",
    )


def warn_of_same_samples(train_set: Any, val_set: Any, alike: bool) -> None:
    """Warn where samples of a set without files of ours are trained on and measured on.

    Args:
        train_set: What is trained on.
        val_set: What is measured on.
        alike: Whether both have the same digest, as two objects of the same data have.
    """
    if handed_on(train_set) or handed_on(val_set):
        return  # their files are compared
    (trained, places), (measured, others) = _samples_of(train_set), _samples_of(val_set)
    shared = len({*places} & {*others}) if trained is measured else len(others) * alike
    if shared:
        _log.warning(
            "%d of the %d samples that are measured on are also trained on; metrics on them are meaningless. Hold "
            "some out, unless this is intended",
            shared,
            len(others),
        )


def _samples_of(dataset: Any) -> tuple[Any, Sequence[int]]:
    """The set behind subsets, and which of its samples they are."""
    places: Sequence[int] = range(len(dataset))
    while isinstance(dataset, Subset) or getattr(dataset, "only_declares", False):
        if isinstance(dataset, Subset):
            places = [dataset.indices[place] for place in places]
        dataset = dataset.dataset
    return dataset, places


def _unchanged_pairs(dataset: Any) -> Sequence[Pair]:
    """The files behind a data set; none where samples may be changed."""
    if isinstance(dataset, list):
        return dataset
    return pairs_of(dataset)[1] if handed_on(dataset) else ()


def _warn(warning: str) -> None:
    if warning:
        _log.warning("%s", warning)
