"""Each method of the catalogue, with either preset, trains a student on synthetic data."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from segdistill.distillation.catalogue import METHODS, PRESETS
from segdistill.models import network
from segdistill.run.folder import RunFolder
from segdistill.run.networks import build_student
from segdistill.run.training.train import train
from tests.run import small


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return small.teacher(tmp_path_factory.mktemp("teacher") / "run", **small.FINE)


@pytest.mark.parametrize("precision", ["32", pytest.param("bf16", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("method", "preset"),
    # In the quick run each method with the preset that differs most from the other tests.
    [
        pytest.param(
            method, preset, marks=() if preset == "paper" or method == "idd" else pytest.mark.slow
        )
        for method in METHODS
        for preset in PRESETS
    ],
)
def test_a_method_trains(
    method: str, preset: str, precision: str, teacher: RunFolder, tmp_path: Path
) -> None:
    changes = small.released(teacher.path, method=method, preset=preset)
    if method == "supervised":
        changes["teacher"] = None
    if method == "idd":
        changes["terms"] = {"position": {"options": {"steps": 4}}}
    training = {"steps": 2, "log_every": 1, "precision": precision}
    run = train(small.recipe(**changes, train=training, out=str(tmp_path / "run")), progress=False)
    rows = [row["terms"] for row in run.metrics() if row["kind"] == "train"]
    assert len(rows) == 2
    assert all(math.isfinite(term["value"]) for row in rows for term in row.values())
    assert ("holistic_adversary" in rows[0]) == ("holistic" in METHODS[method](preset))
    weights = load_file(run.path / "model.safetensors")
    start = network(build_student(small.recipe(**changes).student, small.CLASSES, 0)).state_dict()
    assert all(torch.isfinite(value).all() for value in weights.values())
    assert not torch.equal(weights["stem.weight"], start["stem.weight"])
