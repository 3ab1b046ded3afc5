"""Hostile files end in one line and exit code 2, or train; `check` and `train` say the same, and none hangs."""

import re
from pathlib import Path

import pytest
import yaml

from segdistill.data import build_dataset
from segdistill.names import shortened
from segdistill.run.auditing import check_masks, refuse_unclear_orientation
from tests.reliability.answers import REFUSED, WELL, answer, limited
from tests.reliability.files import HOSTILE, NAMES, good

QUICK = ("white with a few ones", "a photograph that is cut off", "a pipe in place of a mask")


def _recipe(name: str, folder: Path) -> str:
    root = good(folder / "data")
    options = {"classes": NAMES, **HOSTILE[name].spoil(root)}
    recipe = {
        "data": {"name": "folder", "root": str(root), "options": options},
        "student": {"model": "compact", "options": {"width": 4, "depth": 1}},
        "train": {"steps": 1, "batch": 2, "crop": [16, 16], "device": "cpu", "workers": 0},
        "out": str(folder / "run"),
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return str(path)


def _try(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _recipe(name, folder)
    checked, _, problems = answer(["check", path, "--train.device", "cpu"], capsys)
    trained, line, _ = answer(["train", path], capsys)
    expected = HOSTILE[name].expected
    if not expected:
        assert (checked, trained) == (WELL, WELL), (problems, line)
        return
    assert (checked, trained) == (REFUSED, REFUSED), (problems, line)
    assert expected in line
    # Opening stops at the first problem; what is found while reading is told at once.
    assert line == shortened("; ".join(problems), 1000) or line in problems
    assert not (folder / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_before_a_training(name: str, tmp_path: Path) -> None:
    root = good(tmp_path / "data")
    hostile = HOSTILE[name]
    options = {"classes": NAMES, **hostile.spoil(root)}

    def audit() -> None:
        splits = [(s, build_dataset("folder", root, s, **options)) for s in ("train", "val")]
        refuse_unclear_orientation(*(dataset for _, dataset in splits))
        check_masks(splits)
        for _, dataset in splits:
            for index in range(len(dataset)):  # what passed can be read
                dataset[index]

    with limited():
        if not hostile.expected:
            audit()
            return
        with pytest.raises((ValueError, OSError), match=re.escape(hostile.expected)) as caught:
            audit()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", QUICK)
def test_some_hostile_files_by_command(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _try(name, tmp_path, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in HOSTILE if name not in QUICK])
def test_hostile_files_by_command(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _try(name, tmp_path, capsys)


def test_there_are_sixty_hostile_sets() -> None:
    assert len(HOSTILE) >= 60
