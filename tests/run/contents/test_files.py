import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from segdistill.run.contents import Damaged, read_json, read_metrics
from segdistill.run.evaluation import Agreement, Evaluation

CONFUSION = torch.tensor([[6, 1, 0], [2, 4, 0], [0, 0, 0]])


def _evaluation(**changes: Any) -> dict[str, Any]:
    kind = changes.pop("kind", Evaluation)
    return {**kind.from_confusion(CONFUSION, classes=["a", "b", "c"]).to_json(), **changes}


def _written(folder: Path, name: str, values: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps(values))
    return path


@pytest.mark.parametrize("kind", [Evaluation, Agreement])
@pytest.mark.parametrize("absent", ["undefined", "zero"])
def test_metrics_agree_with_their_counts(kind: Any, absent: Any, tmp_path: Path) -> None:
    values = kind.from_confusion(CONFUSION, classes=["a", "b", "c"], absent=absent).to_json()
    assert read_json(_written(tmp_path, "evaluation.json", values)) == values
    for key in kind.from_confusion(CONFUSION).figures():
        wrong = json.loads(json.dumps(values))
        # 6 of 9, 4 of 7; 13 pixels, of which 10 are right
        if isinstance(wrong[key], list):
            wrong[key][0] += 0.01
        else:
            wrong[key] += 0.01
        path = _written(tmp_path, "evaluation.json", wrong)
        with pytest.raises(Damaged, match=rf"damaged \({key} differs from what \w*confusion gives"):
            read_json(path)


@pytest.mark.parametrize(
    ("name", "values", "problem"),
    [
        ("evaluation.json", [], "the content is []; expected a mapping"),
        ("evaluation.json", {}, "miou is missing"),
        ("evaluation.json", _evaluation(miou="0.5"), "miou is '0.5'; expected a number in [0, 1]"),
        ("evaluation.json", _evaluation(miou=True), "miou is True; expected a number in [0, 1]"),
        ("evaluation.json", _evaluation(iou=[0.1, float("nan"), None]), "iou.1 is nan; expected"),
        ("evaluation.json", _evaluation(classes=["a"]), "more or fewer figures than classes"),
        ("evaluation.json", _evaluation(protocol=[]), "protocol is []; expected a mapping"),
        ("environment.json", "text", "the content is 'text'; expected a mapping"),
        ("environment.json", {"load": "high"}, "load is 'high'; expected a number from 0"),
        ("identity.json", {"student_start": "0"}, "teacher is missing"),
        ("preparation.json", {"position": [1]}, "position is [1]; expected a mapping"),
        ("teacher.json", {"miou": 7}, "miou is 7; expected a number in [0, 1]"),
        (
            "claims.json",
            {"contrasts": [["a"]], "finished_before": 0},
            "expected a list of 2 values",
        ),
        (
            "class_pixels.json",
            {"split": "train", "classes": ["a", "b"], "pixels": [7, 2], "total": 8},
            "total is not the sum of pixels",
        ),
        ("transfer.json", {"val": {"images": 1}}, "val: student is missing"),
        ("parity.json", {"model.onnx": {}}, "model.onnx: sha256 is missing"),
        ("model.json", {"name": "x", "num_classes": 10**30}, "options is missing"),
        (
            "model.json",
            {"name": "x", "num_classes": 2, "options": {}, "classes": ["a"]},
            "num_classes, classes and palette are of different lengths",
        ),
    ],
)
def test_other_content_than_was_written(
    name: str, values: Any, problem: str, tmp_path: Path
) -> None:
    with pytest.raises(Damaged) as caught:
        read_json(_written(tmp_path, name, values))
    message = str(caught.value)
    assert f"{name} is damaged ({'' if problem in message else problem}" in message
    assert problem in message and "\n" not in message


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it is empty"),
        (b'{"a": 1', "not JSON from line 1"),
        (b"\xff\xfe{\0", "it is not text in UTF-8"),
        (b"[" * 100_000, "not JSON: "),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON: "),
    ],
    ids=["empty", "cut off", "UTF-16", "nested", "digits"],
)
def test_bytes_that_are_no_json(content: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "preparation.json"
    path.write_bytes(content)
    with pytest.raises(Damaged, match=rf"json is damaged \({problem}.*Restore it, or retrain"):
        read_json(path)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "preparation.json"
    path.write_bytes(b"\xef\xbb\xbf{}")
    assert read_json(path) == {}
    path.with_name("metrics.jsonl").write_bytes(b'\xef\xbb\xbf{"step": 1}\n')
    assert read_metrics(path.with_name("metrics.jsonl")) == [{"step": 1}]


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda path: path.mkdir(), "a folder; expected a file"),
        (os.mkfifo, "a named pipe; expected a file"),
        (lambda path: path.symlink_to("/nowhere/file"), "a link to nothing that can be read"),
        (lambda path: path.symlink_to(path.name), "a link to nothing that can be read"),
        (lambda path: path.symlink_to("/dev/zero"), "a device; expected a file"),
    ],
    ids=["folder", "pipe", "broken link", "circle", "device"],
)
def test_only_regular_files_are_read(
    make: Callable[[Path], object], kind: str, tmp_path: Path
) -> None:
    assert read_json(tmp_path / "identity.json") is None
    make(tmp_path / "identity.json")
    with pytest.raises(Damaged, match=f"identity.json is {kind}"):
        read_json(tmp_path / "identity.json")
    make(tmp_path / "metrics.jsonl")
    with pytest.raises(Damaged, match=f"metrics.jsonl is {kind}"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_rows_of_another_shape_are_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    rows: list[Any] = [
        {"step": 1, "terms": {"cross_entropy": {"value": 1.0, "weight": 1, "share": None}}},
        {"step": 2, "terms": None},
        {"step": "3"},
        {"step": 4, "seconds_per_step": -1},
        {"step": 5, "miou": [0.5]},
        {"step": True},
        {"step": 6, "kind": "val", "miou": 0.5, "iou": [0.5, None]},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [row["step"] for row in read_metrics(path)] == [1, 6]
    assert "metrics.jsonl: skipped damaged line 2, 3, 4, 5, 6" in caplog.text
