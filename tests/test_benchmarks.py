"""The benchmarks cover what there is; nothing is timed here."""

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import pytest

from segdistill.losses import LOSSES

FILE = Path(__file__).parents[1] / "benchmarks" / "losses.py"


@pytest.fixture(scope="module")
def losses() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_losses", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_loss_is_timed(losses: ModuleType) -> None:
    assert {*losses.ON_LOGITS, *losses.ON_FEATURES} == set(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_of_each_loss_runs(losses: ModuleType, name: str) -> None:
    assert math.isfinite(losses.step_of(name, "ours", 19, 2, 17)())
