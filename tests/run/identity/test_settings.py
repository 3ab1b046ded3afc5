"""What neither names nor weights tell apart: settings of networks."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import segdistill
from segdistill.data import build_dataset
from segdistill.run.folder import RunFolder
from segdistill.run.identity import IdentityDiffers, read_identity
from segdistill.run.identity.digests import settings_of, state_digest
from segdistill.run.networks import load_run_model
from tests.run.identity.folders import write_pairs

NAMES = ["ground", "sky"]


class Net(nn.Module):
    """A network whose settings leave no trace in its state."""

    def __init__(
        self,
        act: Any = torch.relu,
        layer: nn.Module | None = None,
        dilation: int = 1,
        gain: float = 1.0,
        shift: float = 0.0,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Conv2d(3, 4, 3, stride=2, padding=dilation, dilation=dilation)
        self.layer, self.act, self.gain = layer or nn.ReLU(), act, gain
        self.register_buffer("shift", torch.tensor(shift), persistent=False)
        self.classifier = nn.Conv2d(4, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.act(self.layer(self.body(images))) * self.gain + self.shift)


def _files(base: Path, split: str) -> Any:
    if not (base / "data").exists():
        write_pairs(base / "data")
    return build_dataset("folder", base / "data", split, classes=NAMES, val_fraction=0.4)


def _distill(base: Path, student: nn.Module, **changes: Any) -> RunFolder:
    settings: dict[str, Any] = {
        "teacher": None,
        "method": "supervised",
        "train_set": _files(base, "train"),
        "val_set": _files(base, "val"),
        "steps": 1,
        "batch": 2,
        "crop": (32, 48),
        "min_miou": 0,
        "device": "cpu",
        "progress": False,
        "out": base / "run",
    }
    return segdistill.distill(student=student, **{**settings, **changes})


CHANGES: dict[str, Callable[[], nn.Module]] = {
    "act": lambda: Net(act=torch.tanh),
    "layers": lambda: Net(layer=nn.GELU()),
    "dilation, padding": lambda: Net(dilation=2),
    "gain": lambda: Net(gain=2.0),
    "buffers": lambda: Net(shift=1.0),
}


@pytest.mark.parametrize("what", CHANGES)
def test_settings_are_told_apart_where_states_are_equal(what: str) -> None:
    one, other = settings_of(Net()), settings_of(CHANGES[what]())
    assert state_digest(Net()) == state_digest(CHANGES[what]())
    changed = {key for key in one.keys() & other.keys() if one[key] != other[key]}
    assert set(what.split(", ")) <= changed
    assert one == settings_of(Net().eval()) == settings_of(torch.compile(Net()))
    wrapped = {**settings_of(segdistill.wrap(Net(), 2)), "geometry": ""}
    assert wrapped == {**one, "geometry": ""}


def test_another_network_of_equal_state_is_neither_handed_back_nor_shipped(tmp_path: Path) -> None:
    teacher, method = Net(), {"method": "kd"}
    run = _distill(tmp_path, segdistill.wrap(Net(), 2), teacher=teacher, **method)
    assert _distill(tmp_path, segdistill.wrap(Net(), 2), teacher=Net(), **method).finished
    refused = "holds another experiment \\(the {} differs?\\)"
    for student, other, what in (
        (segdistill.wrap(Net(gain=2.0), 2), teacher, "student's gain"),
        (segdistill.wrap(Net(), 2, align_corners=True), teacher, "student's geometry"),
        (segdistill.wrap(Net(), 2), Net(dilation=3), "teacher's dilation, padding"),
    ):
        with pytest.raises(IdentityDiffers, match=refused.format(what)):
            _distill(tmp_path, student, teacher=other, **method)
    for model, what in (
        (Net(layer=nn.GELU()), "the student's layers"),
        (segdistill.wrap(Net(), 2, align_corners=True), "the student's geometry"),
        (segdistill.wrap(Net(), 2, input="imagenet"), r"expected InputNormalisation\(mean=\[0.0"),
    ):
        with pytest.raises(IdentityDiffers, match=what):
            load_run_model(run, model=model)
    assert load_run_model(run, model=Net())


def test_edited_code_of_the_users_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segdistill.run.identity import record

    run = _distill(tmp_path, Net())
    assert "tests.run.identity.test_settings" in read_identity(run).code
    monkeypatch.setattr(
        record, "code_digests", lambda paths: {"tests.run.identity.test_settings": "edited"}
    )
    with caplog.at_level(logging.WARNING):
        assert _distill(tmp_path, Net()).finished
    assert "the code of tests.run.identity.test_settings has changed" in caplog.text
