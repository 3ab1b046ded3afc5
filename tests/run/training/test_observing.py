"""Observers receive every row, may stop a training, and do no damage if they fail."""

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from segdistill.cli import main
from segdistill.observers import EarlyStopping
from segdistill.run.folder import RunFolder
from segdistill.run.training.checkpoint import load_checkpoint
from segdistill.run.training.loop import Interrupted
from segdistill.run.training.observing import Observers
from segdistill.run.training.train import train
from tests.run import small
from tests.run.processes import run_two

HERE = "tests.run.training.test_observing"


class Keeps:
    """Records its calls."""

    def __init__(self) -> None:
        self.rows: list[Mapping[str, Any]] = []
        self.before: list[Mapping[str, Any]] | None = None
        self.run: RunFolder | None = None

    def started(self, run: RunFolder, rows: Sequence[Mapping[str, Any]]) -> None:
        self.before = list(rows)

    def row(self, values: Mapping[str, Any]) -> None:
        self.rows.append(values)

    def finished(self, run: RunFolder) -> None:
        assert run.finished
        self.run = run


class StopsAt:
    """Stops the training at a step; has no `started`."""

    def __init__(self, step: int = 4, reason: Any = "enough") -> None:
        self.step, self.reason = step, reason

    def row(self, values: Mapping[str, Any]) -> Any:
        return self.reason if values["step"] >= self.step else None

    def finished(self, run: RunFolder) -> None:
        pass


class Fails:
    """Raises an error, at a step or at the end."""

    def __init__(self, step: int = 4, error: type[BaseException] = RuntimeError) -> None:
        self.step, self.error = step, error

    def row(self, values: Mapping[str, Any]) -> None:
        if values["step"] == self.step:
            raise self.error("the disk\nis full")

    def finished(self, run: RunFolder) -> None:
        if self.step == 0:
            raise self.error("the disk is full")


class Changes:
    """Changes the rows that it is given."""

    def row(self, values: Any) -> None:
        values["step"] = -1
        values.get("terms", {}).clear()

    def finished(self, run: RunFolder) -> None:
        pass


class NoObserver:
    """Has one of the two methods."""

    def row(self, values: Mapping[str, Any]) -> None:
        pass


def _train(out: Path, *observers: Any, **changes: Any) -> RunFolder:
    changes = {"train": {"steps": 12, "val_every": 6, "save_every": 4}, **changes}
    return train(small.recipe(**changes, out=str(out)), progress=False, observers=observers)


def test_an_observer_cannot_change_the_row_of_another() -> None:
    keeps = Keeps()
    row = {"kind": "train", "step": 3, "terms": {"cross_entropy": {"value": 1.0}}}
    Observers([Changes(), keeps]).row(row)
    assert keeps.rows == [row]
    assert row["step"] == 3 and row["terms"]


def test_every_row_is_shown_as_it_is_written(tmp_path: Path) -> None:
    watcher = Keeps()
    run = _train(tmp_path, watcher)
    assert watcher.rows == run.metrics()
    assert [row["kind"] for row in watcher.rows].count("val") == 2
    assert watcher.before == []
    assert watcher.run is not None
    assert watcher.run.path == tmp_path


def test_rows_of_the_preparation_reach_observers(tmp_path: Path) -> None:
    teacher = small.teacher(tmp_path / "teacher")
    watcher = Keeps()
    changes = small.distilled(teacher.path, train={"steps": 2})
    run = _train(tmp_path / "run", watcher, **changes)
    assert watcher.rows == run.metrics()
    assert watcher.rows[0]["kind"] == "preparation"


def test_an_observer_stops_the_training_and_the_run_records_it(tmp_path: Path) -> None:
    watcher = Keeps()
    run = _train(tmp_path, StopsAt(4), watcher)
    assert run.finished
    info = run.model_info()
    assert info["step"] == 4
    assert info["stopped"] == {"step": 4, "by": f"{HERE}.StopsAt", "reason": "enough"}
    assert run.config()["train"]["steps"] == 12
    last = run.metrics()[-1]
    assert (last["kind"], last["step"]) == ("val", 4)
    figures = run.evaluation()
    assert figures is not None
    assert last["miou"] == figures["miou"]
    assert watcher.rows[-1] == last
    assert load_checkpoint(tmp_path) is None


def test_a_complete_training_is_not_marked_as_stopped(tmp_path: Path) -> None:
    info = _train(tmp_path, StopsAt(12)).model_info()
    assert (info["step"], info["stopped"]) == (12, None)


def test_a_stopped_training_is_the_start_of_the_whole_one(tmp_path: Path) -> None:
    """The schedule is not rescaled: the weights are those of the complete training at that step."""
    with pytest.raises(ValueError):
        _train(tmp_path / "whole", Fails(6))
    state = load_checkpoint(tmp_path / "whole")
    assert state is not None
    assert state["step"] == 6
    for key, value in load_file(_train(tmp_path / "cut", StopsAt(6)).weights_path()).items():
        torch.testing.assert_close(
            value, state["distiller"][f"student.module.{key}"], rtol=0, atol=0
        )


def test_a_killed_run_resumes_to_the_same_stop(tmp_path: Path) -> None:
    """The learning rate only falls, so the training stops at the third row after the first, before the kill."""
    observers = [
        {
            "path": "segdistill.observers.EarlyStopping",
            "options": {"patience": 4, "monitor": "lr"},
        }
    ]
    whole = _train(tmp_path / "whole", observers=observers)
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "cut", Fails(6, KeyboardInterrupt), observers=observers)
    state = load_checkpoint(tmp_path / "cut")
    assert state is not None
    assert state["step"] == 4
    watcher = Keeps()
    cut = _train(tmp_path / "cut", watcher, observers=observers)
    assert whole.model_info()["stopped"]["step"] == 10
    assert cut.model_info()["stopped"] == whole.model_info()["stopped"]
    assert watcher.before is not None
    assert [row["step"] for row in watcher.before] == [2, 4]
    weights = load_file(cut.weights_path())
    for key, value in load_file(whole.weights_path()).items():
        torch.testing.assert_close(weights[key], value, rtol=0, atol=0)
    steps = [[row["step"] for row in run.metrics()] for run in (whole, cut)]
    assert steps[0] == steps[1] == [2, 4, 6, 6, 8, 10, 10]


def test_a_stop_is_kept_when_a_signal_comes_at_the_same_step(tmp_path: Path) -> None:
    class Once(StopsAt):
        def row(self, values: Mapping[str, Any]) -> Any:
            if values["step"] == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().row(values)

    with pytest.raises(Interrupted, match="stopped after step 4"):
        _train(tmp_path, Once(4))
    run = _train(tmp_path)
    assert run.model_info()["stopped"]["reason"] == "enough"
    assert [row["step"] for row in run.metrics()] == [2, 4, 4]


def test_a_failing_observer_is_named_and_the_training_is_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        _train(tmp_path, Fails(6))
    text = str(caught.value)
    assert (
        f"observer {HERE}.Fails failed in row() at step 6 (RuntimeError: the disk is full). The"
        in text
    )
    assert "\n" not in text
    assert "then repeat the command to resume" in text
    state = load_checkpoint(tmp_path)
    assert state is not None
    assert state["step"] == 6
    run = _train(tmp_path)
    assert [row["step"] for row in run.metrics()] == [2, 4, 6, 6, 8, 10, 12, 12]


def test_an_observer_that_fails_at_the_end_leaves_the_run_complete(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"failed in finished\(\) .*The run itself is complete"):
        _train(tmp_path, Fails(0), train={"steps": 2})
    assert RunFolder(tmp_path).finished


@pytest.mark.parametrize("answer", [True, "", 3])
def test_an_invalid_observer_result_is_refused(answer: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"StopsAt is .*; expected None, or a non-empty string"):
        _train(tmp_path, StopsAt(2, answer))


def test_a_finished_run_with_other_observers_is_the_same_run(tmp_path: Path) -> None:
    run = _train(tmp_path, observers=[f"{HERE}.Keeps"])
    written = run.weights_path().stat().st_mtime_ns
    assert run.config()["observers"] == [f"{HERE}.Keeps"]
    assert _train(tmp_path, observers=[]).weights_path().stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            f"{HERE}.Kepes",
            r"no class or function in tests.*test_observing named 'Kepes'; .*'Keeps'",
        ),
        (f"{HERE}.small", r"observer '.*small' is of type module; expected a class"),
        ("Keeps", r"observer is 'Keeps'; expected a dotted path such as 'package\.module\.Name'"),
        ("nowhere.Keeps", r"observer 'nowhere\.Keeps': no module named 'nowhere'"),
        (f"{HERE}.NoObserver", r"has no method finished\(run\); expected row\(values\) and"),
        (
            {"path": f"{HERE}.StopsAt", "options": {"setp": 3}},
            r"StopsAt: no option named 'setp'; did you mean 'step'",
        ),
        (
            {"path": "segdistill.observers.EarlyStopping", "options": {"patience": 0}},
            r"EarlyStopping: patience is 0; expected a positive integer",
        ),
        ({"options": {}}, r"observers.0 has no path; expected the keys path, options"),
        ({"path": f"{HERE}.Keeps", "option": {}}, r"observers.0.option: .*mean 'options'"),
    ],
)
def test_an_invalid_observer_is_refused_before_training(
    entry: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        _train(tmp_path, observers=[entry])
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_class_instead_of_an_observer_object_is_refused(tmp_path: Path) -> None:
    message = r"EarlyStopping is a class; expected an object, such as EarlyStopping\(\)"
    with pytest.raises(ValueError, match=message):
        _train(tmp_path, EarlyStopping)


def test_two_processes_stop_at_the_same_step(tmp_path: Path) -> None:
    """Only the first process has observers; the other would wait forever if it continued."""
    observers = [{"path": f"{HERE}.StopsAt", "options": {"step": 4}}]
    training = {"steps": 40, "batch": 4}
    recipe = small.write(tmp_path / "recipe.yaml", observers=observers, train=training)
    run_two(tmp_path / "log", main, ["train", str(recipe), "--out", str(tmp_path / "run")])
    run = RunFolder(tmp_path / "run")
    assert run.model_info()["stopped"]["step"] == 4
    assert run.environment()["processes"] == 2
