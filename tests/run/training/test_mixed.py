"""Trainings on images of which some have labels."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from segdistill.cli import main
from segdistill.data import build_dataset
from segdistill.run.folder import RunFolder
from segdistill.run.recipe import parse_recipe
from segdistill.run.training.train import train
from segdistill.run.training.updates.rows import kept_shares
from tests.run import processes, small
from tests.run.training.test_train import _assert_same_weights, _kill_and_resume

DATA = {
    "name": "synthetic",
    "options": {"size": [32, 48], "count": 6},
    "train_options": {"labelled": 2},
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return small.teacher(tmp_path_factory.mktemp("mixed") / "teacher")


def _values(teacher: RunFolder, **changes: Any) -> dict[str, Any]:
    settings = {"data": DATA, **small.distilled(teacher.path, method="kd")}
    training = {"batch": 4, "steps": 2, "log_every": 1, **changes.pop("train", {})}
    return small.values(**{**settings, **changes}, train=training)


def _train(teacher: RunFolder, out: Path, **changes: Any) -> RunFolder:
    return train(parse_recipe(_values(teacher, **changes, out=str(out))), progress=False)


@pytest.mark.parametrize(
    ("method", "share", "said"),
    [
        # 2 of 6 is a third of 4, rounded to 1.
        ("kd", None, "1 of the 4 of each batch (by default, as in the split)"),
        ("kd", 0.5, "2 of the 4 of each batch (train.labelled_share)"),
        ("kd", 0.01, "1 of the 4 of each batch (train.labelled_share)"),
        ("kd", 0.99, "3 of the 4 of each batch (train.labelled_share)"),
        ("kd", 1.0, "4 of the 4 of each batch (train.labelled_share)"),
        ("supervised", None, "4 of the 4 of each batch (by default, as no term learns from the"),
        ({"name": "supervised", "labels": "both"}, None, "1 of the 4 of each batch (by default"),
        ("supervised", 0.5, "2 of the 4 of each batch (train.labelled_share)"),
    ],
)
def test_the_mix_is_told_and_recorded(
    method: Any, share: float | None, said: str, teacher: RunFolder, tmp_path: Path, caplog: Any
) -> None:
    caplog.set_level("INFO", "segdistill")
    run = _train(teacher, tmp_path, method=method, train={"steps": 1, "labelled_share": share})
    assert f"2 of the 6 images of train have labels; {said}" in caplog.text
    info = run.model_info()
    assert (info["train_labelled"], info["train_images"]) == (2, 6)


def test_a_split_with_all_labels_tells_of_no_mix(
    teacher: RunFolder, tmp_path: Path, caplog: Any
) -> None:
    caplog.set_level("INFO", "segdistill")
    run = _train(teacher, tmp_path, data={**DATA, "train_options": {}}, train={"steps": 1})
    assert "of each batch" not in caplog.text
    assert run.model_info()["train_labelled"] == run.model_info()["train_images"] == 6


def test_a_killed_mixed_run_resumes_bit_identically(teacher: RunFolder, tmp_path: Path) -> None:
    method = {"name": "kd", "labels": "both", "confidence": 0.2}
    changes = {"data": DATA, **small.distilled(teacher.path, method=method)}
    kills = {signal.SIGKILL: 4}
    _kill_and_resume(kills, changes, tmp_path, batch=4, labelled_share=0.5, workers=1)


def test_the_seed_decides_the_mix(teacher: RunFolder, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        _train(teacher, tmp_path / name, train={"seed": seed})
    _assert_same_weights(tmp_path / "a", tmp_path / "b")
    with pytest.raises(AssertionError):
        _assert_same_weights(tmp_path / "a", tmp_path / "c")


def test_two_processes_see_the_mix_of_one(teacher: RunFolder, tmp_path: Path) -> None:
    """The one labelled image of each batch is the second process's: the first has none to learn the task from."""
    recipe = small.write(
        tmp_path / "recipe.yaml",
        data=DATA,
        **small.distilled(teacher.path, method="kd"),
        train={"batch": 4, "steps": 1, "log_every": 1},
    )
    one, two = tmp_path / "one", tmp_path / "two"
    assert main(["train", str(recipe), "--out", str(one)]) in (None, 0)
    processes.run_two(tmp_path / "log", main, ["train", str(recipe), "--out", str(two)])
    rows = [RunFolder(out).metrics()[0]["terms"] for out in (one, two)]
    for term in ("cross_entropy", "pixelwise"):
        values = [row[term]["value"] for row in rows]
        # Batch norm takes its statistics from each process's own images.
        assert values[0] == pytest.approx(values[1], rel=0.3) and values[0] > 0


def test_what_the_gates_let_through_is_logged_by_class(teacher: RunFolder, tmp_path: Path) -> None:
    run = _train(
        teacher,
        tmp_path,
        method={"name": "kd", "labels": "both", "confidence": 0.125},
        terms={"pixelwise": {"options": {"confidence": 0.125}}},
    )
    for row in run.metrics()[:2]:
        assert list(row["kept"]) == ["labels", "pixelwise"]
        for shares in row["kept"].values():
            found = [share for share in shares if share is not None]
            assert max(found) > 0 and min(found) < 1 and len(shares) <= small.CLASSES


def test_a_gate_that_lets_nothing_through_is_told_once(
    teacher: RunFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _train(
        teacher,
        tmp_path,
        method={"name": "kd", "labels": "both", "confidence": 1.0},
        terms={"pixelwise": {"options": {"confidence": 0.125}}},
    )
    said = [text for text in caplog.messages if "no pixel reaches" in text]
    assert len(said) == 1 and "no pixel reaches method.confidence, so nothing is learnt" in said[0]


def test_the_share_of_a_class_without_a_pixel_is_none() -> None:
    table = torch.tensor([[4, 1], [0, 0], [2, 2], [0, 0]])
    assert kept_shares({"labels": table}) == {"labels": [0.25, None, 1.0]}


FORM = {"intra_class": {"weight": 1.0, "on": "features", "options": {"form": "ifvd"}}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data": {**DATA, "train_options": {}}, "train": {"labelled_share": 0.5}},
            r"train\.labelled_share is 0\.5, and all of the 6 images of train have labels; expected null",
        ),
        (
            {"train": {"labelled_share": 0.0}},
            r"train\.labelled_share is 0\.0; expected a fraction from 10\^-6 to 1",
        ),
        (
            {"train": {"batch": 1}},
            r"train\.batch is 1, and 2 of the 6 images of train have labels; expected 2 or more",
        ),
        (
            {"terms": FORM},
            r"terms\.intra_class: this published form counts images without labels as zeros .* method\.labels "
            "to both",
        ),
        (
            {
                "method": {"name": "kd", "labels": "both"},
                "terms": {"cross_entropy": {"options": {"balance": "sqrt"}}},
            },
            r"terms\.cross_entropy: balance is set with method\.labels both",
        ),
        (
            {"data": {**DATA, "train_options": {}, "options": {**DATA["options"], "labelled": 2}}},
            "synthetic, split 'val', has labels for 2 of its 6 images; expected labels for all .* Move `labelled`",
        ),
    ],
)
def test_what_a_mixed_split_cannot_do_is_refused(
    changes: dict[str, Any], message: str, teacher: RunFolder, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        _train(teacher, tmp_path / "run", **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"terms": FORM, "method": {"name": "kd", "labels": "both"}},
        {"terms": FORM, "train": {"labelled_share": 1.0}},
        {"terms": {"cross_entropy": {"options": {"balance": "sqrt"}}}},
        {"train": {"batch": 1, "labelled_share": 1.0}},
        {"method": "bpkd"},
    ],
)
def test_what_it_can_do_is_done(
    changes: dict[str, Any], teacher: RunFolder, tmp_path: Path
) -> None:
    changes["train"] = {"steps": 1, **changes.get("train", {})}
    assert _train(teacher, tmp_path / "run", **changes).finished


def test_classes_are_counted_in_the_labels_that_there_are(
    teacher: RunFolder, tmp_path: Path
) -> None:
    balanced = {"cross_entropy": {"options": {"balance": "sqrt"}}}
    run = _train(teacher, tmp_path, terms=balanced, train={"steps": 1})
    dataset = build_dataset("synthetic", count=6, size=(32, 48), labelled=2)
    labelled = [dataset[i]["label"] for i in range(6) if dataset.has_labels(i)]
    expected = sum((one != 255).sum() for one in labelled)
    counted = json.loads((run.path / "class_pixels.json").read_text())
    assert counted["total"] == int(expected) == sum(counted["pixels"])


def test_check_and_the_report_say_how_many_images_have_labels(
    teacher: RunFolder, tmp_path: Path, capsys: Any
) -> None:
    recipe = small.write(tmp_path / "recipe.yaml", **_values(teacher, out=str(tmp_path / "run")))
    main(["check", str(recipe)])
    assert "train: 6 images with masks for 2 of them" in capsys.readouterr().out
    main(["train", str(recipe)])
    page = tmp_path / "report.html"
    main(["report", str(tmp_path / "run"), "--out", str(page)])
    assert "2 of the 6 training images had labels: kd." in page.read_text()
