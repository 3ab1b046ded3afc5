"""The pages on folders and labels: each section's recipe and command run as printed."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segdistill.cli import main
from tests.data.annotations.exports import SQUARE, annotation, coco, labelme, shape, yolo
from tests.data.files import ids, save_image, save_mask

DOCS = Path(__file__).parents[3] / "docs"
ROOT = Path("data/mine")


def _coco() -> None:
    for split, value in (("train", 0), ("val", 50)):
        names = [f"{split}{i}.png" for i in range(3)]
        shapes = [annotation(i, [SQUARE], 3 if i % 2 else 7, i) for i in (1, 2, 3)]
        path = coco(ROOT, shapes, images=names, value=value)
        place = ROOT / f"annotations/instances_{split}.json"
        place.parent.mkdir(exist_ok=True)
        shutil.move(path, place)
    (ROOT / "train").rename(ROOT / "images")


def _yolo() -> None:
    for split in ("train", "val"):
        files = {f"{split}/{split}{i}": f"{i % 2} 0 0 0 0.5 0.5 0.5" for i in range(3)}
        yolo(ROOT, dict(files))
    for value, path in enumerate(sorted(ROOT.glob("images/*/*"))):
        save_image(path, value=value)


def _labelme() -> None:
    for i in range(12):
        labelme(ROOT, f"{i}", [shape(("road", "car")[i % 2], [[0, 0], [8, 0], [8, 8]])])
        save_image(ROOT / f"{i}.png", value=i)


def _pictures(image: str, *masks: str) -> None:
    for i in range(12):
        save_image(ROOT / image.format(i), value=i)
        for mask in masks:
            save_mask(ROOT / mask.format(i), ids(3))


def _roboflow() -> None:
    for split, value in (("train", 0), ("valid", 50)):
        for i in range(3):
            save_image(ROOT / split / f"{i}.jpg", value=value + 9 * i)
            save_mask(ROOT / split / f"{i}_mask.png", ids(3))


def _layers() -> None:
    _pictures("images/{}.png")
    for i in range(12):
        for number, kind in enumerate(("road", "car")[i % 2 :]):
            save_mask(ROOT / f"masks/{i}_{kind}.png", np.uint8(255) * (ids(3) == number))


MAPS = [f"masks/{{}}_{kind}.png" for kind in ("labelIds", "color", "instanceIds")]
TREES: dict[str, Callable[[], None]] = {
    "COCO": _coco,
    "YOLO": _yolo,
    "labelme": _labelme,
    "Other mask names: `mask_suffix`": lambda: _pictures("images/{}.jpg", *MAPS),
    "Images and masks in one folder: `image_suffix`": lambda: _pictures(
        "{}_sat.jpg", "{}_mask.png"
    ),
    "A mask per class: `labels: layers`": _layers,
    "Masks exported by Roboflow": _roboflow,
}


def _sections() -> dict[str, str]:
    texts: dict[str, str] = {}
    for page in ("labels.md", "folder.md"):
        parts = re.split(r"^##+ (.*)\n", (DOCS / page).read_text("utf-8"), flags=re.M)
        texts |= zip(parts[1::2], parts[2::2], strict=True)
    return {title: text for title, text in texts.items() if "```bash" in text}


def test_every_section_with_a_command_has_its_files_here() -> None:
    assert _sections().keys() == TREES.keys()


@pytest.mark.parametrize("title", TREES)
def test_a_section_runs_as_printed(
    title: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("segdistill.cli._set_up", lambda debug: None)
    TREES[title]()
    text = _sections()[title]
    file, recipe = re.search(r"```yaml\n# (\S+)\n(.*?)```", text, re.S).groups()
    Path(file).parent.mkdir()
    Path(file).write_text(recipe)
    command = re.search(r"```bash\nsegdistill (.*)\n```", text)[1]
    main([*command.split(), "--train.device", "cpu", "--train.crop", "[8,8]"])
    out = capsys.readouterr().out
    assert re.search(r"train: \d+ images with masks", out), out
    assert "No problem found" in out
    assert "A mapping to paste" not in out


def test_the_page_of_samples_is_written_by_the_printed_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("segdistill.cli._set_up", lambda debug: None)
    _yolo()
    Path("RECIPE").write_text("data: {name: folder, root: data/mine, options: {labels: yolo}}")
    option = re.search(
        r"segdistill check RECIPE (--page \S+)`", (DOCS / "labels.md").read_text("utf-8")
    )[1]
    words = ["--student.model", "compact", "--train.crop", "[8,8]", "--train.device", "cpu"]
    main(["check", "RECIPE", *option.split(), *words])
    assert Path("samples.html").read_text().count("<figure>") == 6


@pytest.mark.parametrize("command", ["check", "train"])
def test_a_malformed_file_ends_a_command_before_anything_is_written(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("segdistill.cli._set_up", lambda debug: None)
    _yolo()
    (ROOT / "labels/train/train2.txt").write_text("0 0 0 1 x 1 1")
    recipe = (
        "data: {name: folder, root: data/mine, options: {labels: yolo}}\nstudent: {model: compact}"
    )
    Path("recipe.yaml").write_text(recipe)
    words = ["--train.crop", "[8,8]", "--train.steps", "1", "--train.device", "cpu"]
    with pytest.raises(SystemExit) as stop:
        main([command, "recipe.yaml", *words])
    out, error = capsys.readouterr()
    assert stop.value.code == 2 and error.count("\n") == 1
    assert "train2.txt: line 1 is '0 0 0 1 x 1 1'; expected numbers" in out + error
    assert not list(Path().rglob("model.safetensors")) and not list(Path().rglob("metrics.jsonl"))
