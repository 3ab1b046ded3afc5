"""Class weights from the labels of the training split: counted once, kept in the run."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from segdistill.data import build_dataset
from segdistill.run.training import balance
from segdistill.run.training.observing import ObserverFailed
from segdistill.run.training.train import rehearse, train
from tests.run import small
from tests.run.training.test_distill import NAMES, Plain, Tuples, _distill

BALANCED = {"cross_entropy": {"options": {"balance": "sqrt"}}}


class Broken:
    """Fails at a step, as a full disk would."""

    def __init__(self, at: int) -> None:
        self.at = at

    def row(self, values: Any) -> None:
        if values["step"] == self.at:
            raise OSError("no space left")

    def finished(self, run: Any) -> None:
        """Never called."""


def _recipe(out: Path, **changes: Any) -> Any:
    return small.recipe(**{"terms": BALANCED, "out": str(out), **changes})


def _counted_by_loops() -> list[int]:
    data = build_dataset("synthetic", split="train", size=(32, 48), count=6)
    pixels = [0] * small.CLASSES
    for index in range(len(data)):
        for value in data[index]["label"].flatten().tolist():
            if value != 255:
                pixels[value] += 1
    return pixels


def test_a_run_weighs_classes_by_its_training_labels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    run = train(_recipe(tmp_path / "run"), progress=False)
    record = json.loads((run.path / "class_pixels.json").read_text())
    assert record["pixels"] == _counted_by_loops()
    assert record["split"] == "train" and len(record["classes"]) == small.CLASSES
    (line,) = [text for text in caplog.messages if "class weights from the labels of train" in text]
    commonest = record["classes"][record["pixels"].index(max(record["pixels"]))]
    assert line.startswith("cross_entropy: class weights") and f"({commonest}) to " in line
    plain = train(_recipe(tmp_path / "plain", terms={}), progress=False)
    assert not (plain.path / "class_pixels.json").exists()
    ours, theirs = (load_file(one.path / "model.safetensors") for one in (run, plain))
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours)
    # What reads a run needs none of it.
    assert run.finished and "weight" not in ours


def test_a_run_that_resumes_has_the_weights_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(_recipe(tmp_path / "whole"), progress=False)
    broken = _recipe(tmp_path / "broken")
    with pytest.raises(ObserverFailed):
        train(broken, progress=False, observers=[Broken(4)])
    monkeypatch.setattr(balance, "class_pixels", lambda *_: pytest.fail("counted again"))
    train(broken, progress=False)
    one, other = (
        load_file(folder / "model.safetensors") for folder in (whole.path, tmp_path / "broken")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_numbers_of_a_training_that_never_began_are_not_used(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    stale = {"pixels": [1] * small.CLASSES}
    (tmp_path / "run" / "class_pixels.json").write_text(json.dumps(stale))
    run = train(_recipe(tmp_path / "run", train={"steps": 1}), progress=False)
    assert json.loads((run.path / "class_pixels.json").read_text())["pixels"] != stale["pixels"]


def test_sets_in_memory_are_counted(tmp_path: Path) -> None:
    torch.manual_seed(0)
    run = _distill(tmp_path / "run", Plain(4), method="supervised", terms=BALANCED)
    pixels = json.loads((run.path / "class_pixels.json").read_text())["pixels"]
    labels = torch.stack([label for _, label in (Tuples()[index] for index in range(6))])
    assert pixels == [int((labels == number).sum()) for number in range(len(NAMES))]


def test_labels_that_are_not_learnt_from_cannot_be_counted(tmp_path: Path) -> None:
    teacher = small.teacher(tmp_path / "teacher")
    recipe = _recipe(
        tmp_path / "run",
        teacher={"run": str(teacher.path), "min_miou": 0.0},
        method={"name": "kd", "labels": "teacher"},
    )
    (problem,) = rehearse(recipe, [f"class{number}" for number in range(small.CLASSES)])
    assert problem.startswith("terms.cross_entropy: balance is set with method.labels teacher; ")
    assert problem.endswith("Leave balance out, or set weight")


def test_given_weights_and_balance_are_refused_together(tmp_path: Path) -> None:
    options = {"balance": "sqrt", "weight": [1.0] * small.CLASSES}
    recipe = _recipe(tmp_path / "run", terms={"cross_entropy": {"options": options}})
    with pytest.raises(ValueError, match=r"terms\.cross_entropy: .*balance is sqrt and weight"):
        train(recipe, progress=False)
