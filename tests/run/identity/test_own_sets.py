"""Data sets of the user's own: what stands between files and samples, and what is no data set."""

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
