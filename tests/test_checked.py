"""Types and shapes are checked in these tests; otherwise wrong annotations would pass unnoticed."""

from typing import Any

import pytest
import torch
from jaxtyping import TypeCheckError

from segdistill.data.label_map import LabelMap
from segdistill.escaping import terminal_text
from segdistill.models.input import make_input
from segdistill.run.evaluation.evaluate import confusion_matrix
from tests import checked

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


def test_each_function_is_checked_in_its_first_calls_of_each_test() -> None:
    for _ in range(checked.CALLS):
        with pytest.raises(TypeCheckError):
            WRONG["data"]()
    with pytest.raises(ValueError, match="mapping is"):
        WRONG["data"]()
    with pytest.raises(TypeCheckError):
        WRONG["models"]()
    checked.begin_test()
    with pytest.raises(TypeCheckError):
        WRONG["data"]()
