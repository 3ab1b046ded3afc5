"""The order of training: which samples make up each step, whatever step a run starts at.

The order is a pure function of the seed. The data set is permuted again for each epoch, and the
permutations form one endless stream; step s of a run uses its s-th batch. So a run that resumes
at step s sees what an unbroken one would have seen, the last batch of an epoch is filled up from
the next one, and several processes share each batch without communicating.

Where a stated number of images of each batch has labels, there are two such streams, of the samples with
and without labels, each with epochs of its own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from segdistill.data.randomness import generator_for

Key = tuple[int, int]
"""`(epoch, index)`: a sample of the data set in an epoch."""


def epoch_order(length: int, seed: int, epoch: int, stream: str = "order") -> list[int]:
    """The order in which an epoch visits so many samples; streams of other names have other orders."""
    return torch.randperm(length, generator=generator_for(stream, seed, epoch)).tolist()


def labelled_places(batch: int, labelled: int) -> list[bool]:
    """Which places of a batch are taken by labelled images: evenly spread, so that its parts are alike.

    Example:
        >>> labelled_places(4, 2)
        [False, True, False, True]
    """
    return [(i + 1) * labelled // batch > i * labelled // batch for i in range(batch)]


@dataclass(frozen=True)
class Order:
    """The keys of each step for one process.

    Attributes:
        flags: Whether each sample has labels.
        seed: Seed of the run.
        steps: The steps to yield.
        batch: Samples per step, over all processes.
        offset: First place of a batch that this process reads.
        share: Number of places that it reads.
        labelled: Samples with labels in each batch; None: all samples in one order, as they come.
    """

    flags: Sequence[bool]
    seed: int
    steps: range
    batch: int
    offset: int
    share: int
    labelled: int | None = None

    def __iter__(self) -> Iterator[list[Key]]:
        """The keys of each step."""
        streams, places = self._streams()
        sizes = [places.count(number) for number in range(len(streams))]
        mine = range(self.offset, self.offset + self.share)
        # The how-manieth of its stream each place of a batch is.
        ranks = [places[:place].count(places[place]) for place in mine]
        for step in self.steps:
            yield [
                streams[places[place]].key(step * sizes[places[place]] + rank)
                for place, rank in zip(mine, ranks, strict=True)
            ]

    def __len__(self) -> int:
        return len(self.steps)

    def _streams(self) -> tuple[list["_Stream"], list[int]]:
        """The streams, and that of each place of a batch."""
        if self.labelled is None:
            return [_Stream(range(len(self.flags)), self.seed, "order")], [0] * self.batch
        streams = [
            _Stream([i for i, flag in enumerate(self.flags) if flag == wanted], self.seed, name)
            for wanted, name in ((False, "unlabelled"), (True, "labelled"))
        ]
        return streams, [int(flag) for flag in labelled_places(self.batch, self.labelled)]


class _Stream:
    """Endless visits to some samples, permuted again for each epoch."""

    def __init__(self, indices: Sequence[int], seed: int, name: str) -> None:
        self.indices, self.seed, self.name = indices, seed, name
        self.epoch, self.order = -1, list[int]()

    def key(self, place: int) -> Key:
        """The key of a visit, counted from 0 over all epochs."""
        epoch, within = divmod(place, len(self.indices))
        if epoch != self.epoch:
            self.epoch = epoch
            self.order = epoch_order(len(self.indices), self.seed, epoch, self.name)
        return epoch, self.indices[self.order[within]]
