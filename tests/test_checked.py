"""Types and shapes are checked in these tests; otherwise wrong annotations would pass unnoticed."""

from typing import Any

import pytest
import torch
from jaxtyping import TypeCheckError

from segdistill.data import build_dataset
from segdistill.data.label_map import LabelMap
from segdistill.escaping import terminal_text
from segdistill.labels import IGNORED
from segdistill.models.input import make_input
from segdistill.run.evaluation.evaluate import confusion_matrix

WRONG: dict[str, Any] = {
    "ground floor": lambda: terminal_text(7),  # type: ignore[arg-type]
    "data": lambda: LabelMap([0], 2),  # type: ignore[arg-type]
    "models": lambda: make_input("imagenet", "3"),  # type: ignore[arg-type]
    "run": lambda: confusion_matrix(torch.zeros(2, 2), torch.zeros(2, 2).long(), 3),
}


@pytest.mark.parametrize("room", WRONG)
def test_a_wrong_argument_is_noticed(room: str) -> None:
    with pytest.raises(TypeCheckError):
        WRONG[room]()


@pytest.mark.usefixtures("unchecked")
def test_a_test_may_leave_the_checks_out() -> None:
    with pytest.raises(ValueError, match="mapping is"):
        WRONG["data"]()


def test_checks_are_on_again_after_a_scene_is_drawn() -> None:
    scenes = build_dataset("synthetic", size=(32, 48), count=2)
    for index in range(2):
        assert int(scenes[index]["label"].max()) <= IGNORED
    with pytest.raises(TypeCheckError):
        WRONG["run"]()
