"""The order of training: which samples make up each step, whatever step a run starts at.

The order is a pure function of the seed. The data set is permuted again for each epoch, and the
permutations form one endless stream; step s of a run uses its s-th batch. So a run that resumes
at step s sees what an unbroken one would have seen, the last batch of an epoch is filled up from
the next one, and several processes share each batch without communicating.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from segdistill.data.randomness import generator_for

Key = tuple[int, int]
"""`(epoch, index)`: a sample of the data set in an epoch."""


def epoch_order(length: int, seed: int, epoch: int) -> list[int]:
    """The order in which an epoch visits a data set of this length."""
    return torch.randperm(length, generator=generator_for("order", seed, epoch)).tolist()


@dataclass(frozen=True)
class Order:
    """The keys of each step for one process."""

    length: int
    seed: int
    steps: range
    batch: int
    offset: int
    share: int

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, order = -1, list[int]()
        for step in self.steps:
            first = step * self.batch + self.offset
            keys = []
            for place in range(first, first + self.share):
                if place // self.length != epoch:
                    epoch = place // self.length
                    order = epoch_order(self.length, self.seed, epoch)
                keys.append((epoch, order[place % self.length]))
            yield keys

    def __len__(self) -> int:
        return len(self.steps)
