"""Reading every mask before a training: a bad one must not surface after the last step."""

from collections.abc import Callable, Sequence
from typing import Any

from segdistill.data.dataset import PairDataset, SegmentationDataset
from segdistill.data.label_map import MAX_CLASSES, LabelMap
from segdistill.run.auditing.data_audit import Findings, Split, judge, split_of
from segdistill.run.auditing.survey import Survey, survey
from segdistill.run.identity.digests import known_fact, remember_fact

_CHECKED = "masks, second edition"
"""What is remembered; a new edition of the checks reads masks again that passed an earlier one."""


def check_masks(
    splits: Sequence[tuple[str, Any]],
    digest: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Read every mask of these splits and refuse what `segdistill check` calls a problem, in its words.

    Files are read in parallel, images only as far as tells whether they can be decoded. What passed is
    remembered by the data's digest, so that the next training on the same bytes reads nothing. Of a data
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
    findings = Findings()
    judge(found, _surveys(found, progress), findings)
    if findings.problems:
        raise ValueError("; ".join(findings.problems))
    if digest is not None:
        remember_fact(fact)


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
