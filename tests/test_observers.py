"""The package's observers, with hand-written rows and TensorBoard's own reader."""

import logging
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from segdistill.config import recipe_text
from segdistill.observers import EarlyStopping, TensorBoard
from segdistill.run.folder import RunFolder
from segdistill.run.training.train import train
from tests.run import small


def _answers(stop: EarlyStopping, values: list[float]) -> list[str | None]:
    rows = [{"kind": "val", "step": 10 * i, "miou": v} for i, v in enumerate(values, start=1)]
    return [stop.row(row) for row in rows]


def test_patience_counts_from_the_best_value() -> None:
    answers = _answers(EarlyStopping(patience=2), [0.3, 0.2, 0.4, 0.4, 0.39])
    assert answers[:4] == [None] * 4
    assert answers[4] == "miou has not improved on 0.4 (step 30) for 2 rows"


def test_smaller_may_be_better_and_small_gains_may_not_count() -> None:
    falling = [3.0, 2.0, 1.95, 1.91]
    assert _answers(EarlyStopping(2, mode="min"), falling) == [None] * 4
    answers = _answers(EarlyStopping(2, mode="min", min_delta=0.1), falling)
    assert answers[:3] == [None] * 3
    assert answers[3] == "miou has not improved on 2 (step 20) for 2 rows"


def test_nan_is_not_an_improvement() -> None:
    assert _answers(EarlyStopping(2), [math.nan, math.nan])[1] is not None


def test_rows_of_other_kinds_are_skipped_and_nested_values_found() -> None:
    stop = EarlyStopping(1, monitor="terms.cross_entropy.value", mode="min")
    terms = {"cross_entropy": {"value": 1.0, "share": None}}
    assert stop.row({"kind": "train", "step": 1, "terms": terms}) is None
    assert stop.row({"kind": "val", "step": 1, "miou": 0.3}) is None
    assert stop.row({"kind": "train", "step": 2, "terms": terms}) is not None


@pytest.mark.parametrize(
    ("monitor", "val_every", "warned"),
    [("miou", 0, True), ("iou.3", 0, True), ("miou", 5, False), ("total", 0, False)],
)
def test_a_value_that_is_measured_only_at_the_end_is_warned_of(
    monitor: str,
    val_every: int,
    warned: bool,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    recipe = small.recipe(train={"val_every": val_every})
    (tmp_path / "config.yaml").write_text(recipe_text(recipe))
    with caplog.at_level(logging.WARNING):
        EarlyStopping(monitor=monitor).started(RunFolder(tmp_path), [])
    assert ("measured only at the end" in caplog.text) == warned


def test_an_unknown_monitor_is_named_with_the_nearest() -> None:
    stop = EarlyStopping(monitor="miuo")
    assert stop.row({"kind": "train", "step": 1, "total": 2.0}) is None
    with pytest.raises(ValueError, match=r"no value of a row named 'miuo'; did you mean 'miou'"):
        stop.row({"kind": "val", "step": 1, "miou": 0.3})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 1.5}, r"patience is 1.5; expected a positive integer"),
        ({"mode": "most"}, r"mode is 'most'; expected 'max' or 'min'"),
        ({"min_delta": -1}, r"min_delta is -1; expected 0 or more"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_arguments_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EarlyStopping(**options)


def test_it_warns_if_there_were_no_evaluations_to_decide_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        train(small.recipe(out=str(tmp_path)), progress=False, observers=[EarlyStopping()])
    assert "miou is in 1 rows of" in caplog.text
    assert "Set train.val_every" in caplog.text


class Killed:
    """Kills the training at a step, after its row was written."""

    def row(self, values: Mapping[str, Any]) -> None:
        if values["step"] == 6:
            raise KeyboardInterrupt

    def finished(self, run: RunFolder) -> None:
        pass


def test_tensorboard_has_each_row_once_after_resuming(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    path = "segdistill.observers.TensorBoard"
    recipe = small.recipe(
        observers=[path], train={"steps": 10, "save_every": 4, "val_every": 4}, out=str(tmp_path)
    )
    with pytest.raises(KeyboardInterrupt):
        train(recipe, progress=False, observers=[Killed()])
    run = train(recipe, progress=False)
    # Nothing is purged, so duplicate steps would be visible.
    curves = reader.EventAccumulator(str(tmp_path / "tensorboard"), purge_orphaned_data=False)
    curves.Reload()

    def points(tag: str) -> list[int]:
        return [event.step for event in curves.Scalars(tag)]

    def values(tag: str) -> list[float]:
        return [event.value for event in curves.Scalars(tag)]

    rows = {kind: [r for r in run.metrics() if r["kind"] == kind] for kind in ("train", "val")}
    assert points("train/total") == [2, 4, 6, 8, 10]
    assert values("train/total") == pytest.approx([r["total"] for r in rows["train"]])
    assert values("train/terms/cross_entropy/value") == pytest.approx(
        [r["terms"]["cross_entropy"]["value"] for r in rows["train"]]
    )
    assert points("val/miou") == [4, 8, 10]
    assert values("val/miou") == pytest.approx([r["miou"] for r in rows["val"]])


def test_a_missing_tensorboard_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ValueError, match=r'pip install "segdistill\[tensorboard\]"'):
        TensorBoard()
