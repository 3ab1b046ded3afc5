"""Placebos in a comparison: each is one line of a recipe, and stands beside the method it tests."""

import json
from pathlib import Path
from typing import Any

import pytest

from segdistill.run.compare import compare
from segdistill.run.folder import RunFolder
from segdistill.run.training.train import rehearse
from tests.run import small

NAMES = [f"class{number}" for number in range(small.CLASSES)]
ONE_LINE: dict[str, dict[str, Any]] = {
    "permuted": {"terms": {"inter_class": {"options": {"target": "permuted"}}}},
    "equal": {"terms": {"inter_class": {"options": {"target": "equal"}}}},
    "averaged": {"terms": {"position": {"options": {"target": "averaged"}}}},
    "shuffled": {"terms": {"position": {"options": {"target": "shuffled"}}}},
    "ramp": {"terms": {"position": {"options": {"target": "ramp"}}}},
}
BALANCED = {
    "method": "supervised",
    "role": "control",
    "terms": {"cross_entropy": {"options": {"balance": "sqrt"}}},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "balanced": BALANCED,
    "idd": {"method": "idd"},
    **{name: {"method": "idd", "role": "placebo", **line} for name, line in ONE_LINE.items()},
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return small.teacher(tmp_path_factory.mktemp("teacher") / "run")


def _values(teacher: RunFolder, out: Path, **changes: Any) -> dict[str, Any]:
    # The position term stays on, though such a teacher has nothing to teach.
    terms = {"position": {"options": {"switch_off": "never", "steps": 2}}}
    changes = {"train": {"steps": 2, "log_every": 1}, "terms": terms, **changes}
    return {**small.distilled(teacher.path, out=str(out)), **changes}


@pytest.fixture(scope="module")
def compared(teacher: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("placebos")
    recipe = small.recipe(**_values(teacher, out, variants=VARIANTS))
    compare(recipe, list(VARIANTS), seeds=1, progress=False)
    return out


def _first_values(run: RunFolder) -> dict[str, float]:
    """The value of each term at step 1, when all runs still have the same student."""
    row = next(row for row in run.metrics() if row["kind"] == "train")
    return {name: term["value"] for name, term in row["terms"].items()}


def test_each_placebo_trains_on_a_target_of_its_own(compared: Path) -> None:
    first = {name: _first_values(RunFolder(compared / f"{name}-s0")) for name in VARIANTS}
    assert first["balanced"]["cross_entropy"] != first["idd"]["cross_entropy"]
    for name, line in ONE_LINE.items():
        (changed,) = line["terms"]
        for term, value in first["idd"].items():
            assert (first[name][term] == pytest.approx(value, rel=1e-6)) == (term != changed), name


def test_the_table_has_each_placebo_beside_its_method(compared: Path) -> None:
    methods = json.loads((compared / "comparison.json").read_text())["methods"]
    assert methods["balanced"]["role"] == "control"
    assert {name: row.get("tests") for name, row in methods.items() if name != "teacher"} == {
        "balanced": None,
        "idd": None,
        **dict.fromkeys(ONE_LINE, "idd"),
    }


@pytest.mark.parametrize("target", ["averaged", "shuffled"])
def test_batches_without_another_image_are_refused_before_step_1(
    target: str, teacher: RunFolder, tmp_path: Path
) -> None:
    terms = {"position": {"options": {"target": target}}}
    recipe = small.recipe(
        **_values(teacher, tmp_path / "run", terms=terms, train={"batch": 2, "accumulate": 2})
    )
    (problem,) = rehearse(recipe, NAMES)
    assert problem == (
        "terms.position: train.batch in 2 parts has 1 image; expected 2 or more. Raise train.batch"
    )
