"""Scenes of the synthetic data set, each drawn once in a process: small trainings read the same dozen."""

from functools import lru_cache

import pytest
from torch import Tensor

from segdistill.data.randomness import generator_for
from segdistill.data.synthetic import dataset

draw = dataset.Synthetic.load
"""How the package gives a scene."""


@lru_cache(maxsize=500)
def _drawn(size: tuple[int, int], seed: int, split: str, position: int) -> tuple[Tensor, Tensor]:
    return dataset.draw_street(size, generator_for("scene", seed, split, position))


def remember(patch: pytest.MonkeyPatch) -> None:
    """Give copies of scenes that were drawn before; a scene depends only on these four values."""

    def load(self: dataset.Synthetic, position: int) -> tuple[Tensor, Tensor]:
        image, label = _drawn(self.size, self.seed, self.split, position)
        return image.clone(), label.clone()

    patch.setattr(dataset.Synthetic, "load", load)
