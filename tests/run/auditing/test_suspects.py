"""Why a teacher's mIoU is too low."""

from pathlib import Path
from typing import Any

import pytest
import torch

from segdistill.data.folder import Folder
from segdistill.models import wrap
from segdistill.run.auditing.suspects import best_order, suspect
from segdistill.run.training.train import train
from tests.run import small
from tests.run.plain import ByColour, teacher_in, write_scenes

OPTIONS = {"classes": ["a", "b", "c"], "mapping": {10: 0, 20: 1, 30: 2}}


def test_the_best_order_undoes_a_permutation() -> None:
    # Predictions 0, 1, 2 stand for the classes 2, 0, 1; nine in ten are right.
    confusion = torch.tensor([[1, 9, 0], [0, 1, 9], [9, 0, 1]])
    assert best_order(confusion) == [2, 0, 1]
    assert best_order(torch.tensor([[5, 1, 0], [1, 5, 0], [0, 0, 0]])) == [0, 1, 2]


def test_a_sound_teacher_is_not_suspected_and_its_input_is_restored(tmp_path: Path) -> None:
    dataset = Folder(write_scenes(tmp_path), "val", **OPTIONS)
    for made, suspected in (({}, False), ({"bgr": True}, True)):
        model = wrap(ByColour(**made), 3)
        declared = model.input
        cause = suspect(model, dataset)
        assert model.input is declared
        assert (cause is not None) == suspected
        if cause is not None:
            assert cause.miou == 1
            assert cause.images == 4
            assert "{input: {mean: [0.0, 0.0, 0.0]" in cause.remedy


@pytest.mark.parametrize(
    ("made", "least", "message"),
    [
        ({"bgr": True}, 90, "expected at least 90.0 (teacher.min_miou). With its channels as BGR"),
        (
            {"order": (1, 2, 0)},
            None,
            "the commonest class everywhere). With its class numbers shifted up",
        ),
    ],
)
def test_training_refuses_a_misread_teacher_with_its_cause(
    made: dict[str, Any], least: float | None, message: str, tmp_path: Path
) -> None:
    recipe = small.recipe(
        data={"name": "folder", "root": str(write_scenes(tmp_path / "data")), "options": OPTIONS},
        student={"model": "tests.run.plain.NoNorm"},
        teacher={**teacher_in(tmp_path, **made), "min_miou": least},
        method="kd",
        train={"crop": [16, 16]},
        out=str(tmp_path / "run"),
    )
    with pytest.raises(ValueError) as error:
        train(recipe, progress=False)
    assert message in str(error.value)
    assert "its mIoU is 100.0 instead of" in str(error.value)
    assert "\n" not in str(error.value)
