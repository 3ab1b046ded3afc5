"""The benchmarks cover every loss and network; nothing is timed here."""

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


def test_every_loss_is_timed_in_every_form(losses: ModuleType) -> None:
    forms = [(name, form) for name, loss in LOSSES.items() for form in loss.forms]
    assert [case for case in losses.cases(forms=True) if case[0] in LOSSES] == [
        *forms,
        ("inter_class", "loop"),
        ("intra_class", "loop"),
    ]
    assert {name for name, _ in losses.cases()} == {*LOSSES, "class_tokens"}


@pytest.mark.parametrize(
    ("name", "on_logits"),
    [("cross_entropy", True), ("channelwise", True), ("pairwise", False), ("class_tokens", False)],
)
def test_losses_that_compare_channels_or_have_no_teacher_are_timed_on_logits(
    losses: ModuleType, name: str, on_logits: bool
) -> None:
    assert losses.reads_logits(name) == on_logits


@pytest.mark.parametrize(
    ("name", "form"), [(name, form) for name, loss in LOSSES.items() for form in loss.forms]
)
def test_a_step_of_each_form_runs(losses: ModuleType, name: str, form: str) -> None:
    assert math.isfinite(losses.step_of(name, form, 19, 2, 17)())
