"""Half precision with a gradient scaler through the whole loop, on a CPU, where torch has both."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from safetensors.torch import load_file
from torch.amp import GradScaler

import segdistill.run.training.train as train_module
from segdistill.run.folder import RunFolder
from segdistill.run.networks import build_student
from segdistill.run.training.observing import ObserverFailed
from segdistill.run.training.train import train
from segdistill.run.training.updates.average import WeightAverage
from tests.run import small


class Told:
    """Stops the training at a row."""

    def __init__(self, at: int) -> None:
        self.at = at

    def row(self, values: Any) -> None:
        if values["step"] == self.at:
            raise RuntimeError("enough")

    def finished(self, run: RunFolder) -> None:
        raise AssertionError("it was stopped")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return small.teacher(tmp_path_factory.mktemp("half") / "teacher", **small.FINE)


class Half:
    """Makes the fabric of each training, which computes in fp16; recipes for a CPU may not ask for it."""

    def __init__(self) -> None:
        self.scale = 2.0**12
        self.scalers: list[GradScaler] = []

    def __call__(self, *_: Any, **__: Any) -> Fabric:
        self.scalers.append(GradScaler("cpu", init_scale=self.scale))
        precision = MixedPrecision("16-mixed", "cpu", scaler=self.scalers[-1])
        return Fabric(accelerator="cpu", devices=1, plugins=[precision])


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> Half:
    made = Half()
    monkeypatch.setattr(train_module, "make_fabric", made)
    return made


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


@pytest.mark.parametrize("changes", [small.distilled, small.released], ids=["idd", "critic"])
def test_a_stopped_run_resumes_with_its_scaler_to_the_bit(
    changes: Any, teacher: RunFolder, half: Half, tmp_path: Path
) -> None:
    training = {"steps": 8, "save_every": 2, "clip": 1.0, "average": 0.9}
    whole, broken = (
        small.recipe(**changes(teacher.path), train=training, out=str(tmp_path / name))
        for name in ("whole", "broken")
    )
    half.scale = 2.0**40  # some steps overflow before and some after the stop
    train(whole, progress=False)
    with pytest.raises(ObserverFailed):
        train(broken, progress=False, observers=[Told(4)])
    train(broken, progress=False)
    assert half.scalers[0].get_scale() == half.scalers[2].get_scale() < 2.0**36
    ours, theirs = _weights(tmp_path / "whole"), _weights(tmp_path / "broken")
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize("clip", [None, 1.0])
def test_an_overflow_leaves_weights_and_average_and_is_told(
    clip: float | None,
    teacher: RunFolder,
    half: Half,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a scale far too high no step is taken; with a fitting one every step is."""
    updates, update = [], WeightAverage.update

    def counted(average: WeightAverage) -> None:
        updates.append(average)
        update(average)

    monkeypatch.setattr(WeightAverage, "update", counted)
    start = build_student(small.recipe().student, small.CLASSES, 0).state_dict()
    for scale, left_out in ((2.0**100, 4), (2.0**8, 0)):
        updates.clear()
        caplog.clear()
        half.scale = scale
        recipe = small.recipe(
            **small.distilled(teacher.path, method="kd"),
            train={"steps": 4, "clip": clip, "average": 0.9},
            out=str(tmp_path / f"{left_out}"),
        )
        run = train(recipe, progress=False)
        said = f"{left_out} of 4 steps were left out, as gradients overflowed in fp16"
        assert (said in caplog.messages) == bool(left_out) and len(updates) == 4 - left_out
        rows = [row for row in run.metrics() if row["kind"] == "train"]
        assert rows[-1].get("overflowed", 0) == left_out
        weights = _weights(run.path)
        kept = [
            torch.equal(weights[name.removeprefix("module.")], value)
            for name, value in start.items()
            if name.endswith("weight")
        ]
        assert all(kept) == bool(left_out)
