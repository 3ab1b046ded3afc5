"""The digest of a data set: names and bytes of its files, or three samples where it has none."""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Subset

from segdistill.data.dataset import PairDataset
from segdistill.data.labelled import labelled_samples
from segdistill.data.pair import Pair
from segdistill.data.samples import hands_on, read_sample
from segdistill.run.identity.digests import file_digests, update_with

_log = logging.getLogger(__name__)


def data_digest(dataset: Any, name: str = "the data") -> str | None:
    """What tells one data set from another, wherever its files lie.

    Pairs of files are told apart by their names, the bytes of images and masks, and the mapping of ids to
    classes. Of any other set three samples are read twice, also where it holds pairs of files and may
    change them.

    Args:
        dataset: Any data set that the loaders take.
        name: What the log calls it.

    Returns:
        A SHA-256 in hexadecimal; None where two readings of a sample differ, as they do for a set that
        augments: the log says so.

    Raises:
        OSError: A file cannot be read.
        ValueError: A sample is bad.
    """
    files, pairs = pairs_of(dataset)
    of_files = None if files is None else _digest_of_pairs(files, pairs)
    if of_files is not None and handed_on(dataset):
        return of_files
    once, twice = (_digest_of_samples(dataset) for _ in range(2))
    if once != twice:
        _log.warning("%s: data not checked, as two readings of one sample differ", name)
        return None
    return once if of_files is None else hashlib.sha256((of_files + once).encode()).hexdigest()


def handed_on(dataset: Any) -> bool:
    """Whether the samples are those of the set of files behind them, unchanged."""
    while hands_on(dataset) or getattr(dataset, "only_declares", False):
        if isinstance(dataset, PairDataset):
            return True
        dataset = getattr(dataset, "dataset", None)
    return False


def pairs_of(dataset: Any) -> tuple[PairDataset | None, Sequence[Pair]]:
    """The set of files behind others, and those of its pairs that are used.

    All pairs, where one of the others is not a subset of the next: it may repeat or reorder them.
    """
    places = None
    while not isinstance(dataset, PairDataset) and hasattr(dataset, "dataset"):
        if isinstance(dataset, Subset):
            chosen = list(dataset.indices)
            places = chosen if places is None else [chosen[place] for place in places]
        elif not getattr(dataset, "only_declares", False):
            places = None
        dataset = dataset.dataset
    if not isinstance(dataset, PairDataset):
        return None, ()
    return dataset, dataset.pairs if places is None else [dataset.pairs[i] for i in places]


def _digest_of_pairs(dataset: PairDataset, pairs: Sequence[Pair]) -> str:
    files = [(pair.image, *label_files(pair)) for pair in pairs]
    paths = list(dict.fromkeys(path for each in files for path in each))
    content: dict[Path, str] = dict(zip(paths, file_digests(paths), strict=True))
    labels = dataset.label_map
    # Only where one is declared, so that the digests of earlier runs stay what they are.
    reading = [] if labels.lossless else [labels.threshold, labels.tolerance]
    facts = [labels.entries, dataset.orientation, *reading]
    digest = hashlib.sha256(json.dumps(facts).encode())
    for pair in pairs:
        mask = None if pair.mask is None else content[pair.mask]
        known: list[object] = [pair.name, content[pair.image], mask, pair.channels]
        if pair.drawn is not None:
            known += [[content[path] for path in pair.drawn.files]]
            known.append(pair.drawn.facts())
        digest.update(json.dumps(known).encode())
    return digest.hexdigest()


def label_files(pair: Pair) -> tuple[Path, ...]:
    """The files that a pair's label is read from."""
    masks = () if pair.mask is None else (pair.mask,)
    return (*masks, *(() if pair.drawn is None else pair.drawn.files))


def _digest_of_samples(dataset: Any) -> str:
    count = len(dataset)
    digest = hashlib.sha256(str(count).encode())
    for index in sorted({0, count // 2, count - 1}):
        image, label, name = read_sample(dataset, index)
        digest.update(name.encode() + b"\0")
        for tensor in (image, label):
            update_with(digest, tensor)
    flags = labelled_samples(dataset)
    if len(set(flags)) > 1:
        digest.update(bytes(flags))
    return digest.hexdigest()
