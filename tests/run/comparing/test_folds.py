"""A comparison with folds, from end to end."""

import json
from pathlib import Path
from typing import Any

import pytest

from segdistill.run.compare import compare
from segdistill.run.comparing import fold_recipes
from segdistill.run.folder import RunFolder
from tests.run import small


def _recipe(folder: Path, teachers: dict[str, RunFolder], **changes: Any) -> Any:
    folds = {
        name: {
            "data": {"train_options": {"seed": number}},
            "teacher": {"run": str(run.path)},
            "evaluation": {"far": {"options": {"seed": 7 + number}}},
        }
        for number, (name, run) in enumerate(teachers.items())
    }
    values = {
        "teacher": {"min_miou": 0.0},
        "folds": folds,
        "contrasts": [["kd", "control"]],
        "claims_on": "far",
        "scene_frames": 2,
        "train": {"steps": 1, "log_every": 1},
        **changes,
    }
    return small.recipe(**values, out=str(folder))


def test_each_fold_has_its_data_and_teacher_and_all_are_pooled(tmp_path: Path) -> None:
    teachers = {name: small.teacher(tmp_path / f"teacher-{name}") for name in ("a", "b")}
    out = tmp_path / "compared"
    compare(_recipe(out, teachers), ["supervised", "kd"], seeds=2, progress=False)
    for name, teacher in teachers.items():
        recipe = RunFolder(out / name / "kd-s1").recipe()
        assert recipe.teacher is not None and recipe.teacher.run == str(teacher.path)
        assert not recipe.folds and recipe.evaluation["far"].options["seed"] == 7 + (name == "b")
        assert (out / name / "comparison.json").is_file()
    content = json.loads((out / "comparison.json").read_text())
    kd = content["methods"]["kd"]
    assert set(kd["miou_by_seed"]) == {"a/0", "a/1", "b/0", "b/1"}
    apart = [json.loads((out / name / "comparison.json").read_text()) for name in teachers]
    means = [one["methods"]["kd"]["miou_mean"] for one in apart]
    assert kd["miou_mean"] == pytest.approx(sum(means) / 2)
    (claim,) = content["claims"]
    far = [one["claims"][0]["on"]["far"]["mean"] for one in apart]
    assert claim["on"]["far"]["folds"] == pytest.approx(dict(zip(teachers, far, strict=True)))
    assert claim["on"]["far"]["mean"] == pytest.approx(sum(far) / 2)
    assert claim["scenes"]["frames"] == 2 and claim["scenes"]["blocks"] == 6
    assert claim["scenes"]["low"] <= claim["scenes"]["high"]
    assert content["claims_registered_after"] == 0

    before = (out / "comparison.json").read_bytes()
    compare(_recipe(out, teachers), ["supervised", "kd"], seeds=2, progress=False)
    assert (out / "comparison.json").read_bytes() == before


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ({"a/b": {}}, r"folds: 'a/b' names a file"),
        ({"a": {"date": {}}}, r"folds.a.date: no key named 'date'; did you mean 'data'"),
        (
            {"a": {"data": {"rot": "x"}}},
            r"folds.a: data.rot: no key named 'rot'; did you mean 'root'",
        ),
    ],
)
def test_a_mistake_in_a_fold_is_refused(folds: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        fold_recipes(small.recipe(folds=folds), tmp_path)


@pytest.mark.parametrize("on", [None, "far"])
def test_folds_that_are_judged_on_the_same_images_are_refused(
    on: str | None, tmp_path: Path
) -> None:
    alike = {"data": {"train_options": {"seed": 1}}}
    far = {"far": {"options": {"seed": 7}}}
    recipe = small.recipe(
        evaluation=far, folds={"a": alike, "b": alike}, claims_on=on, out=str(tmp_path / "runs")
    )
    with pytest.raises(ValueError, match=r"folds.a and folds.b are both judged on 6 images \("):
        compare(recipe, ["supervised"], seeds=1, progress=False)
    assert not (tmp_path / "runs").exists()
