"""Finished rows of a comparison are taken over from their record, which has no weights."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from segdistill.run.compare import compare
from segdistill.run.folder import RunFolder, file_sha256
from segdistill.run.identity import IdentityDiffers
from segdistill.run.reporting import RunSummary
from segdistill.run.reporting.report import report
from segdistill.run.training.train import train
from tests.run import small

ROWS = ("supervised", "kd", "cwd")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher and a comparison of two seeds, with all weights."""
    folder = tmp_path_factory.mktemp("made")
    small.teacher(folder / "teacher")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        compare(_recipe(folder), ROWS, seeds=2, progress=False)
    return folder


@pytest.fixture
def records(made: Path, tmp_path: Path) -> Path:
    """The same without the weights of the rows."""
    folder = tmp_path / "elsewhere"
    shutil.copytree(made, folder)
    for file in (folder / "runs").rglob("*.safetensors"):
        file.unlink()
    return folder


def _recipe(folder: Path, **changes: Any) -> Any:
    values = small.distilled(folder / "teacher", out=str(folder / "runs"))
    # Paths are part of a recipe, and the records move.
    values["teacher"]["run"] = "teacher"
    return small.recipe(**values, **{"train": {"steps": 2, "log_every": 1}, **changes})


@pytest.fixture(autouse=True)
def _there(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "records" if "records" in request.fixturenames else "made"
    monkeypatch.chdir(request.getfixturevalue(name))


def _retrain_teacher(folder: Path) -> None:
    """Another machine's teacher: other bits at the same path."""
    file = folder / "teacher" / "model.safetensors"
    save_file(
        {k: v + 1e-3 if v.is_floating_point() else v for k, v in load_file(file).items()}, file
    )
    info = json.loads((folder / "teacher" / "model.json").read_text())
    figures = json.loads((folder / "teacher" / "evaluation.json").read_text())
    info["sha256"] = figures["weights_sha256"] = file_sha256(file)
    (folder / "teacher" / "model.json").write_text(json.dumps(info))
    (folder / "teacher" / "evaluation.json").write_text(json.dumps(figures))


def _mious(summaries: list[RunSummary]) -> dict[tuple[str, int | None], float | None]:
    return {(one.label, one.seed): one.miou for one in summaries if one.role != "teacher"}


def test_complete_records_give_the_same_table_without_training(records: Path, made: Path) -> None:
    compare(_recipe(records), ROWS, seeds=2, progress=False)
    assert not list((records / "runs").rglob("*.safetensors"))
    tables = [json.loads((one / "runs/comparison.json").read_text()) for one in (records, made)]
    assert tables[0] == tables[1]


def test_a_missing_row_of_the_same_teacher_is_trained_and_paired(records: Path, made: Path) -> None:
    shutil.rmtree(records / "runs" / "cwd-s1")
    summaries = compare(_recipe(records), ROWS, seeds=2, progress=False)
    assert [file.parent.name for file in (records / "runs").rglob("model.safetensors")] == [
        "cwd-s1"
    ]
    again = load_file(records / "runs/cwd-s1/model.safetensors")
    before = load_file(made / "runs/cwd-s1/model.safetensors")
    assert all(torch.equal(again[key], before[key]) for key in before)
    assert set(_mious(summaries)) == {(row, s) for row in ("control", "kd", "cwd") for s in (0, 1)}


def test_another_teacher_opens_a_further_seed_and_the_table_says_so(
    records: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(records / "runs" / "cwd-s1")
    _retrain_teacher(records)
    with caplog.at_level("INFO"):
        summaries = compare(_recipe(records), ROWS, seeds=2, progress=False)
    # Seed 0 is complete, seed 1 cannot be completed.
    assert set(_mious(summaries)) == {(row, s) for row in ("control", "kd", "cwd") for s in (0, 2)}
    assert any(
        text.startswith("seed 1 is left as it is, with 2 of 3 rows") for text in caplog.messages
    )
    assert any("teachers of the same recipe with other bits" in text for text in caplog.messages)
    content = json.loads((records / "runs/comparison.json").read_text())
    first, second = content["teachers"].values()
    assert (first, second) == (["0"], ["2"])
    assert "teachers of the same recipe" in report([records / "runs"]).read_text()


def test_a_placebo_s_random_teacher_is_not_the_one_that_rows_share(records: Path) -> None:
    variants = {"kd": {"method": "kd"}, "noise": {"method": "kd", "teacher": {"random": True}}}
    recipe = _recipe(records, variants=variants)
    rows = ("supervised", "kd", "noise")
    compare(recipe, rows, seeds=1, progress=False)
    for file in (records / "runs").rglob("*.safetensors"):
        file.unlink()
    summaries = compare(recipe, rows, seeds=1, progress=False)
    assert set(_mious(summaries)) == {("control", 0), ("kd", 0), ("noise", 0)}
    assert not list((records / "runs").rglob("*.safetensors"))


def test_rows_of_one_seed_with_two_teachers_are_refused(records: Path) -> None:
    file = records / "runs/kd-s1/identity.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "teacher": "0" * 64}))
    with pytest.raises(IdentityDiffers, match=r"seed 1 in .* not made with one teacher"):
        compare(_recipe(records), ROWS, seeds=2, progress=False)


def test_a_row_that_was_trained_here_is_not_paired_with_a_record_of_another_teacher(
    records: Path,
) -> None:
    """Records that arrive after this machine has trained a row of their seed."""
    shutil.rmtree(records / "runs" / "kd-s1")
    late = records / "runs" / "cwd-s1"
    late.rename(records / "late")
    (records / "runs" / "supervised-s1").rename(records / "control")
    _retrain_teacher(records)
    compare(_recipe(records), ("kd",), seeds=1, first_seed=1, progress=False)
    (records / "late").rename(late)
    (records / "control").rename(records / "runs" / "supervised-s1")
    with pytest.raises(IdentityDiffers, match=r"seed 1 in .*, some of them on record"):
        compare(_recipe(records), ROWS, seeds=2, progress=False)


def test_a_record_of_another_teacher_is_told(
    records: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _retrain_teacher(records)
    with caplog.at_level("INFO"):
        compare(_recipe(records), ROWS, seeds=1, progress=False)
    told = [text for text in caplog.messages if "its teacher had other bits" in text]
    assert [text.partition(" ")[0].rpartition("/")[2] for text in told] == ["kd-s0", "cwd-s0"]


@pytest.mark.parametrize("key", ["val_data", "train_data", "classes"])
def test_a_record_of_other_data_is_refused(key: str, records: Path) -> None:
    file = records / "runs/kd-s0/identity.json"
    identity = json.loads(file.read_text())
    file.write_text(json.dumps({**identity, key: ["x"] if key == "classes" else "0" * 64}))
    with pytest.raises(IdentityDiffers, match="holds another experiment"):
        compare(_recipe(records), ROWS, seeds=2, progress=False)


def test_a_record_of_another_recipe_is_refused(records: Path) -> None:
    with pytest.raises(ValueError, match=r"another recipe \(train.lr differ"):
        compare(_recipe(records, train={"lr": 0.5, "steps": 2}), ROWS, seeds=2, progress=False)


def test_a_record_that_lacks_an_evaluation_set_is_refused(records: Path) -> None:
    sets = {"evaluation": {"more": {"options": {"seed": 5}}}}
    with pytest.raises(ValueError, match="was not measured on evaluation set 'more'"):
        compare(_recipe(records, **sets), ROWS, seeds=2, progress=False)


def test_figures_that_belong_to_other_weights_are_refused(records: Path) -> None:
    file = records / "runs/kd-s0/evaluation.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "weights_sha256": "0" * 64}))
    with pytest.raises(ValueError, match=r"does not belong to model\.safetensors"):
        compare(_recipe(records), ROWS, seeds=2, progress=False)


def test_train_trains_a_record_again_and_says_so(
    records: Path, made: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = RunFolder(records / "runs/kd-s0").recipe()
    recipe.out = str(records / "runs/kd-s0")
    run = train(recipe, progress=False)
    assert any("record without weights; it is trained again" in text for text in caplog.messages)
    assert file_sha256(run.weights_path()) == file_sha256(made / "runs/kd-s0/model.safetensors")
