"""Images without labels: agreement with the teacher, and runs that read no label."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import segdistill
from segdistill.cli import main
from segdistill.run.auditing import one_sided
from segdistill.run.compare import compare
from segdistill.run.evaluation.agreement import agreement, predicted_pixels
from segdistill.run.evaluation.evaluate import evaluate
from segdistill.run.evaluation.protocol import Protocol
from segdistill.run.folder import RunFolder
from segdistill.run.shipping.export import export
from segdistill.run.training.train import train
from tests.run import small
from tests.run.plain import COLOURS, ByColour, teacher_in, write_scenes

NAMES = ["grass", "road", "sky"]


class Red(nn.Module):
    """Two classes: a pixel is the second if its first channel is above 0.5."""

    num_classes = 2

    def __init__(self, channel: int = 0) -> None:
        super().__init__()
        self.channel, self.scale = channel, nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        red = self.scale * (images[:, self.channel : self.channel + 1] - 0.5)
        return torch.cat([-red, red], dim=1)


class Pictures:
    """2x2 pictures without labels."""

    classes = ("dark", "light")
    labelled = False

    def __init__(self, *pictures: Tensor) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.pictures[index], "name": str(index)}


def _picture(red: list[int], green: list[int]) -> Tensor:
    return torch.tensor([red, green, [0, 0, 0, 0]], dtype=torch.float32).view(3, 2, 2)


# The teacher sees red, the student green. Teacher 1 1 0 0 | 1 0 0 0, student 1 0 0 0 | 1 1 0 0:
# six of eight pixels agree; class 1: 2 in both, 3 + 3 - 2 in either; class 0: 4 in both, 5 + 5 - 4.
PICTURES = Pictures(_picture([1, 1, 0, 0], [1, 0, 0, 0]), _picture([1, 0, 0, 0], [1, 1, 0, 0]))


def test_agreement_by_hand() -> None:
    result = agreement(Red(1), PICTURES, Red(0))
    assert result.pixel_accuracy == 6 / 8
    assert result.iou == [4 / 6, 2 / 4]
    assert result.miou == (4 / 6 + 2 / 4) / 2
    assert result.confusion.tolist() == [[4, 1], [1, 2]]
    assert result.images == 2


def test_agreement_metrics_have_their_own_names() -> None:
    result = agreement(Red(1), PICTURES, Red(0))
    values = json.loads(json.dumps(result.to_json()))
    assert values["teacher_agreement"] == 0.75 and values["teacher_iou"] == [4 / 6, 0.5]
    assert not {"miou", "iou", "accuracy", "pixel_accuracy", "confusion"} & set(values)
    assert set(result.figures()) == {"teacher_agreement", "teacher_miou", "teacher_iou"}
    text = result.table()
    assert text.startswith("against the teacher's predictions, since there are no labels:")
    assert "75.00 % of the pixels agree with the teacher, 58.33 mIoU with its classes" in text
    assert "pixel accuracy" not in text


def test_a_copy_of_the_teacher_agrees_fully_and_modes_are_restored() -> None:
    teacher = Red(0).train()
    result = agreement(Red(0), PICTURES, teacher)
    assert result.pixel_accuracy == result.miou == 1
    assert teacher.training


def test_both_networks_are_shown_the_image_in_the_same_way(tmp_path: Path) -> None:
    data = segdistill.build_dataset("synthetic", split="val", size=(32, 48), count=3)
    torch.manual_seed(0)
    teacher = segdistill.build_model("compact", num_classes=11, width=8, depth=1)
    for options in ({"size": (20, 36)}, {"window": (16, 16), "flip": True}, {"scales": (0.5, 1)}):
        assert agreement(teacher, data, teacher, Protocol(**options)).pixel_accuracy == 1, options


# Runs ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`train/images` and `val/images`, and no masks."""
    root = write_scenes(tmp_path_factory.mktemp("frames"))
    for split in ("train", "val"):
        shutil.rmtree(root / split / "masks")
    return root


def _values(frames: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    """A recipe whose teacher classifies the three colours and teaches a small network."""
    options = {"mask_dir": None, "classes": NAMES}
    folder.mkdir(exist_ok=True)
    return small.values(
        **{
            "data": {"name": "folder", "root": str(frames), "options": options},
            "teacher": teacher_in(folder),
            "method": {"name": "cwd", "labels": "teacher"},
            "train": {"steps": 30, "crop": [24, 36], "lr": 0.1},
            "out": str(folder / "run"),
            **changes,
        }
    )


def _train(frames: Path, folder: Path, **changes: Any) -> RunFolder:
    from segdistill.run.recipe import parse_recipe

    return train(parse_recipe(_values(frames, folder, **changes)), progress=False)


@pytest.fixture(scope="module")
def run(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return _train(frames, tmp_path_factory.mktemp("unlabelled"))


def test_a_student_learns_to_agree_with_its_teacher(run: RunFolder) -> None:
    figures, rows = run.evaluation(), run.metrics()
    assert figures is not None
    first, last = (row for row in rows if row["kind"] == "val")
    assert (first["step"], last["step"]) == (0, 30)
    assert figures["teacher_agreement"] == last["teacher_agreement"]
    assert last["teacher_agreement"] > first["teacher_agreement"] + 0.2
    assert not any("miou" in row for row in rows) and "miou" not in figures
    terms = next(row for row in rows if row["kind"] == "train")["terms"]
    assert terms["cross_entropy"]["value"] > 0, "of the teacher's classes"
    audit = run.teacher()
    assert audit is not None and audit["miou"] is None
    assert audit["unmeasured"] == "val has no labels"


def test_masks_in_the_folder_do_not_affect_a_run_without_labels(
    run: RunFolder, tmp_path: Path
) -> None:
    with_masks = write_scenes(tmp_path / "frames")
    other = _train(with_masks, tmp_path / "other")
    ours, theirs = run.evaluation(), other.evaluation()
    assert ours is not None and theirs is not None
    assert ours["teacher_confusion"] == theirs["teacher_confusion"]


def test_labelled_validation_is_scored_as_before(tmp_path: Path) -> None:
    root = write_scenes(tmp_path / "frames")
    options = {"classes": NAMES, "mapping": {10: 0, 20: 1, 30: 2}}
    data = {"name": "folder", "root": str(root), "options": options}
    data["train_options"] = {"mask_dir": None}
    run = _train(root, tmp_path / "half", data=data)
    figures, audit = run.evaluation(), run.teacher()
    assert figures is not None and audit is not None
    assert "teacher_miou" not in figures and 0 < figures["miou"] <= 1
    assert audit["miou"] > 0.9
    # int8 reads images of the training split, but not its labels.
    out = export(run, int8=True, calibration=2, max_drop=100, max_class_drop=100)
    assert (out / "model.int8.onnx").is_file()


def test_export_requires_labels_and_leaves_no_files_when_it_refuses(run: RunFolder) -> None:
    with pytest.raises(
        ValueError, match=r"evaluation split has no labels, .*data.val_split.*val_set="
    ):
        export(run)
    assert not (run.path / "export").exists()


def test_classes_and_colours_come_from_the_teachers_run(run: RunFolder, tmp_path: Path) -> None:
    frames = run.config()["data"]["root"]
    data = {"name": "folder", "root": frames, "options": {"mask_dir": None}}
    teacher = {"run": str(run.path)}
    student = _train(Path(frames), tmp_path / "next", data=data, teacher=teacher)
    assert student.model_info()["classes"] == NAMES
    assert student.model_info()["palette"] == run.model_info()["palette"]
    assert student.config()["data"]["options"]["classes"] == NAMES


def test_an_interrupted_run_keeps_its_initial_agreement(
    run: RunFolder, frames: Path, tmp_path: Path
) -> None:
    from segdistill.run.training.loop import Loop

    save, calls = Loop.save, []

    def stop(self: Loop) -> None:
        save(self)
        calls.append(self.step)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            _train(frames, tmp_path / "cut")
    resumed = _train(frames, tmp_path / "cut")
    assert calls == [2]
    steps = [row["step"] for row in resumed.metrics() if row["kind"] == "val"]
    assert steps == [0, 30]
    assert resumed.evaluation()["teacher_confusion"] == run.evaluation()["teacher_confusion"]  # type: ignore[index]


def test_a_key_newer_than_the_run_does_not_change_its_recipe(tmp_path: Path) -> None:
    recipe = small.recipe(
        method={"name": "supervised"}, train={"steps": 2}, out=str(tmp_path / "run")
    )
    run = train(recipe, progress=False)
    old = run.config()
    del old["method"]["labels"]
    (run.path / "config.yaml").write_text(yaml.safe_dump(old))
    assert train(recipe, progress=False).path == run.path


# Refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"method": "idd"},
            r"folder, split 'train', has no labels; expected some for cross_entropy, inter_class of "
            r"method 'idd'\. Set method\.labels to teacher .* terms\.cross_entropy\.weight to 0 to "
            r"leave a term out",
        ),
        (
            {"method": "kd"},
            r"has no labels; expected some for cross_entropy of method 'kd'\. .* leave it out",
        ),
        ({"teacher": None}, "folder, split 'train', has no labels; expected labels, or a teacher"),
        (
            {"teacher": {"min_miou": 50.0}},
            r"teacher\.min_miou is 50\.0, but val has no labels to check it on\. Leave it out",
        ),
    ],
)
def test_commands_that_need_labels_are_refused_in_one_line(
    frames: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    if changes.get("teacher"):
        changes = {"teacher": {**teacher_in(tmp_path), **changes["teacher"]}}
    with pytest.raises(ValueError, match=message) as refusal:
        _train(frames, tmp_path, **changes)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_terms_that_read_no_label_train_without_any(frames: Path, tmp_path: Path) -> None:
    off = {"cross_entropy": {"weight": 0}}
    run = _train(frames, tmp_path / "soft", method="kd", terms=off, train={"steps": 2})
    row = next(row for row in run.metrics() if row["kind"] == "train")
    assert set(row["terms"]) == {"pixelwise"}


def test_compare_requires_a_labelled_split(frames: Path, tmp_path: Path) -> None:
    from segdistill.run.recipe import parse_recipe

    with pytest.raises(ValueError, match="compare ranks by mIoU, but split 'val' has no labels"):
        compare(parse_recipe(_values(frames, tmp_path)), ["kd", "cwd"], seeds=1, progress=False)


def test_distill_takes_images_alone(tmp_path: Path) -> None:
    class Scenes(Pictures):
        classes = NAMES  # type: ignore[assignment]

    generator = torch.Generator().manual_seed(0)
    shape = (4, 24, 36)
    images = COLOURS[torch.randint(0, 3, shape, generator=generator)].permute(0, 3, 1, 2)
    run = segdistill.distill(
        ByColour(),
        nn.Sequential(nn.Conv2d(3, 3, 3, padding=1)),
        Scenes(*images),
        Scenes(*images[:2]),
        method="kd",
        labels="teacher",
        steps=3,
        batch=2,
        crop=(24, 36),
        out=tmp_path / "run",
        progress=False,
    )
    figures = run.evaluation()
    assert figures is not None and 0 < figures["teacher_agreement"] <= 1


# Commands -----------------------------------------------------------------------------------------

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setattr("segdistill.cli._set_up", lambda debug: None)

    def call(*argv: object) -> tuple[int, str, str]:
        code = 0
        try:
            main([str(word) for word in argv])
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capsys.readouterr()

    return call


def test_evaluate_repeats_the_agreement_of_the_run(command: Command, run: RunFolder) -> None:
    figures = run.evaluation()
    assert figures is not None
    code, out, error = command("evaluate", run.path)
    assert code == 0, error
    share = 100 * figures["teacher_agreement"]
    assert f"{share:.2f} % of the pixels agree with the teacher" in out


def test_agreement_on_data_of_other_classes_is_refused(command: Command, run: RunFolder) -> None:
    options = "{mask_dir: null, classes: [road, grass, sky]}"
    code, out, error = command("evaluate", run.path, "--data.options", options)
    assert (code, out) == (2, "")
    assert "has the classes road, grass, sky; expected those of data, grass, road, sky" in error


def test_check_says_what_cannot_be_known(frames: Path, tmp_path: Path, command: Command) -> None:
    values = _values(frames, tmp_path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values))
    code, out, _ = command("check", recipe)
    assert code == 0
    assert "train: 3 images without labels" in out and "masks: mode" not in out
    assert "warning: the teacher was not measured: val has no labels" in out
    assert "no pixel of" not in out
    code, out, _ = command("check", recipe, "--method.labels", "data", "--teacher.min_miou", "50")
    assert code == 2
    assert "problem: train has no labels; expected some for cross_entropy of method 'cwd'" in out
    assert "problem: teacher.min_miou is 50.0, but val has no labels" in out


def test_the_initial_agreement_is_logged_before_training(
    frames: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="segdistill"):
        _train(frames, tmp_path, train={"steps": 2})
    assert "teacher: not measured, since val has no labels" in caplog.text
    assert "step 0: " in caplog.text and "% of the pixels agree with the teacher" in caplog.text


def test_a_teacher_that_predicts_one_class_is_told_though_all_agree_with_it(
    frames: Path, tmp_path: Path, command: Command, caplog: pytest.LogCaptureFixture
) -> None:
    values = _values(frames, tmp_path, train={"steps": 1})
    state = load_file(tmp_path / "teacher.safetensors")
    state["head.bias"][2] += 1e4
    save_file(state, tmp_path / "teacher.safetensors")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values))
    said = f"the teacher predicts {NAMES[2]} at every pixel; expected several classes"
    code, out, _ = command("check", recipe)
    assert code == 0 and f"warning: {said}" in out
    assert "Next: segdistill train" in out  # compare ranks by labels
    command("train", recipe)
    assert said in caplog.text


def test_a_teacher_of_several_classes_is_not_suspected(frames: Path, tmp_path: Path) -> None:
    teacher = ByColour()
    data = segdistill.build_dataset("folder", frames, "val", classes=NAMES, mask_dir=None)
    counts = predicted_pixels(teacher, data, Protocol())
    assert counts.sum() == 4 * 24 * 36 and (counts > 0).all()
    assert one_sided(counts, NAMES) == ""
    assert one_sided(torch.tensor([0, 7, 0]), NAMES).startswith(f"the teacher predicts {NAMES[1]}")
    assert one_sided(torch.tensor([7]), ["all"]) == ""


def test_evaluate_without_a_teacher_requires_labels(frames: Path) -> None:
    data = segdistill.build_dataset("folder", frames, "val", classes=NAMES, mask_dir=None)
    with pytest.raises(ValueError, match="has no labels"):
        evaluate(ByColour(), data)
