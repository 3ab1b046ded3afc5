"""Teachers with other classes than the data, in recipes and from Python."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from segdistill.config import ModelConfig, TeacherConfig, recipe_text
from segdistill.distillation.catalogue import METHODS, build_method
from segdistill.distillation.distiller import Distiller
from segdistill.models import build_model, wrap
from segdistill.models.foreign.relabelled import Relabelled
from segdistill.run.networks import build_student, load_teacher
from segdistill.run.recipe import load_recipe
from segdistill.run.training.train import train
from tests.distillation.networks import Tiny, batch
from tests.run import small
from tests.run.plain import ByColour, teacher_in, write_scenes
from tests.run.training.test_distill import NAMES, Plain, _distill

DATA = {"classes": ["ground", "sky"], "mapping": {10: 0, 20: 0, 30: 1}}
MERGED = {"orange": "ground", "grey": "ground", "blue": "sky"}


def _recipe(folder: Path, **changes: Any) -> Any:
    return small.recipe(
        data={"name": "folder", "root": str(write_scenes(folder / "data")), "options": DATA},
        student={"model": "tests.run.plain.NoNorm"},
        method="kd",
        train={"crop": [16, 16], "steps": 2},
        out=str(folder / "run"),
        **changes,
    )


@pytest.mark.parametrize("labels", [MERGED, {0: 0, 1: 0, 2: 1}])
def test_a_teacher_of_three_classes_teaches_two_and_is_measured_on_them(
    labels: dict[Any, Any], tmp_path: Path
) -> None:
    recipe = _recipe(tmp_path, teacher={**teacher_in(tmp_path), "labels": labels, "min_miou": 99})
    (tmp_path / "recipe.yaml").write_text(recipe_text(recipe), "utf-8")
    recipe = load_recipe(tmp_path / "recipe.yaml")
    assert recipe.teacher.labels == labels
    run = train(recipe, progress=False)
    found = run.teacher()
    assert found is not None
    assert found["miou"] == 1
    assert found["labels"] == {str(key): value for key, value in labels.items()}
    # A second call resumes: nothing in the recorded recipe differs.
    assert train(recipe, progress=False).finished


def test_the_names_of_a_run_are_known(tmp_path: Path) -> None:
    names = [f"c{n}" for n in range(small.CLASSES)]
    run = small.teacher(tmp_path / "teacher")
    known = run.model_info()["classes"]
    labels = {name: names[n] for n, name in enumerate(known)}
    model, _ = load_teacher(TeacherConfig(run=str(run.path), labels=labels), names)
    assert model.assigned == list(range(small.CLASSES))
    wrong = {"raod" if name == "road" else name: n for n, name in enumerate(known)}
    with pytest.raises(ValueError, match="no class of the teacher named 'raod'"):
        load_teacher(TeacherConfig(run=str(run.path), labels=wrong), names)
    with pytest.raises(ValueError, match=r"has 11 classes; expected 2, .*teacher\.labels"):
        load_teacher(TeacherConfig(run=str(run.path)), ["a", "b"])


def test_a_file_of_other_classes_is_mended_in_the_recipe(tmp_path: Path) -> None:
    weights = str(tmp_path / "three.safetensors")
    save_file(build_model("compact", 3).state_dict(), weights)
    config = TeacherConfig(model="compact", weights=weights, labels={0: "a", 1: "b"})
    with pytest.raises(ValueError, match=r"^teacher.labels maps 2 classes; expected 3, as in"):
        load_teacher(config, ["a", "b"])
    config.labels = None
    with pytest.raises(ValueError, match=r"has 3 classes; expected 2, .*teacher\.labels"):
        load_teacher(config, ["a", "b"])
    with pytest.raises(
        ValueError, match=r"^student.weights: .*has 3 classes.*data.options.classes"
    ):
        build_student(ModelConfig("compact", weights=weights), 2, 0)


def test_a_declared_map_that_is_wrong_is_mended_in_the_teachers_own_classes(tmp_path: Path) -> None:
    labels = {"orange": "sky", "grey": "sky", "blue": "ground"}
    recipe = _recipe(tmp_path, teacher={**teacher_in(tmp_path), "labels": labels, "min_miou": 99})
    with pytest.raises(ValueError, match=r"set teacher.labels to \{0: ground, 1: ground, 2: sky\}"):
        train(recipe, progress=False)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_from_a_relabelled_teacher(method: str) -> None:
    torch.manual_seed(0)
    teacher = Relabelled(Tiny(9, num_classes=5), [0, 1, 2, 2, None], 3)
    distiller = Distiller(Tiny(6), build_method(method, 3), teacher)
    distiller.dry_pass(batch()[0])
    distiller.prepare([batch()[0]] * 4)
    assert torch.isfinite(distiller.method.total(distiller(*batch())))


def test_from_python(tmp_path: Path) -> None:
    class Four(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.head(self.body(images))

    labels = {"lane": "road", "tar": "road", "sky": "sky", "car": "car"}
    run = _distill(tmp_path / "run", Plain(4), teacher=Four(), teacher_labels=labels, steps=2)
    assert run.teacher() is not None
    assert run.config()["teacher"]["labels"] == labels
    with pytest.raises(ValueError, match="no class of the data named 'raod'"):
        _distill(tmp_path / "b", Plain(4), teacher=Four(), teacher_labels={**labels, "tar": "raod"})
    assert NAMES == ["road", "sky", "car"]


def test_the_input_of_a_relabelled_teacher_is_suspected_too(tmp_path: Path) -> None:
    from segdistill.data.folder import Folder
    from segdistill.run.auditing.suspects import suspect

    dataset = Folder(write_scenes(tmp_path), "val", **DATA)
    cause = suspect(Relabelled(wrap(ByColour(scale=255.0), 3), [0, 0, 1], 2), dataset)
    assert cause is not None
    assert "scale: 255" in cause.remedy


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (
            {"name": "kd", "confidence": 0.9},
            r"method\.confidence is 0\.9 with method\.labels data; expected 0\. Set method\.labels",
        ),
        (
            {"name": "kd", "labels": "teacher", "confidence": 95},
            r"method\.confidence is 95\.?0?; expected a probability from 0 to 1",
        ),
    ],
)
def test_a_gate_needs_the_teachers_labels(
    method: dict[str, Any], message: str, tmp_path: Path
) -> None:
    recipe = small.recipe(**small.distilled(tmp_path, method=method), out=str(tmp_path / "run"))
    with pytest.raises(ValueError, match=f"^{message}"):
        train(recipe, progress=False)


def test_a_gated_run_trains_and_differs_from_one_that_is_not(tmp_path: Path) -> None:
    teacher = small.teacher(tmp_path / "teacher")
    values = []
    for confidence in (0.0, 0.2):
        method = {"name": "kd", "labels": "teacher", "confidence": confidence}
        recipe = small.recipe(
            **small.distilled(teacher.path, method=method),
            train={"steps": 2, "log_every": 1},
            out=str(tmp_path / f"{confidence}"),
        )
        first = train(recipe, progress=False).metrics()[0]
        values.append(first["terms"]["cross_entropy"]["value"])
    assert 0 <= values[1] < values[0]
