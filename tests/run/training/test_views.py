"""Trainings whose student sees stronger colours than its teacher, and boxes of other images."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from segdistill.cli import main
from segdistill.distillation.catalogue import build_method
from segdistill.distillation.distiller import Distiller
from segdistill.run.folder import RunFolder
from segdistill.run.recipe import parse_recipe
from segdistill.run.training.train import train
from tests.distillation.networks import Tiny, batch
from tests.run import processes, small
from tests.run.training.test_train import _kill_and_resume

VIEWS = {"strong_photometric": 0.8, "cutmix": 0.5}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return small.teacher(tmp_path_factory.mktemp("views") / "teacher")


def test_the_student_sees_its_own_images_and_terms_the_teachers() -> None:
    torch.manual_seed(0)
    student, teacher = Tiny(6), Tiny(9)
    distiller = Distiller(student, build_method("kd", 3), teacher)
    images, labels = batch()
    distiller.dry_pass(images)
    seen: dict[str, torch.Tensor] = {}
    for name, network in (("student", student), ("teacher", teacher)):
        network.register_forward_pre_hook(
            lambda _m, given, name=name: seen.update({name: given[0]})
        )
    values = distiller(images, labels, None, images.flip(1))
    assert torch.equal(seen["student"], images.flip(1)) and torch.equal(seen["teacher"], images)
    assert values["pixelwise"] != distiller(images, labels)["pixelwise"]
    assert torch.equal(seen["student"], images)


def test_a_killed_run_resumes_bit_identically(teacher: RunFolder, tmp_path: Path) -> None:
    changes = small.distilled(teacher.path, method="kd")
    _kill_and_resume({signal.SIGKILL: 4}, changes, tmp_path, **VIEWS)


def test_each_view_changes_the_training_and_another_one_is_another_recipe(
    teacher: RunFolder, tmp_path: Path
) -> None:
    weights = []
    for number, views in enumerate(({}, *({key: value} for key, value in VIEWS.items()))):
        out = str(tmp_path / str(number))
        settings = small.distilled(teacher.path, method="kd")
        recipe = small.values(**settings, train={"steps": 2, **views}, out=out)
        weights.append(
            load_file(train(parse_recipe(recipe), progress=False).path / "model.safetensors")
        )
    heads = [one["head.weight"] for one in weights]
    assert not any(torch.equal(heads[0], other) for other in heads[1:])
    changed = small.values(**settings, train={"steps": 2, "cutmix": 0.6}, out=out)
    with pytest.raises(ValueError, match=r"the run of another recipe \(train\.cutmix differ"):
        train(parse_recipe(changed), progress=False)


@pytest.mark.parametrize("options", [{"accumulate": 2}, {"channels_last": True, "workers": 1}])
def test_views_go_with(options: dict[str, Any], teacher: RunFolder, tmp_path: Path) -> None:
    settings = small.distilled(teacher.path, method="idd")
    training = {"steps": 2, "batch": 4, **VIEWS, **options}
    recipe = small.recipe(**settings, train=training, out=str(tmp_path))
    assert train(recipe, progress=False).finished


def test_two_processes_see_the_views_of_one(teacher: RunFolder, tmp_path: Path) -> None:
    recipe = small.write(
        tmp_path / "recipe.yaml",
        student={"model": "tests.run.plain.NoNorm"},
        train={"steps": 1, "batch": 4, "log_every": 1, **VIEWS},
    )
    one, two = tmp_path / "one", tmp_path / "two"
    main(["train", str(recipe), "--out", str(one)])
    processes.run_two(tmp_path / "log", main, ["train", str(recipe), "--out", str(two)])
    rows = [RunFolder(out).metrics()[0]["terms"]["cross_entropy"]["value"] for out in (one, two)]
    assert rows[0] == pytest.approx(rows[1], rel=1e-5)


@pytest.mark.parametrize(
    ("views", "message"),
    [
        (
            {"strong_photometric": 1.5},
            r"train\.strong_photometric is 1\.5; expected a strength from 0 to",
        ),
        ({"cutmix": -0.5}, r"train\.cutmix is -0\.5; expected a probability from 0 to 1"),
    ],
)
def test_bad_settings_are_refused(views: dict[str, float], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        train(small.recipe(train=views, out=str(tmp_path / "run")), progress=False)
