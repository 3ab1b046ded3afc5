"""A training in which each process saves its critic."""

from pathlib import Path

import torch

from segdistill.run.recipe import load_recipe
from segdistill.run.training import train as train_module
from segdistill.run.training.loop import Loop


class Watched(Loop):
    def run(self, progress: bool = True) -> None:
        super().run(progress)
        state = self.distiller.losses["holistic"].state_dict()
        torch.save(state, self.folder.parent / f"critic-{self.fabric.global_rank}.pt")


def train(recipe: Path, out: Path) -> None:
    """Train a recipe; the critics are saved beside the run."""
    train_module.Loop = Watched  # type: ignore[misc]
    train_module.train(load_recipe(recipe, ["--out", str(out)]), progress=False)
