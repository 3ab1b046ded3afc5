"""Trainings broken at their file operations, and damaged files, end like an unbroken run or in one line."""

from itertools import chain
from pathlib import Path

import pytest

from segdistill.run.training.train import train
from tests.reliability import breaking, trials
from tests.run import small


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> trials.Training:
    folder = tmp_path_factory.mktemp("training")
    # What is prepared here need not be in each process forked from here: checks of types, and scenes.
    train(small.recipe(out=str(folder / "here")), progress=False)
    return trials.Training("supervised", folder / "supervised")


def test_the_operations_of_a_save_are_seen(training: trials.Training) -> None:
    """Nothing would be tried if the operations were not noticed."""
    for operation in (
        "sync /..resume.ckpt.new.tmp",
        "rename /..resume.ckpt.new.tmp",
        "rename /resume.ckpt",
        "rename /.resume.ckpt.new",
        "sync /.model.safetensors.tmp",
        "rename /.evaluation.json.tmp",
    ):
        assert operation in training.operations


@pytest.mark.parametrize("kind", breaking.KINDS)
def test_a_training_broken_in_a_save_ends_like_a_whole_one(
    kind: str, training: trials.Training
) -> None:
    saves = [
        at for at, line in enumerate(training.operations) if line == "sync /..resume.ckpt.new.tmp"
    ]
    trial = training.broken(kind, saves[2])
    assert trial.fault == ""


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("resume.ckpt", "one bit"),
        ("metrics.jsonl", "half"),
        ("config.yaml", "gone"),
        ("identity.json", "other bytes"),
    ],
)
def test_a_damaged_file_of_an_interrupted_run(
    file: str, damage: str, training: trials.Training
) -> None:
    assert training.damaged(file, damage).fault == ""


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", trials.TRAININGS)
def test_every_break_and_every_damage(name: str, tmp_path: Path) -> None:
    whole = trials.Training(name, tmp_path / "training")
    every = chain(trials.every_break(whole), trials.every_damage(whole))
    assert [trial for trial in trials.sampled(every, 1) if trial.fault] == []
