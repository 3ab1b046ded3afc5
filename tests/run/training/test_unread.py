"""Settings that nothing would read are refused before a run is begun."""

from pathlib import Path
from typing import Any

import pytest

from segdistill.config import DataConfig
from segdistill.run.recipe import changed_data
from segdistill.run.training.train import train
from tests.run import small


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": {"run": "runs/a", "model": "enet", "weights": "b.pth"}},
         r"teacher\.run is runs/a beside teacher\.model; expected a run, or a model .* remove model and weights"),
        ({"teacher": {"run": "runs/a", "options": {"width": 3}}}, r"beside teacher\.options"),
        ({"data": {"name": "synthetic", "root": "mine"}},
         r"data\.root is mine, which the data set 'synthetic' does not read; .* Remove root, or set data\.name"),
        ({"data": {"name": "tests.data.test_labelled.Own", "root": "mine"}}, r"'.*Own' does not read"),
        ({"evaluation": {"snow": {"root": "mine"}}}, r"evaluation\.snow: data\.root is mine, .* does not read"),
    ],
)  # fmt: skip
def test_a_setting_that_nothing_would_read_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    recipe = small.recipe(out=str(tmp_path / "run"), **changes)
    with pytest.raises(ValueError, match=message):
        train(recipe, progress=False)
    assert not (tmp_path / "run").exists()


def test_other_data_on_the_command_line_has_none_of_the_options_of_the_recipe() -> None:
    folder = small.recipe(data={"name": "folder", "root": "a", "options": {"classes": 3}}).data
    assert changed_data(folder, {"name": "synthetic"}) == DataConfig("synthetic")
