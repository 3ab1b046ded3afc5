from pathlib import Path

import pytest
import yaml

from segdistill.config import DataConfig, Recipe, TeacherConfig, TrainConfig, to_dict
from segdistill.run import folder as module
from segdistill.run.folder import RunFolder

# As written by the first version, without `label`, `variants`, `teacher.channels` and other later
# keys.
OLD = """\
data: {name: camvid, root: data/camvid, size: [176, 240], train_split: train, val_split: val, options: {seed: 1}}
student: {model: pspnet_r18_half, weights: null, options: {}, taps: {}}
teacher: {run: runs/teacher, model: null, weights: null, options: {}, taps: {}, min_miou: 40.0}
method: {name: idd, preset: paper}
terms: {position: {loss: null, weight: 0.0, 'on': null, options: {}}}
train: {steps: 30, batch: 4, crop: [64, 96], lr: 0.02, seed: 3, precision: '32'}
out: runs/idd-s3
"""


def run_with(config: str, path: Path) -> RunFolder:
    path.mkdir(exist_ok=True)
    (path / "config.yaml").write_text(config)
    return RunFolder(path)


def test_newer_keys_have_defaults_in_runs_of_earlier_versions(tmp_path: Path) -> None:
    recipe = run_with(OLD, tmp_path).recipe()
    assert recipe.data == DataConfig("camvid", "data/camvid", size=(176, 240), options={"seed": 1})
    assert recipe.teacher == TeacherConfig(run="runs/teacher", min_miou=40.0)
    assert recipe.train == TrainConfig(steps=30, batch=4, crop=(64, 96), lr=0.02, seed=3)
    assert recipe.chosen_method().preset == "paper" and recipe.terms["position"].weight == 0
    assert recipe.label is None and recipe.variants == {}


def test_a_path_without_a_run_is_refused_with_what_to_name(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "several" / "kd-s0").mkdir(parents=True)
    files = ("alone.pth", "model.xml", "model.bin", "run/config.yaml", "run/model.safetensors")
    for name in (*files, "several/kd-s0/config.yaml"):
        (tmp_path / name).write_text("{}")
    for name, said in {
        "nowhere": "there is no such folder. Name a folder written by `segdistill train`",
        "empty": "it has no config.yaml. Name a folder written by `segdistill train`",
        "several": f"it holds runs. Name one of them, such as {tmp_path / 'several' / 'kd-s0'}",
        "alone.pth": "it is a file. Name a folder written by `segdistill train`",
        "model.bin": f"these are the weights of {tmp_path / 'model.xml'}. Where files are read, name that one",
        "run/model.safetensors": f"it is a file of the run {tmp_path / 'run'}. Name that folder",
    }.items():
        with pytest.raises(FileNotFoundError) as error:
            RunFolder(tmp_path / name)
        assert str(error.value) == f"no run at {tmp_path / name}: {said}"


def test_a_recipe_survives_saving_and_loading(tmp_path: Path) -> None:
    recipe = Recipe(method="kd", label="softer")
    run = run_with(yaml.safe_dump(to_dict(recipe)), tmp_path)
    assert run.recipe() == recipe


def test_an_interrupted_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        module.write_atomically(tmp_path / "x.json", "{}")
    assert not list(tmp_path.iterdir())


def test_a_recipe_is_parsed_once_and_returned_as_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_with(OLD, tmp_path)
    first = run.recipe()
    monkeypatch.setattr(module, "parse_recipe", None)
    first.train.steps = 99
    assert run.recipe().train.steps == 30


def test_an_invalid_config_is_refused_with_the_path_of_the_key(tmp_path: Path) -> None:
    run = run_with("train: {stepps: 3}", tmp_path)
    with pytest.raises(ValueError, match=r"train\.stepps: .*did you mean 'steps'"):
        run.recipe()
