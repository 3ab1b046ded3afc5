"""A small demo: the same runs, table and report with few scenes and steps."""

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from segdistill.config import Recipe
from segdistill.run import demo as module
from segdistill.run.recipe import load_recipe


def _small(path: Path) -> Recipe:
    recipe = load_recipe(path)
    data = replace(recipe.data, options={"size": [32, 48], "count": 8, "seed": 100})
    train = replace(recipe.train, steps=3, batch=2, crop=(32, 48), log_every=1, device="cpu")
    return replace(recipe, data=data, train=train)


@pytest.mark.usefixtures("undrawn")
def test_the_demo_trains_all_rows_and_writes_table_and_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(module, "load_recipe", _small)
    monkeypatch.setattr("segdistill.run.auditing.teacher.refusal", lambda *_: "")
    page = module.demo(tmp_path, seeds=1)
    runs = {folder.parent.name for folder in tmp_path.glob("*/evaluation.json")}
    assert runs == {"teacher", "supervised-s0", "kd-s0", "idd-s0"}
    text = page.read_text()
    assert "were designed to reward knowledge of classes and positions" in text
    assert (tmp_path / "comparison.json").is_file()
    told = caplog.messages
    clock = r"\d+:\d\d"
    parts = ", ".join(f"{name} {clock}" for name in ("teacher", "supervised-s0", "kd-s0", "idd-s0"))
    assert told[0] == "timing 4 steps of each training on this machine"
    assert re.fullmatch(rf"about {clock} in total: {parts}, report {clock}", told[1])
    assert re.fullmatch(rf"1/3  the teacher, about {clock}", told[2])
    left = [m for m in told if re.fullmatch(rf".* is finished; about {clock} left", m)]
    assert [m.split()[0] for m in left] == ["teacher", "supervised-s0", "kd-s0", "idd-s0"]
    assert sum("× smaller" in line for line in told) == 1
    caplog.clear()
    module.demo(tmp_path, seeds=1)
    # Everything is finished, so nothing is timed or estimated.
    assert caplog.messages[0] == "1/3  the teacher"


def test_the_measured_pace_is_extrapolated_to_all_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Run:
        def metrics(self) -> list[dict[str, Any]]:
            paces = (9.0, 2.0, 3.0, 2.5)
            return [{"kind": "train", "seconds_per_step": pace} for pace in paces]

    times = iter([100.0, 126.5])
    monkeypatch.setattr(module, "train", lambda *_, **__: Run())
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(times))
    recipe = replace(load_recipe(module.recipes_folder() / "synthetic" / "teacher.yaml"), out="a")
    # 26.5 s, of which 16.5 s in steps; then 500 steps of 2.5 s, the median without the first.
    assert module._seconds_of(recipe, tmp_path) == pytest.approx(10 + 500 * 2.5)


def test_zero_seeds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seeds is 0; expected a positive integer"):
        module.demo(tmp_path, seeds=0)


def test_the_demos_recipes_are_found() -> None:
    assert (module.recipes_folder() / "synthetic" / "idd.yaml").is_file()
