import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

import segdistill
from segdistill.models import wrap
from segdistill.run.folder import RunFolder
from segdistill.run.identity import IdentityDiffers, read_identity
from segdistill.run.networks import load_run_model
from segdistill.run.training.checks import kept_in_eval
from segdistill.run.training.observing import ObserverFailed
from segdistill.run.training.train import train
from tests.run import small

NAMES = ["road", "sky", "car"]


class Plain(nn.Module):
    """A custom module without taps or attributes of ours; its `module` prefix must be kept."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.module = nn.Sequential(nn.Conv2d(3, width, 3, stride=2, padding=1), nn.ReLU())
        self.module.append(nn.Conv2d(width, len(NAMES), 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.module(images)


class Tuples:
    """(image, label) pairs: bright above, dark below, a coloured square."""

    classes = NAMES

    def __init__(
        self, count: int = 6, bad: dict[int, int] | None = None, inverted: bool = False
    ) -> None:
        self.count, self.bad, self.inverted = count, bad or {}, inverted

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(index)
        label = torch.zeros(32, 48, dtype=torch.int64)
        label[:16] = 1
        label[12:20, 4 * index : 4 * index + 8] = 2
        colours = torch.tensor([[0.2, 0.2, 0.2], [0.6, 0.7, 0.9], [0.9, 0.1, 0.1]])
        image = colours[label].permute(2, 0, 1) + 0.05 * torch.rand(3, 32, 48, generator=generator)
        label[0, 0] = self.bad.get(index, 255)
        image = image.clamp(0, 1)
        return (1 - image if self.inverted else image), label


def _distill(out: Path, student: nn.Module, **changes: Any) -> RunFolder:
    torch.manual_seed(5)
    settings: dict[str, Any] = {
        "teacher": Plain(12),
        "train_set": Tuples(),
        "val_set": Tuples(3),
        "steps": 4,
        "batch": 2,
        "crop": (32, 48),
        "log_every": 2,
        "min_miou": 0,
        "device": "cpu",
        "progress": False,
    }
    return segdistill.distill(student=student, out=out, **{**settings, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, nn.Module]:
    torch.manual_seed(0)
    student = Plain(6)
    return _distill(tmp_path_factory.mktemp("distill") / "run", student), student


def test_two_plain_modules_are_distilled_with_the_taps_found_by_default(
    finished: tuple[RunFolder, nn.Module],
) -> None:
    run, _ = finished
    assert run.finished
    assert run.method_name == "idd"
    rows = [row for row in run.metrics() if row["kind"] == "train"]
    assert [row["step"] for row in rows] == [2, 4]
    on_features = {"pairwise", "inter_class", "position"}
    assert set(rows[-1]["terms"]) == {"cross_entropy", "pixelwise", "channelwise", *on_features}
    info, figures = run.model_info(), run.evaluation()
    assert (info["classes"], info["num_classes"], info["rebuild"]) == (NAMES, 3, False)
    assert figures is not None
    assert (figures["classes"], figures["images"]) == (NAMES, 3)


def test_the_weights_load_strictly_into_the_users_class(
    finished: tuple[RunFolder, nn.Module],
) -> None:
    run, student = finished
    fresh = Plain(6)
    fresh.load_state_dict(load_file(run.weights_path()), strict=True)
    # The student was trained in place.
    torch.testing.assert_close(fresh.state_dict(), student.cpu().state_dict(), rtol=0, atol=0)


def test_a_module_without_a_name_is_read_back_through_model(
    finished: tuple[RunFolder, nn.Module],
) -> None:
    run, student = finished
    with pytest.raises(
        ValueError,
        match=r"custom module \(tests.run.training.test_distill.Plain\).*Pass it as model=",
    ):
        load_run_model(run)
    model = load_run_model(run, model=Plain(6))
    assert not model.training
    image = Tuples()[0][0][None]
    with torch.no_grad():
        torch.testing.assert_close(model(image), student.eval()(image), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"model.safetensors does not fit Plain.*size mismatch"):
        load_run_model(run, model=Plain(5))


def test_a_second_call_loads_the_weights_without_training(
    finished: tuple[RunFolder, nn.Module],
) -> None:
    run, student = finished
    written = run.weights_path().stat().st_mtime_ns
    torch.manual_seed(0)
    other = Plain(6)
    again = _distill(run.path, other)
    assert again.path == run.path
    assert run.weights_path().stat().st_mtime_ns == written
    torch.testing.assert_close(other.state_dict(), student.state_dict(), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"another recipe \(train.lr differ\)"):
        _distill(run.path, other, lr=0.5)


class Augmenting(Tuples):
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, label = super().__getitem__(index)
        return (image * torch.rand(())).clamp(0, 1), label


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"teacher": lambda: Plain(12)}, "the teacher's weights"),
        ({"train_set": lambda: Tuples(inverted=True)}, "the training data"),
        ({"val_set": lambda: Tuples(3, inverted=True)}, "the validation data"),
        ({"train_set": lambda: Tuples(7)}, "the training data"),
        ({"classes": lambda: ["a", "b", "c"]}, "the classes"),
        ({"student_input": lambda: "imagenet"}, "the input normalisation"),
        ({"student_taps": lambda: {"features": "module.0"}}, "the taps"),
    ],
)
def test_another_experiment_in_the_same_folder_is_refused(
    changes: dict[str, Any], what: str, finished: tuple[RunFolder, nn.Module]
) -> None:
    run, _ = finished
    torch.manual_seed(0)
    student = Plain(6)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    torch.manual_seed(99)
    made = {key: make() for key, make in changes.items()}
    with pytest.raises(IdentityDiffers, match=f"{re.escape(str(run.path))} holds another.*{what}"):
        _distill(run.path, student, **made)
    torch.testing.assert_close(student.state_dict(), before, rtol=0, atol=0)


def test_an_unseeded_student_is_refused_unless_same_start_is_false(
    finished: tuple[RunFolder, nn.Module], caplog: pytest.LogCaptureFixture
) -> None:
    run, student = finished
    torch.manual_seed(1)
    other = Plain(6)
    with pytest.raises(IdentityDiffers, match=r"the student's start weights.*same_start=False"):
        _distill(run.path, other)
    with caplog.at_level(logging.INFO, "segdistill"):
        _distill(run.path, other, same_start=False)
    assert "is already finished; the student has its weights now" in caplog.text
    torch.testing.assert_close(other.state_dict(), student.state_dict(), rtol=0, atol=0)


def test_a_partly_trained_student_resumes(tmp_path: Path) -> None:
    class Watching:
        def row(self, values: Any) -> None:
            if values["kind"] == "train":
                raise RuntimeError

        def finished(self, run: Any) -> None: ...

    torch.manual_seed(0)
    student = Plain(6)
    with pytest.raises(ObserverFailed):
        _distill(tmp_path, student, observers=[Watching()])
    run = _distill(tmp_path, student)
    assert run.finished
    torch.manual_seed(0)
    whole = Plain(6)
    _distill(tmp_path / "whole", whole)
    torch.testing.assert_close(student.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_data_that_augments_is_not_checked_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    run = _distill(tmp_path, Plain(6), train_set=Augmenting())
    assert "training data: data not checked" in caplog.text
    assert read_identity(run).train_data is None
    torch.manual_seed(0)
    assert _distill(tmp_path, Plain(6), train_set=Augmenting()).finished


def test_plain_training_needs_no_teacher(tmp_path: Path) -> None:
    run = _distill(tmp_path, Plain(4), teacher=None, method="supervised", steps=2)
    assert run.finished
    assert run.teacher() is None


class Unnamed(Tuples):
    classes = None  # type: ignore[assignment]


class Headless(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(images, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lrr": 1}, r"no training option named 'lrr'; did you mean 'lr'"),
        ({"lr": "fast"}, r"train.lr is fast; expected a number"),
        ({"val_set": Unnamed()}, r"has no `classes`. Pass their names as classes="),
        ({"terms": {"pixelwise": {"wieght": 1}}}, r"terms.pixelwise.wieght: .*mean 'weight'"),
        ({"terms": {"pixelwize": {"weight": 1}}}, r"terms.pixelwize: .*did you mean 'pixelwise'"),
        ({"method": "ide"}, r"did you mean 'idd'"),
        ({"preset": "papr"}, r"method.preset is 'papr'; expected 'default' or 'paper'"),
        ({"teacher": None}, "needs a teacher, but none is given"),
        ({"min_miou": 100}, r"expected at least 100.* \(teacher\.min_miou\)"),
        (
            {"student_taps": {"features": "module.9"}},
            r"tap 'features' is 'module\.9'.*did you mean",
        ),
        ({"teacher": Headless()}, "Headless has no Conv2d with 3 outputs"),
        ({"classes": ["a", "b"]}, "has no Conv2d with 2 outputs"),
        ({"val_set": Tuples(3, bad={0: 7})}, r"sample 0: label id is 7; expected 0..2"),
        ({"val_set": Tuples(3, bad={2: 7})}, r"sample 2: label id is 7; expected 0..2"),
        ({"train_set": Tuples(6, bad={4: 9})}, r"sample 4: label id is 9; expected 0..2"),
    ],
)
def test_invalid_combinations_are_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        _distill(tmp_path / "run", Plain(6), **changes)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "model.safetensors").exists()


class Mislabelled(Tuples):
    """A custom data set whose third label has an id beyond its classes."""

    def __init__(self) -> None:
        super().__init__(bad={2: 9})


def test_label_ids_of_a_custom_data_set_are_checked_during_training(tmp_path: Path) -> None:
    recipe = small.recipe(
        data={"name": "tests.run.training.test_distill.Mislabelled"}, out=str(tmp_path / "run")
    )
    with pytest.raises(ValueError, match=r"sample 2: label id is 9; expected 0\.\.2, or 255"):
        train(recipe, progress=False)


class Unlabelled(Tuples):
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, label = super().__getitem__(index)
        return image, torch.full_like(label, 255)


def test_terms_that_learn_nothing_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    terms = {"inter_class": {"on": "logits", "weight": 1.0}}
    with caplog.at_level("WARNING"):
        _distill(tmp_path, Plain(4), train_set=Unlabelled(), method="kd", terms=terms)
    told = [text for text in caplog.messages if "nothing is learnt from it" in text]
    assert [re.findall(r": (\w+) is 0", text) for text in told] == [
        ["cross_entropy"],
        ["inter_class"],
    ]
    assert told[0].startswith("steps up to 2: ")


def test_a_run_still_resumes_after_its_classes_moved_to_other_modules(tmp_path: Path) -> None:
    data = segdistill.build_dataset("synthetic", size=(32, 48), count=4)
    student = segdistill.build_model("compact", num_classes=11, width=8, depth=1)
    options = {"method": "supervised", "steps": 2, "batch": 2, "crop": (32, 32)}
    out = tmp_path / "run"
    segdistill.distill(None, student, data, data, out=out, progress=False, **options)
    config = out / "config.yaml"
    text = config.read_text()
    for room in ("synthetic.dataset", "networks.compact"):
        assert room in text
        text = text.replace(room, room.rpartition(".")[0] + ".elsewhere")
    config.write_text(text)
    again = segdistill.distill(None, student, data, data, out=out, progress=False, **options)
    assert again.finished


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["road", "sky", "road"], "the classes have 'road' twice"),
        (["road", " ", "sky"], "the classes have no name for class 1"),
    ],
)
def test_names_that_do_not_tell_classes_apart_are_refused(
    names: list[str], problem: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=problem):
        _distill(tmp_path / "run", Plain(3), classes=names)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
@pytest.mark.parametrize("owner", ["student", "teacher"])
def test_weights_in_another_type_are_named_where_they_fail(
    owner: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    networks = {"student": Plain(6), "teacher": Plain(12)}
    networks[owner].to(dtype)
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(ValueError, match=rf"The {owner} has weights in {name}; expected float32"):
        _distill(tmp_path, **networks)


@pytest.mark.parametrize("owner", ["student", "teacher"])
def test_a_network_of_lazy_modules_is_refused(owner: str, tmp_path: Path) -> None:
    networks = {"student": Plain(6), "teacher": Plain(12)}
    networks[owner].module[0] = nn.LazyConv2d(6, 3, stride=2, padding=1)
    with pytest.raises(ValueError, match=rf"the {owner} has no shape for \S*weight yet"):
        _distill(tmp_path, **networks)


class Steady(Plain):
    """Keeps its batch norm in eval mode, as its own train() says."""

    def train(self, mode: bool = True) -> "Steady":
        super().train(mode)
        self.module[1].eval()
        return self


@pytest.mark.parametrize(
    ("kind", "mode", "warned"),
    [(Plain, "part", True), (Plain, "all", False), (Plain, "none", False), (Steady, "part", False)],
)
def test_layers_kept_in_eval_mode_are_warned_of(kind: type[Plain], mode: str, warned: bool) -> None:
    student = kind(6)
    student.module[1] = nn.BatchNorm2d(6)
    student.train()
    if mode != "none":
        (student if mode == "all" else student.module[1]).eval()
    modes = [module.training for module in student.modules()]
    line = kept_in_eval(wrap(student, 3))
    assert line.startswith("module.1 of the student is in eval() mode") == warned
    assert bool(line) == warned
    assert [module.training for module in student.modules()] == modes


def test_an_evaluation_set_with_labels_for_some_samples_is_refused(tmp_path: Path) -> None:
    val_set: Any = Tuples(3)
    val_set.labelled_samples = [True, False, True]
    with pytest.raises(ValueError, match="val_set has labels for 2 of its 3 images; expected"):
        _distill(tmp_path, Plain(6), val_set=val_set)


class _Raises:
    def row(self, values: Any) -> None:
        raise RuntimeError("no")

    def finished(self, run: RunFolder) -> None:
        pass


def _hooks(network: nn.Module) -> int:
    modules = list(network.modules())
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)


def test_a_training_that_fails_leaves_no_hooks_behind(tmp_path: Path) -> None:
    student, teacher = Plain(6), Plain(12)
    before = _hooks(student), _hooks(teacher)
    with pytest.raises(ObserverFailed):
        _distill(tmp_path / "a", student, teacher=teacher, method="ifvd", observers=[_Raises()])
    assert (_hooks(student), _hooks(teacher)) == before
    with pytest.raises(ValueError, match=r"train\.labelled_share is 0\.5"):
        _distill(tmp_path / "b", student, teacher=teacher, method="ifvd", labelled_share=0.5)
    assert (_hooks(student), _hooks(teacher)) == before


def test_the_student_is_left_in_eval_mode(tmp_path: Path) -> None:
    student = Plain(6)
    _distill(tmp_path, student, steps=1)
    assert not any(module.training for module in student.modules())
