"""What a resumed training finds in its folder: changed or lost files are told, and change no figure in silence."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from segdistill.config import Recipe
from segdistill.run.folder import RunFolder
from segdistill.run.networks import load_run_model
from segdistill.run.training.observing import ObserverFailed
from segdistill.run.training.train import train
from tests.run import small


class Halt:
    """An observer that interrupts the training at a step, which saves the state."""

    def __init__(self, step: int) -> None:
        self.step = step

    def row(self, values: Mapping[str, Any]) -> None:
        if values["step"] == self.step and values["kind"] == "train":
            raise RuntimeError

    def finished(self, run: Any) -> None:
        pass


def _recipe(out: Path, **changes: Any) -> Recipe:
    steps = {"steps": 4, "log_every": 1, "save_every": 100, "val_every": 2}
    return small.recipe(train={**steps, **changes}, out=str(out))


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """A training interrupted after its third step; its best weights are those of the second."""
    with pytest.raises(ObserverFailed):
        train(_recipe(tmp_path / "half"), progress=False, observers=[Halt(3)])
    return tmp_path / "half"


def test_best_weights_that_were_changed_are_told_and_not_kept(
    half: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    best = half / "best.safetensors"
    weights = {name: torch.zeros_like(value) for name, value in load_file(best).items()}
    save_file(weights, best)
    before = best.read_bytes()
    run = train(_recipe(half), progress=False)
    score = {row["step"]: row["miou"] for row in run.metrics() if row["kind"] == "val"}
    if score[4] > score[2]:
        pytest.skip("the last step is the best, so nothing is lost")
    assert "best.safetensors is not the file that the training wrote" in caplog.text
    assert "from step 4 on" in caplog.text
    assert best.read_bytes() != before
    load_run_model(run, "best")


@pytest.mark.parametrize("lost", [False, True])
def test_rows_that_are_lost_are_told(
    lost: bool, half: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = half / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 4
    if lost:
        path.write_text("".join(lines[2:]))
    train(_recipe(half), progress=False)
    assert ("metrics.jsonl has lost 2 of the 4 rows up to step 3" in caplog.text) == lost


def test_a_state_without_its_recipe_is_no_start_for_another(half: Path) -> None:
    (half / "config.yaml").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds resume\.ckpt and no config\.yaml"):
        train(_recipe(half, seed=5), progress=False)


def test_two_damaged_states_begin_again_and_it_is_said(
    half: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for path in half.glob("resume*.ckpt"):
        path.write_bytes(b"x" * 99)
    train(_recipe(half), progress=False)
    assert "half has no checkpoint that can be read: its training begins again" in caplog.text


@pytest.mark.parametrize("file", ["model.safetensors", "model.json", "evaluation.json"])
def test_a_finished_run_that_lost_a_file_is_not_trained_over(file: str, tmp_path: Path) -> None:
    recipe = small.recipe(train={"steps": 1}, out=str(tmp_path / "run"))
    run = train(recipe, progress=False)
    for lost in (file, "identity.json"):  # with it, a run without weights is a record
        (run.path / lost).unlink()
    with pytest.raises(FileNotFoundError, match=f"run has lost {file}. Restore"):
        train(recipe, progress=False)
    if file == "model.json":
        with pytest.raises(FileNotFoundError, match=f"run has lost {file}. Restore"):
            load_run_model(run)


def test_a_finished_run_says_that_its_last_rows_are_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = train(_recipe(tmp_path / "run"), progress=False)
    assert not caplog.text
    path = run.path / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows if row["step"] < 3))
    assert RunFolder(run.path).metrics()[-1]["step"] == 2
    assert "metrics.jsonl has lost its rows after step 2 of 4" in caplog.text
