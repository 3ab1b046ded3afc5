"""Which samples of a data set have labels, where only some do."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Subset

from segdistill.data.dataset import SegmentationDataset
from segdistill.data.randomness import key_number
from segdistill.data.reading.listing import list_lines, without_comment
from segdistill.data.samples import hands_on
from segdistill.names import unknown

Labelled = str | int | float | list[str]
"""How the option `labelled` names the samples that keep their labels."""


def labelled_samples(dataset: Any) -> list[bool]:
    """Whether each sample of a data set has labels.

    A data set says so with `labelled_samples`, one truth value per sample, or with `labelled = False`
    for none; any other has labels throughout.

    Raises:
        ValueError: `labelled_samples` has another length than the data set.
    """
    count = len(dataset)
    if isinstance(dataset, Subset) and hands_on(dataset):
        inside = labelled_samples(dataset.dataset)
        return [inside[index] for index in dataset.indices]
    if not getattr(dataset, "labelled", True):
        return [False] * count
    declared = getattr(dataset, "labelled_samples", None)
    if declared is None:
        return [True] * count
    flags = [bool(flag) for flag in declared]
    if len(flags) != count:
        raise ValueError(
            f"labelled_samples has {len(flags)} entries; expected one for each of the {count} samples"
        )
    return flags


def keep_labels(
    dataset: SegmentationDataset, labelled: Labelled, seed: int = 0, root: str | Path | None = None
) -> None:
    """Keep the labels of some samples of a data set, and take those of all others away.

    Args:
        dataset: The data set; samples without labels stay so.
        labelled: A number of samples (integer), a fraction of them (a floating-point number above 0, up to
            1), their names, or a text file of names, one per line, relative to `root`. A number or fraction
            takes the samples of lowest hash of name and seed, so that a greater one includes a smaller
            one, and adding files hardly moves the others.
        seed: Selects the samples of a number or fraction.
        root: Folder of the data set.

    Raises:
        FileNotFoundError: There is no such file of names.
        ValueError: The number is out of range, or a name is unknown or belongs to a sample without labels.
    """
    flags = labelled_samples(dataset)
    there = [index for index, flag in enumerate(flags) if flag]
    if isinstance(labelled, str):
        names = _names_in(Path(root or ".") / labelled)
        chosen = _named(dataset, names, f"{Path(root or '.') / labelled}")
    elif isinstance(labelled, (int, float)):
        count = _count(labelled, len(there))
        order = sorted(there, key=lambda index: key_number("labelled", seed, dataset.names[index]))
        chosen = order[:count]
    else:
        chosen = _named(dataset, labelled, "labelled")
    without = [dataset.names[index] for index in chosen if not flags[index]]
    if without:
        raise ValueError(
            f"labelled names {without[0]!r}, which has no labels; expected samples with labels. Remove "
            "the name, or add its mask"
        )
    dataset.keep_labels(chosen)


def _count(labelled: float, available: int) -> int:
    if isinstance(labelled, bool):
        raise ValueError(
            f"labelled is {labelled}; expected a number, a fraction, names or a file of names"
        )
    if isinstance(labelled, int):
        if not 1 <= labelled <= available:
            raise ValueError(
                f"labelled is {labelled}; expected 1 to {available}, the samples with labels, or a "
                "fraction with a decimal point, such as 0.1"
            )
        return labelled
    if not 0 < labelled <= 1:
        raise ValueError(f"labelled is {labelled}; expected a fraction above 0, at most 1")
    return max(1, round(labelled * available))


def _names_in(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file. Set `labelled` to a text file of names relative to root, a number or a "
            "fraction"
        )
    return [text for _, line in list_lines(path) if (text := without_comment(line))]


def _named(dataset: SegmentationDataset, names: Sequence[str], source: str) -> list[int]:
    places = {name: index for index, name in enumerate(dataset.names)}
    for name in names:
        if _plain(name, places) not in places:
            raise ValueError(f"{source}: {unknown('sample', str(name), places)}")
    chosen = {places[_plain(name, places)]: None for name in names}
    if not chosen:
        raise ValueError(f"{source} names no samples; expected at least one")
    return list(chosen)


def _plain(name: str, known: Collection[str]) -> str:
    """A name as the data set has it: an ending such as .png may be left on."""
    text = str(name)
    return text if text in known else Path(text).with_suffix("").as_posix()
