"""Equal time: each row gets the steps that the slowest row's clock allows."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from segdistill import cli
from segdistill.config import Recipe
from segdistill.run.compare import compare
from segdistill.run.folder import RunFolder
from segdistill.run.reporting.report import report
from segdistill.run.rows import budget as module
from segdistill.run.rows import equal_time
from tests.run import small

COSTS = {"supervised": (0.0, 0.1), "kd": (0.0, 0.15), "idd": (0.3, 0.2)}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return small.teacher(tmp_path_factory.mktemp("teacher") / "run")


def _recipe(teacher: RunFolder, out: Path, **changes: Any) -> Recipe:
    return small.recipe(**{**small.distilled(teacher.path, out=str(out)), **changes})


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The probes that are made; each row costs what COSTS says."""
    made: list[str] = []

    def probe(recipe: Recipe) -> tuple[list[float], float]:
        name = recipe.chosen_method().name
        made.append(name)
        preparation, step = COSTS[name]
        return [step], preparation

    monkeypatch.setattr(module, "_probe", probe)
    return made


@pytest.mark.usefixtures("measured")
def test_the_slowest_row_keeps_its_steps_and_the_others_fill_its_time(
    teacher: RunFolder, tmp_path: Path
) -> None:
    recipes = {name: _recipe(teacher, tmp_path, method=name) for name in COSTS}
    # 6 steps of idd and its preparation take 1.5 s.
    assert equal_time(recipes, tmp_path) == {"supervised": 15, "kd": 10, "idd": 6}


def test_costs_are_measured_in_turns_and_once(
    teacher: RunFolder, tmp_path: Path, measured: list[str]
) -> None:
    recipes = {name: _recipe(teacher, tmp_path, method=name) for name in COSTS}
    first = equal_time(recipes, tmp_path)
    assert measured == [*COSTS] * 3
    assert equal_time(recipes, tmp_path) == first
    assert equal_time({"kd": recipes["kd"]}, tmp_path) == {"kd": first["kd"]}
    assert len(measured) == 9


def test_a_comparison_trains_these_steps_and_says_so(
    teacher: RunFolder, tmp_path: Path, measured: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    recipe, names = _recipe(teacher, tmp_path), ["supervised", "kd"]
    with caplog.at_level("INFO"):
        summaries = compare(recipe, names, 2, progress=False, budget="time")
    assert {one.label: one.steps for one in summaries} == {"teacher": 8, "control": 9, "kd": 6}
    assert any("The steps differ: 6 steps, and 9 for the control" in t for t in caplog.messages)
    table = (tmp_path / "comparison.json").read_text()
    assert json.loads(table)["equal_time"] == {"control": 9, "kd": 6}
    compare(recipe, names, 2, progress=False, budget="time")
    assert (tmp_path / "comparison.json").read_text() == table
    assert len(measured) == 6
    assert "6 steps, and 9 for the control" in report([tmp_path]).read_text()


def test_a_probe_times_each_step_but_the_first_and_the_preparation(
    teacher: RunFolder, tmp_path: Path
) -> None:
    paces, preparation = module._probe(_recipe(teacher, tmp_path / "none"))
    assert len(paces) == module._STEPS - 1
    assert min(paces) > 0
    assert preparation > 0
    assert not (tmp_path / "none").exists()
    assert preparation > module._probe(_recipe(teacher, tmp_path, method="kd"))[1]


def test_a_probe_measures_no_set_though_claims_are_made_on_one(
    teacher: RunFolder, tmp_path: Path
) -> None:
    further = {"evaluation": {"other": {"options": {"seed": 9}}}, "claims_on": "other"}
    paces, _ = module._probe(_recipe(teacher, tmp_path, method="kd", **further))
    assert len(paces) == module._STEPS - 1


def test_several_processes_do_not_measure(
    teacher: RunFolder, tmp_path: Path, measured: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would measure other costs, and train other steps."""
    recipes = {name: _recipe(teacher, tmp_path, method=name) for name in COSTS}
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="budget is time with 2 processes"):
        equal_time(recipes, tmp_path)
    assert not measured
    monkeypatch.delenv("WORLD_SIZE")
    steps = equal_time(recipes, tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert equal_time(recipes, tmp_path) == steps


def test_a_row_with_steps_of_its_own_is_refused(teacher: RunFolder, tmp_path: Path) -> None:
    variants = {"long": {"train": {"steps": 12}}, "kd": {"method": "kd"}}
    recipe = _recipe(teacher, tmp_path / "runs", method="supervised", variants=variants)
    with pytest.raises(ValueError, match=r"rows have steps of their own \(.*long 12"):
        compare(recipe, None, 1, progress=False, budget="time")
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("train", {"batch": 4}),
        ("train", {"crop": (16, 16)}),
        ("student", {"options": {"width": 16}}),
        ("data", {"size": (64, 64)}),
    ],
)
def test_costs_of_other_settings_are_refused(
    part: str, changes: dict[str, Any], teacher: RunFolder, tmp_path: Path
) -> None:
    kd, idd = (_recipe(teacher, tmp_path, method=name) for name in ("kd", "idd"))
    equal_time({"kd": kd, "idd": idd}, tmp_path)
    other = replace(kd, **{part: replace(getattr(kd, part), **changes)})
    with pytest.raises(
        ValueError, match=r"costs\.json was measured with other settings of kd; exp"
    ):
        equal_time({"kd": other, "idd": idd}, tmp_path)
    free = replace(kd, train=replace(kd.train, lr=1.0, seed=9, save_every=1))
    equal_time({"kd": free}, tmp_path)


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 7}, "is of train.steps 7; expected 6"),
        ({"rows": {"idd": {"preparation": 0, "step": 1}}}, "no row named 'kd'"),
        ({"rows": {"kd": {"preparation": 0, "step": 0}}}, "kd.step is 0; expected"),
        ({"rows": {"kd": {"step": 1}}}, "preparation is missing). Remove it"),
        ({"rows": []}, "is damaged (rows is []"),
    ],
)
def test_costs_of_another_comparison_are_refused(
    change: dict[str, Any], message: str, teacher: RunFolder, tmp_path: Path
) -> None:
    recipes = {"kd": _recipe(teacher, tmp_path, method="kd")}
    equal_time(recipes, tmp_path)
    file = tmp_path / "costs.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ValueError, match=re.escape(message)):
        equal_time(recipes, tmp_path)


def test_an_unknown_budget_is_one_line(
    teacher: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = small.write(tmp_path / "r.yaml", **small.distilled(teacher.path))
    with pytest.raises(SystemExit) as stopped:
        cli.main(["compare", str(file), "--budget", "hours"])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "budget" in line
    assert "hours" in line
    assert "time" in line
