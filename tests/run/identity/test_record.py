"""A run knows what made it; whatever reads it checks what it reads."""

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from segdistill.run.commands import evaluate_run
from segdistill.run.compare import compare
from segdistill.run.folder import CHECKPOINTS, RunFolder
from segdistill.run.identity import IdentityDiffers, read_identity, record
from segdistill.run.lock import FolderInUse
from segdistill.run.networks import load_run_model
from segdistill.run.reporting.report import find_runs, report, summarise
from segdistill.run.shipping.export import export
from segdistill.run.shipping.predict import load_predictor
from segdistill.run.training.checkpoint import load_checkpoint
from segdistill.run.training.train import train
from tests.run import small
from tests.run.identity.folders import write_pairs
from tests.run.test_lock import hold_elsewhere

DATA = {"name": "folder", "options": {"classes": ["ground", "sky"]}}


def _recipe(base: Path, name: str, data: str = "data", **changes: Any) -> Any:
    return small.recipe(
        data={**DATA, "root": str(base / data)},
        out=str(base / name),
        train={"steps": 2, "save_every": 1, **changes.pop("train", {})},
        **changes,
    )


def _student(base: Path, name: str = "student", **changes: Any) -> Any:
    teacher = {"run": str(base / "teacher"), "min_miou": 0.0}
    return _recipe(base, name, teacher=teacher, method="kd", **changes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a teacher and a student in one folder."""
    base = tmp_path_factory.mktemp("identity")
    write_pairs(base / "data")
    train(_recipe(base, "teacher", train={"seed": 9}), progress=False)
    train(_student(base), progress=False)
    return base


@pytest.fixture
def base(trained: Path, tmp_path: Path) -> Path:
    """A copy whose recipes name the copy."""
    shutil.copytree(trained, tmp_path / "all")
    for config in (tmp_path / "all").rglob("config.yaml"):
        config.write_text(config.read_text().replace(str(trained), str(tmp_path / "all")))
    return tmp_path / "all"


def _zero_half(run: Path, weights: str = "model.safetensors") -> None:
    state = load_file(run / weights)
    for name in list(state)[: len(state) // 2]:
        state[name] = torch.zeros_like(state[name])
    save_file(state, run / weights)


def _retrain_teacher(base: Path) -> None:
    shutil.rmtree(base / "teacher")
    train(_recipe(base, "teacher", train={"seed": 10}), progress=False)


def test_a_run_records_what_made_it(base: Path) -> None:
    found = read_identity(RunFolder(base / "student"))
    assert found is not None
    assert found.classes == ["ground", "sky"]
    assert set(found.taps) == set(found.inputs) == {"student", "teacher"}
    teacher = read_identity(RunFolder(base / "teacher"))
    assert teacher is not None and teacher.teacher is None
    assert (teacher.train_data, teacher.val_data) == (found.train_data, found.val_data)
    assert teacher.train_data != teacher.val_data
    assert found.training_semantics == record.TRAINING_SEMANTICS


@pytest.mark.parametrize(
    "read",
    [
        lambda base: load_run_model(base / "teacher"),
        lambda base: load_predictor(base / "teacher"),
        lambda base: train(_student(base), progress=False),
        lambda base: train(_student(base, "another"), progress=False),
        lambda base: train(_recipe(base, "teacher", train={"seed": 9}), progress=False),
        lambda base: report([base / "teacher"], panels=0, images=1, latency=False),
        lambda base: evaluate_run(str(base / "teacher"), "model", None, {}, "cpu", absent=None),
        lambda base: export(base / "teacher"),
    ],
)
def test_weights_that_a_training_did_not_write_are_refused(
    read: Callable[[Path], Any], base: Path
) -> None:
    _zero_half(base / "teacher")
    with pytest.raises(ValueError, match=r"teacher/model.safetensors is not the file that"):
        read(base)


def test_the_best_weights_are_checked_too(base: Path) -> None:
    load_run_model(base / "student", "best")
    _zero_half(base / "student", "best.safetensors")
    with pytest.raises(ValueError, match=r"student/best.safetensors is not the file that"):
        load_run_model(base / "student", "best")


def test_figures_of_other_weights_are_refused(base: Path) -> None:
    shutil.copy(base / "teacher" / "evaluation.json", base / "student" / "evaluation.json")
    with pytest.raises(ValueError, match=r"student/evaluation.json does not belong to"):
        summarise([RunFolder(base / "student")])


def test_a_retrained_teacher_is_noticed(base: Path) -> None:
    _retrain_teacher(base)
    with pytest.raises(
        IdentityDiffers, match=r"student holds another experiment \(the teacher's w"
    ):
        train(_student(base), progress=False)
    for read in (
        lambda: summarise(find_runs([base / "student"])),
        lambda: evaluate_run(str(base / "student"), "model", None, {}, "cpu", absent=None),
    ):
        with pytest.raises(IdentityDiffers, match="differ from those that taught the run"):
            read()


def test_seeds_of_two_teachers_are_not_averaged(base: Path) -> None:
    first = train(_student(base, "cmp/kd-s0"), progress=False).path
    _retrain_teacher(base)
    other = train(_student(base, "cmp/kd-s1", train={"seed": 1}), progress=False)
    (first / "teacher.json").write_text("{}")  # what its teacher's file was is not known
    with pytest.raises(
        IdentityDiffers, match=r"cannot be compared: the teacher's weights differ\."
    ):
        summarise([RunFolder(first), other])
    recipe = _student(base, "cmp")
    with pytest.raises(IdentityDiffers, match=r"kd-s0 holds another experiment"):
        compare(recipe, ["supervised", "kd"], seeds=1, progress=False)
    assert not (base / "cmp" / "supervised-s0" / "model.safetensors").exists()


@pytest.mark.parametrize(
    "read",
    [
        lambda base: train(_student(base), progress=False),
        lambda base: evaluate_run(str(base / "student"), "model", None, {}, "cpu", absent=None),
        lambda base: report([base / "student"], panels=1, images=1, latency=False),
    ],
)
def test_data_of_the_same_name_and_other_bytes_is_refused(
    read: Callable[[Path], Any], base: Path
) -> None:
    write_pairs(base / "data", flipped=range(8))
    with pytest.raises(IdentityDiffers, match=r"the (training|validation) data"):
        read(base)


def test_a_teachers_figures_are_taken_over_only_on_the_same_data(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segdistill.run.training import teacher_audit

    asked: list[str] = []
    measured = teacher_audit.evaluate_with
    monkeypatch.setattr(
        teacher_audit, "evaluate_with", lambda *a: asked.append("measured") or measured(*a)
    )
    train(_student(base, "same"), progress=False)
    assert not asked
    (base / "data").rename(base / "moved")
    train(_student(base, "moved-s0", data="moved"), progress=False)
    assert not asked  # the same bytes elsewhere
    write_pairs(base / "data", flipped=range(8))
    train(_student(base, "changed"), progress=False)
    assert asked == ["measured"]


def test_a_run_without_digests_is_read_with_a_warning(
    base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (base / "student" / "identity.json").unlink()
    assert train(_student(base), progress=False).finished
    assert "student carries no digests" in caplog.text


def test_an_unfinished_run_of_other_semantics_does_not_resume(
    base: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(record, "TRAINING_SEMANTICS", record.TRAINING_SEMANTICS + 1)
    assert train(_student(base), progress=False).finished
    assert "do not compare it with new runs" in caplog.text
    (base / "student" / "evaluation.json").unlink()
    (base / "student" / "resume.ckpt").touch()
    with pytest.raises(IdentityDiffers, match="begun under training semantics"):
        train(_student(base), progress=False)


def test_runs_of_two_semantics_are_not_compared(base: Path) -> None:
    shutil.copytree(base / "student", base / "cmp" / "kd-s0")
    path = base / "cmp" / "kd-s0" / "identity.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "training_semantics": 0}))
    runs = [RunFolder(base / "cmp" / "kd-s0"), RunFolder(base / "student")]
    with pytest.raises(IdentityDiffers, match=r"different semantics \(0 and"):
        summarise(runs)
    with pytest.raises(IdentityDiffers, match="was trained under training semantics 0"):
        compare(_student(base, "cmp"), ["kd"], seeds=2, progress=False)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_any_file_of_a_state_keeps_a_folder_from_another_recipe(
    name: str, base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = base / "half"
    recipe = _student(base, "half", train={"steps": 4})
    whole = train(recipe, progress=False)
    for file in ("model.safetensors", "evaluation.json", "model.json"):
        (whole.path / file).unlink()
    (out / name).write_bytes(b"what a kill left")
    with pytest.raises(ValueError, match=r"another recipe \(train.lr differ\)"):
        train(_student(base, "half", train={"steps": 4, "lr": 0.5}), progress=False)
    assert load_checkpoint(out) is None


def test_the_card_names_the_teacher_that_taught(base: Path) -> None:
    taught = RunFolder(base / "teacher").model_info()["sha256"]
    audit = RunFolder(base / "student").teacher()
    assert audit is not None and audit["sha256"] == taught
    assert taught in (export(base / "student") / "MODEL_CARD.md").read_text()
    _retrain_teacher(base)  # whose speed the card would state
    with pytest.raises(IdentityDiffers, match="differ from those that taught the run"):
        export(base / "student")


def test_resuming_and_handing_back_are_said(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "segdistill"):
        train(_student(base), progress=False)
    assert "student is already finished" in caplog.text


def test_two_trainings_of_one_folder(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    other = hold_elsewhere(out)
    try:
        with pytest.raises(FolderInUse, match=f"process {other.pid}"):
            train(small.recipe(out=str(out)), progress=False)
        assert not (out / "config.yaml").exists()
    finally:
        other.kill()
        other.join()
    assert train(small.recipe(out=str(out)), progress=False).finished
    assert not list(out.glob(".*"))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"options": {"width": 8, "input": "imagenet"}}, r"builds has the input .*mean=\[0\.485"),
        ({"options": {"width": 8, "align_corners": True}}, r"the student's geometry"),
        ({"classes": ["sky", "ground"]}, "classes differ"),
    ],
)
def test_a_model_file_that_builds_another_network_is_refused(
    changes: dict[str, Any], problem: str, base: Path
) -> None:
    """Its weights fit all the same."""
    path = base / "student" / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ValueError, match=problem):
        load_run_model(base / "student")


@pytest.mark.parametrize("name", ["model", "best"])
def test_weights_that_are_a_pipe_are_refused(name: str, base: Path) -> None:
    path = base / "student" / f"{name}.safetensors"
    path.unlink()
    os.mkfifo(path)
    (base / "student" / "resume.ckpt").touch()
    with pytest.raises(ValueError, match=f"{name}.safetensors is a named pipe"):
        load_run_model(base / "student", name)
