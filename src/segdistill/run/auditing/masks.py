"""Reading every mask before a training: a bad one must not surface after the last step."""

import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

from segdistill.data.dataset import PairDataset, SegmentationDataset
from segdistill.data.label_map import MAX_CLASSES, LabelMap
from segdistill.run.auditing.data_audit import Findings, Split, judge, split_of
from segdistill.run.auditing.survey import Survey, survey
from segdistill.run.identity.data import data_digest
from segdistill.run.identity.digests import (
    known_answer,
    known_fact,
    remember_answer,
    remember_fact,
)

_log = logging.getLogger(__name__)
_CHECKED = "masks, fourth edition"
"""What is remembered; a new edition of the checks reads masks again that passed an earlier one."""
_COUNTED = "class pixels"
"""How often each class occurs, as it is remembered."""


def check_masks(
    splits: Sequence[tuple[str, Any]],
    digest: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Read every mask of these splits and refuse what `segdistill check` calls a problem, in its words.

    Files are read in parallel, images only as far as tells whether they can be decoded. What passed is
    remembered by the data's digest, so that the next training on the same bytes reads nothing. The first one
    logs what `check` warns of, such as classes without a pixel. Of a data
    set that is neither files nor ours every sample is read.

    Args:
        splits: Each split's name and data set.
        digest: Digest of their content (`data_digest`); None: nothing is remembered.
        progress: Called with (done, total) after each mask.

    Raises:
        ValueError: Masks cannot be read, hold undeclared ids, have another size than their image, or it
            is unclear which class an id is; one line, with the files of each cause.
    """
    fact = f"{_CHECKED} {digest}"
    if digest is not None and known_fact(fact):
        return
    found = [
        _described(name, dataset)
        for name, dataset in splits
        if isinstance(dataset, PairDataset) or not isinstance(dataset, SegmentationDataset)
    ]
    surveys, warnings = _sound_surveys(found, progress)
    for warning in warnings:
        _log.warning("%s", warning)
    if digest is not None:
        remember_fact(fact)
        for split, one in zip(found, surveys, strict=True):
            _remember_pixels(data_digest(split.dataset), one)


def class_pixels(
    name: str,
    dataset: Any,
    digest: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[int]:
    """Pixels of each class in the masks of a split, at their own size; ignored ones are left out.

    What `check_masks` has read is not read again.

    Args:
        name: The split's name.
        dataset: Its data set.
        digest: Digest of its content (`data_digest`); None: nothing is remembered.
        progress: Called with (done, total) after each mask.

    Raises:
        ValueError: As for `check_masks`, or no pixel has a class.
    """
    known = None if digest is None else known_answer(f"{_COUNTED} {digest}")
    if known is None:
        (one,), _ = _sound_surveys([_described(name, dataset)], progress)
        pixels: list[int] = one.class_pixels[:-1].tolist()
        _remember_pixels(digest, one)
    else:
        pixels = json.loads(known)
    if not any(pixels):
        raise ValueError(f"{name}: no pixel has a class; expected labels to count classes in")
    return pixels


def _remember_pixels(digest: str | None, one: Survey) -> None:
    if digest is not None:
        remember_answer(f"{_COUNTED} {digest}", json.dumps(one.class_pixels[:-1].tolist()))


def _sound_surveys(
    splits: list[Split], progress: Callable[[int, int], None] | None
) -> tuple[list[Survey], list[str]]:
    """What the splits hold, and warnings; refused where `segdistill check` calls it a problem."""
    findings, surveys = Findings(), _surveys(splits, progress)
    judge(splits, surveys, findings)
    if findings.problems:
        raise ValueError("; ".join(findings.problems))
    return surveys, findings.warnings


def _described(name: str, dataset: Any) -> Split:
    split = split_of(name, dataset)
    if split.label_map is None:
        # Somebody's own data set may name no classes; then ids are only known to be below 255.
        count = getattr(dataset, "num_classes", None)
        if not isinstance(count, int) or not 0 < count <= MAX_CLASSES:
            count = MAX_CLASSES
        split.label_map = LabelMap(None, count)
        split.classes = [f"class{number}" for number in range(split.label_map.num_classes)]
    return split


def _surveys(splits: list[Split], progress: Callable[[int, int], None] | None) -> list[Survey]:
    surveys: list[Survey] = []
    total = sum(len(split.dataset) for split in splits)
    for split in splits:
        before = sum(one.samples for one in surveys)

        def read(done: int, _: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, total)

        surveys.append(
            survey(split.dataset, split.label_map, read, split.orientation, decode=False)
        )
    return surveys
