"""Data sets of the user's own: what stands between files and samples, and what is no data set."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

import segdistill
from segdistill.data import build_dataset
from segdistill.data.samples import read_sample
from segdistill.run.identity.data import data_digest
from segdistill.run.identity.seen import warn_of_same_samples
from tests.run.identity.folders import write_pairs

NAMES = ["ground", "sky"]


class Changing(Dataset[Any]):
    """A set of files behind a class that may change its samples."""

    classes = NAMES

    def __init__(self, dataset: Any, swap: bool = False) -> None:
        self.dataset, self.swap = dataset, swap

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        sample = self.dataset[index]
        return {**sample, "label": 1 - sample["label"] if self.swap else sample["label"]}


class ChangingSubset(Changing, Subset[Any]):
    """The same as a subclass of torch's Subset."""

    def __init__(self, dataset: Any, swap: bool = False) -> None:
        Subset.__init__(self, dataset, [0])
        self.swap = swap

    def __len__(self) -> int:
        return 1

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self[index] for index in indices]


def _files(base: Path) -> Any:
    write_pairs(base / "data")
    return build_dataset("folder", base / "data", "train", classes=NAMES, val_fraction=0.4)


@pytest.mark.parametrize("kind", [Changing, ChangingSubset])
def test_a_set_that_changes_the_samples_of_files_is_not_those_files(
    kind: Any, tmp_path: Path
) -> None:
    files = _files(tmp_path)
    plain, swapped = kind(files), kind(files, swap=True)
    assert data_digest(plain) == data_digest(kind(files)) != data_digest(swapped)
    assert torch.equal(read_sample(swapped, 0)[1], swapped[0]["label"])
    before = data_digest(plain)
    write_pairs(tmp_path / "data", flipped=range(8))
    assert data_digest(plain) != before


class _Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        yield from ()


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            lambda files: DataLoader(files),
            "is a DataLoader, which has no __getitem",
        ),
        (lambda files: _Stream(), "train_set is a _Stream, which has no __len__"),
        (lambda files: [], "train_set is empty"),
    ],
)
def test_what_has_no_samples_by_number_is_refused(
    made: Callable[[Any], Any], message: str, tmp_path: Path
) -> None:
    files = _files(tmp_path)
    student = torch.nn.Conv2d(3, 2, 1)
    with pytest.raises(ValueError, match=message):
        segdistill.distill(None, student, made(files), files, "supervised", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def _seen_twice(train_set: Any, val_set: Any, alike: bool, caplog: Any) -> str:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        warn_of_same_samples(train_set, val_set, alike)
    text: str = caplog.text
    return text


def test_samples_of_ones_own_that_are_trained_and_measured_on_are_warned_of(caplog: Any) -> None:
    samples = [(torch.zeros(3, 4, 4), torch.zeros(4, 4).long())] * 6
    for train_set, val_set, count in (
        (samples, samples, "6 of the 6"),
        (samples, Subset(samples, [1, 2]), "2 of the 2"),
        (Subset(samples, [0, 1, 2]), Subset(samples, [2, 3]), "1 of the 2"),
        (Subset(Subset(samples, [3, 4, 5]), [0, 1]), Subset(samples, [4, 0]), "1 of the 2"),
    ):
        found = _seen_twice(train_set, val_set, False, caplog)
        assert f"{count} samples that are measured on are also trained on" in found
    assert not _seen_twice(Subset(samples, [0, 1]), Subset(samples, [2, 3]), True, caplog)
    assert "6 of the 6" in _seen_twice(samples, list(samples), True, caplog)
    assert not _seen_twice(samples, list(samples), False, caplog)
