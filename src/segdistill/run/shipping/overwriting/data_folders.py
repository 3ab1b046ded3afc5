"""Folders of a run's images and labels, where nothing is to be written."""

from collections.abc import Iterator
from pathlib import Path

from segdistill.config import DataConfig, Recipe
from segdistill.data import DATASETS
from segdistill.run.identity.data import label_files, pairs_of
from segdistill.run.opening import open_split, set_data


def refuse_data_folder(recipe: Recipe, out: str | Path) -> None:
    """Refuse a folder that holds images or labels of a recipe's data.

    Somebody's own data sets are not opened for this, nor is anything said of data that is not at hand.

    Raises:
        ValueError: The folder holds some.
    """
    folder = Path(out).resolve()
    used = {file.parent for file in _files_of(recipe)}
    if folder in {each.resolve() for each in used}:
        raise ValueError(
            f"{out} holds images or labels of the run's data; expected a folder for predictions only. Name "
            "another folder with --out"
        )


def _files_of(recipe: Recipe) -> Iterator[Path]:
    data = recipe.data
    further = [(set_data(data, one), "val") for one in recipe.evaluation.values()]
    parts: list[tuple[DataConfig, str]] = [(data, "train"), (data, "val"), *further]
    for config, split in parts:
        if config.name not in DATASETS:
            continue
        try:
            dataset = open_split(config, split, labelled=False)
        except (OSError, ValueError):
            continue
        for pair in pairs_of(dataset)[1]:
            yield from (pair.image, *label_files(pair))
