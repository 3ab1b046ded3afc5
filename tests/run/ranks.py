"""Trains a recipe and saves each process's critic: `python -m tests.run.ranks RECIPE OUT`."""

import sys
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


if __name__ == "__main__":
    train_module.Loop = Watched  # type: ignore[misc]
    recipe, out = sys.argv[1:]
    train_module.train(load_recipe(Path(recipe), ["--out", out]), progress=False)
