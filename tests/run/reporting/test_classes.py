"""Means of a comparison are over the classes that the images label, for every run alike."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from segdistill.run.evaluation.evaluate import Evaluation
from segdistill.run.reporting import left_out, left_out_in_words
from segdistill.run.reporting.reading.classes import with_labelled_classes
from segdistill.run.reporting.summary import RunSummary, paired_miou

CLASSES = ["sky", "road", "box", "dot"]
NEVER_DOT = np.array([[9, 1, 0, 0], [1, 9, 0, 0], [2, 0, 8, 0], [0, 0, 0, 0]])
ONE_DOT = np.array([[9, 0, 0, 1], [0, 10, 0, 0], [0, 0, 10, 0], [0, 0, 0, 0]])


def _measured(confusion: np.ndarray, images: str = "a", **changes: Any) -> dict[str, Any]:
    result = Evaluation.from_confusion(
        torch.tensor(confusion), classes=CLASSES, images=4, **changes
    )
    return {**result.to_json(), "val_data": images, "split": "val"}


def _runs(control: dict[str, Any], method: dict[str, Any]) -> list[RunSummary]:
    return [
        RunSummary("control-s0", "control", "control", 0, evaluation=control),
        RunSummary("kd-s0", "kd", "method", 0, evaluation=method),
    ]


def test_a_class_without_labels_counts_for_neither_side_of_a_difference() -> None:
    runs = _runs(_measured(NEVER_DOT), _measured(ONE_DOT))
    before = paired_miou(runs, "kd")
    assert before is not None and before.mean < 0  # over 4 classes against 3
    alike = with_labelled_classes(runs)
    iou = [[9 / 13, 9 / 11, 8 / 10], [9 / 10, 1, 1]]
    assert [run.miou for run in alike] == pytest.approx([100 * np.mean(one) for one in iou])
    assert [(run.evaluation or {})["classes_counted"] for run in alike] == [3, 3]
    assert left_out(alike) == {"val": ["dot"]} and left_out(runs) == {}
    assert left_out_in_words(alike).startswith(
        "Left out of all means, since no label has it: dot (on val)."
    )


def test_a_further_set_leaves_out_its_own_classes() -> None:
    whole = _measured(NEVER_DOT + np.eye(4, dtype=int))
    control, method = _runs(whole, whole)
    runs = [
        replace(control, sets={"far": _measured(NEVER_DOT, "b")}),
        replace(method, sets={"far": _measured(ONE_DOT, "b")}),
    ]
    alike = with_labelled_classes(runs)
    assert [run.evaluation for run in alike] == [whole, whole]
    assert left_out(alike) == {"far": ["dot"]}
    assert alike[1].on("far").miou == pytest.approx(100 * (0.9 + 2) / 3)


def test_a_teacher_without_a_confusion_matrix_of_its_own_is_counted_alike() -> None:
    method = _measured(ONE_DOT)
    bare = {key: method[key] for key in ("miou", "iou", "pixel_accuracy")}
    runs = [RunSummary("teacher", "teacher", "teacher", evaluation=bare), *_runs(method, method)]
    assert len({run.miou for run in with_labelled_classes(runs)}) == 1


@pytest.mark.parametrize("changes", [{"absent": "zero"}, {}])
def test_nothing_changes_where_all_runs_count_the_same_classes(changes: dict[str, Any]) -> None:
    confusions = (NEVER_DOT, ONE_DOT) if changes else (NEVER_DOT, NEVER_DOT)
    runs = _runs(*(_measured(one, **changes) for one in confusions))
    assert with_labelled_classes(runs) == runs and left_out_in_words(runs) == ""


def test_sets_of_other_images_have_their_own_classes() -> None:
    """Such as two folds of which one lacks a class."""
    runs = _runs(_measured(ONE_DOT, "a"), _measured(ONE_DOT + np.eye(4, dtype=int), "b"))
    one, other = with_labelled_classes(runs)
    assert (one.evaluation or {})["classes_counted"] == 3 and other == runs[1]
