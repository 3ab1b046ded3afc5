"""`segdistill check` end to end: every planted fault is found, and the proposals work."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from segdistill.cli import main
from segdistill.data import build_dataset
from segdistill.data.pair import Pair
from segdistill.data.published.cityscapes import LABEL_IDS
from segdistill.run.auditing.proposal import proposals
from segdistill.run.auditing.survey import survey
from segdistill.run.training.train import train
from tests.data.files import ids, save_image, save_mask
from tests.reliability.files import png, through_jpeg
from tests.run import small
from tests.run.plain import ByColour, teacher_in, write_scenes

Check = Callable[..., tuple[int, str, str]]
NAMES = ["grass", "road [/x]", "sky"]


@pytest.fixture
def check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Check:
    """Check a recipe with these keys; returns exit code, standard output and standard error."""
    monkeypatch.setattr("segdistill.cli._set_up", lambda debug: None)

    def call(**values: Any) -> tuple[int, str, str]:
        values.setdefault("student", {"model": "compact", "options": {"width": 4, "depth": 1}})
        values.setdefault("train", {"crop": [8, 8]})
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
        code = 0
        try:
            main(["check", str(tmp_path / "recipe.yaml"), "--train.device", "cpu"])
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """`train/images`, `train/masks` and so on: eight and four pairs, ids 0..2, no image twice."""
    for split, count in (("train", 8), ("val", 4)):
        for i in range(count):
            value = i + 100 * (split == "val")
            save_image(tmp_path / "data" / split / "images" / f"{i}.png", value=value)
            save_mask(tmp_path / "data" / split / "masks" / f"{i}.png", ids(3))
    return tmp_path / "data"


def _data(root: Path, **options: Any) -> dict[str, Any]:
    return {"name": "folder", "root": str(root), "options": {"classes": NAMES, **options}}


def _problems(result: tuple[int, str, str]) -> str:
    """The problems of a check that ended with code 2 and one line on standard error."""
    code, out, error = result
    assert code == 2, out + error
    assert error.startswith("segdistill: ")
    assert error.count("\n") == 1
    lines = [line for line in out.splitlines() if line.startswith("problem: ")]
    assert lines
    return "\n".join(lines)


def _masks(tree: Path) -> list[Path]:
    return sorted(tree.rglob("masks/*.png"))


def _repaint(tree: Path, function: Callable[[np.ndarray], np.ndarray]) -> None:
    for path in _masks(tree):
        save_mask(path, function(np.array(Image.open(path))))


def _proposed(out: str) -> list[dict[str, Any]]:
    """The YAML of each proposal."""
    blocks = re.findall(r"data\.options \(.*\):\n((?:.+\n)+?)(?=\n|problem|warning)", out)
    return [yaml.safe_load(block) for block in blocks]


def test_sound_data_pass_with_a_summary(tree: Path, check: Check) -> None:
    code, out, error = check(data=_data(tree))
    assert (code, error) == (0, "")
    assert "train: 8 images with masks" in out
    assert "12x16 (8)" in out
    assert "mode L (4)" in out
    # 192 pixels, each id 64 times; every class in every image.
    row = next(line for line in out.splitlines() if "road [/x]" in line)
    assert row.split() == ["1", "road", "[/x]", "1", "33.33", "8", "33.33", "4"]
    assert "No problem found (1 warning). Next: segdistill train" in out
    assert "warning: val: 4 images to evaluate on; expected at least 10" in out
    assert "  names: 0, 1, 2, 3\n" in out


def test_a_stray_id_is_found_with_file_and_value(tree: Path, check: Check) -> None:
    raw = ids(3)
    raw[5, 7] = 37
    save_mask(tree / "train/masks/5.png", raw)
    result = check(data=_data(tree))
    assert "train/masks/5.png: the mapping lacks label id 37 (1 pixels in 1 mask)" in _problems(
        result
    )
    assert (
        "segdistill: 1 problem to fix before training, listed above with a mapping to paste"
        in result[2]
    )
    (proposal,) = _proposed(result[1])
    assert proposal["mapping"][37] is None
    assert check(data=_data(tree, **proposal))[0] == 0


def test_the_class_left_over_gets_the_id_left_over(tree: Path, check: Check) -> None:
    _repaint(tree, lambda raw: np.where(np.arange(16) == 0, 255, raw * 100).astype(np.uint8))
    result = check(data=_data(tree, mapping={100: 0, 0: 1}))
    assert (
        "mapping has no id for class 2 (sky); expected at least one for each class; not declared: 200, "
        "255. Add `200: 2`" in _problems(result)
    )
    (proposal,) = _proposed(result[1])
    assert proposal == {"mapping": {0: 1, 100: 0, 200: 2, 255: None}}
    assert "  200: 2  # sky\n" in result[1]
    assert check(data=_data(tree, **proposal))[0] == 0


@pytest.mark.parametrize("mapping", [{100: 0, 0: 1}, {100: 0, 0: 1, 50: None, 200: None}])
def test_no_mapping_is_proposed_that_drops_a_class(
    mapping: dict[int, int | None], tree: Path, check: Check
) -> None:
    _repaint(tree, lambda raw: np.where(np.arange(16) == 0, 50, raw * 100).astype(np.uint8))
    result = check(data=_data(tree, mapping=mapping))
    assert "Add `ID: 2`, or remove the class from `classes`" in _problems(result)
    assert _proposed(result[1]) == []


def test_a_guessed_order_names_each_class(tree: Path, check: Check) -> None:
    _repaint(tree, lambda raw: raw * 100)
    _, out, _ = check(data=_data(tree))
    assert "(the order is a guess: check that each id is that class):" in out
    assert "  0: 0  # grass\n  100: 1  # road [/x]\n  200: 2  # sky\n" in out


@pytest.mark.parametrize(
    ("paint", "classes"),
    [
        (lambda raw: np.where(raw == 1, 255, 0).astype(np.uint8), ["no", "yes"]),
        (lambda raw: raw + 1, NAMES),
        (lambda raw: raw * 100, NAMES),
        (
            lambda raw: np.array(LABEL_IDS, np.uint8)[raw + np.arange(16)],
            [f"c{i}" for i in range(19)],
        ),
        (lambda raw: np.array([[0, 0, 0], [9, 8, 7], [200, 0, 0]], np.uint8)[raw], NAMES),
    ],
    ids=["black and white", "counted from 1", "spread", "cityscapes", "colours"],
)
def test_the_proposed_mapping_works(
    paint: Callable[[np.ndarray], np.ndarray], classes: list[str], tree: Path, check: Check
) -> None:
    _repaint(tree, paint)
    # A wrong mapping, and none at all.
    for options in ({"mapping": {3: 1}, "classes": classes}, {"classes": classes}):
        result = check(data=_data(tree, **options))
        _problems(result)
        proposal = _proposed(result[1])[0]
        code, out, error = check(data=_data(tree, **{**options, **proposal}))
        assert code == 0, out + error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": None}, "folder: `classes` is missing"),
        ({"mapping": {0: 7}}, "assigns id 0 to class 7"),
        ({"mapping": [0, 1]}, "option mapping is [0, 1]; expected a mapping or null"),
        ({"classes": 256}, "256 classes declared"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_ids_are_listed_without_a_usable_mapping(
    options: dict[str, Any], message: str, tree: Path, check: Check
) -> None:
    result = check(data=_data(tree, **options))
    assert message in _problems(result)
    assert "33.33" in result[1]
    if "mapping" not in options and options["classes"] is None:
        assert _proposed(result[1]) == [{"classes": 3}]


def _white(raw: np.ndarray) -> np.ndarray:
    """Black and white in pieces of 8 pixels, three pixels beside the blocks of a JPEG."""
    big = np.where(raw == 1, 255, 0).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    return np.roll(big, (3, 3), (0, 1))[:12, :16]


@pytest.mark.parametrize(
    ("paint", "options"),
    [
        (lambda raw: through_jpeg(_white(raw), 90), {}),
        (lambda raw: through_jpeg(_white(raw), 60), {"mapping": {255: 0, 0: 1}}),
        (
            lambda raw: np.where(np.arange(16) == 5, 1, _white(raw) // 8 * 8 | 7).astype(np.uint8),
            {},
        ),
        (lambda raw: Image.fromarray(_white(raw)).convert("1" if raw[0, 1] else "L"), {}),
    ],
    ids=["noise", "noise and a mapping that is turned round", "near values", "one bit"],
)
def test_the_proposed_reading_of_noise_works_in_check_and_train(
    paint: Callable[[np.ndarray], Any], options: dict[str, Any], tree: Path, tmp_path: Path,
    check: Check,
) -> None:  # fmt: skip
    for number, path in enumerate(_masks(tree)):
        raw = np.array(Image.open(path))
        image = paint(np.roll(raw, number % 2, 1))
        (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path)
    data = _data(tree, classes=["no", "yes"], **options)
    result = check(data=data)
    told = _problems(result)
    recipe = small.recipe(data=data, train={"crop": [8, 8], "steps": 1}, out=str(tmp_path / "run"))
    with pytest.raises(ValueError) as caught:
        train(recipe, progress=False)
    assert str(caught.value) == "; ".join(
        line.removeprefix("problem: ") for line in told.splitlines()
    )
    proposal = _proposed(result[1])[0]
    data["options"] |= proposal
    code, out, error = check(data=data)
    assert code == 0, out + error
    dataset = build_dataset("folder", tree, "train", **data["options"])
    turned = options.get("mapping", {}).get(0, 0)
    for pair, number in zip(dataset.pairs, range(len(dataset)), strict=True):
        grey = np.asarray(Image.open(pair.mask).convert("L"))
        expected = (grey > 127).astype(int) ^ turned
        assert dataset.read(number)[1].tolist() == expected.tolist()


def _spoil(tree: Path, fault: str) -> str:
    """Plant a fault; returns the expected message."""
    mask, image = tree / "train/masks/3.png", tree / "train/images/3.png"
    if fault == "mask cut":
        noise = np.random.default_rng(0).integers(0, 3, (64, 64), np.uint8)
        save_mask(mask, noise)
        mask.write_bytes(mask.read_bytes()[:300])
        return "masks/3.png: cannot read this mask"
    if fault == "image cut":
        image.write_bytes(image.read_bytes()[:60])
        return "images/3.png: cannot read this image"
    if fault == "image of 16 bits":
        image.write_bytes(png(np.full((12, 16, 3), 4000, np.uint16), 16, 2))
        return "images/3.png: the image has several channels of 16 bits"
    if fault == "size":
        save_mask(mask, ids(3, 10, 16))
        return (
            "masks/3.png: the mask is 10x16 (height x width); expected 12x16, the size of its image"
        )
    if fault == "16 bits":
        save_mask(mask, np.full((12, 16), 26001, np.uint16))
        return "masks/3.png: the mapping lacks label id 26001"
    if fault == "colour":
        save_mask(mask, np.random.default_rng(0).integers(0, 9, (12, 16, 3), np.uint8))
        return "3.png); expected label ids"
    if fault == "jpeg":
        Image.fromarray(ids(3)).save(mask, format="JPEG")
        return "masks/3.png: the mask is a JPEG"
    if fault == "leak":
        shutil.copy(image, tree / "val/images/1.png")
        return "1 image of val is also in train (1 = 3)"
    mask.unlink()
    return "1 of 8 images in"


@pytest.mark.parametrize(
    "fault",
    [
        *("mask cut", "image cut", "image of 16 bits", "size", "16 bits", "colour", "jpeg"),
        *("leak", "unpaired"),
    ],
)
def test_a_planted_fault_is_reported_with_its_file(fault: str, tree: Path, check: Check) -> None:
    expected = _spoil(tree, fault)
    # A second fault: one does not hide the other.
    raw = ids(3)
    raw[0, 0] = 99
    save_mask(tree / "val/masks/2.png", raw)
    problems = _problems(check(data=_data(tree)))
    assert expected in problems
    assert ("3.png" in problems) or fault in ("leak", "unpaired")
    assert "label id 99" in problems


def test_many_files_with_one_fault_share_a_line(tree: Path, check: Check) -> None:
    _repaint(tree, lambda raw: np.where(raw == 1, 255, 0).astype(np.uint8))
    result = check(data=_data(tree, classes=["no", "yes"]))
    (line,) = _problems(result).splitlines()
    assert re.search(r"12 files \(.*0\.png, .*1\.png, .*2\.png and 9 more\): 255 occurs but", line)
    assert "1 problem to fix before training" in result[2]
    for number, path in enumerate(_masks(tree)):
        save_mask(path, ids(3) + 10 * number)
    lines = _problems(check(data=_data(tree))).splitlines()
    assert len(lines) == 2  # one for each split
    assert "and 17 more" in lines[0]
    for path in _masks(tree):
        path.write_text("no mask")
    (line,) = _problems(check(data=_data(tree))).splitlines()
    assert "12 files (" in line
    assert "cannot read this mask (cannot identify image file)" in line


def test_unusual_data_give_warnings(tree: Path, check: Check) -> None:
    _repaint(tree, lambda raw: np.where(raw == 2, 0, raw).astype(np.uint8))
    save_mask(tree / "val/masks/0.png", np.full((12, 16), 255, np.uint8))
    code, out, _ = check(data=_data(tree))
    assert code == 0
    assert "warning: train: no pixel of sky" in out
    assert "warning: val: 1 masks are entirely ignored: 0" in out
    _repaint(tree, lambda raw: np.where(np.arange(16) < 2, 2, raw).astype(np.uint8))
    options = {"classes": ["road", "sky"], "mapping": {0: None, 1: 0, 2: 1, 255: None}}
    code, out, _ = check(data=_data(tree, **options))
    assert code == 0
    assert re.search("warning: train: 5[0-9] % of the pixels are ignored", out)


@pytest.mark.parametrize(
    ("paint", "options", "remedy"),
    [
        ({1: 255, 2: 0}, {"classes": 1}, "Masks hold 0 and 255: for black and white add mapping"),
        ({1: 255, 2: 0}, {"classes": 3}, "Masks hold 0 and 255: for black and white add mapping"),
        ({2: 0}, {"classes": 2, "threshold": 128}, r"All grey levels (0 to 1) lie on one side of"),
        ({}, {"classes": 2, "threshold": 1, "mapping": None}, ""),
        ({}, {"classes": 2, "mapping": {0: 1, 1: None, 2: 1}}, "mapping has no id for class 0"),
        ({1: 2, 0: 2}, {"classes": 3}, "of the class class2; expected at least two classes. Check"),
    ],
)
def test_labels_of_one_class_alone_are_refused(
    paint: dict[int, int], options: dict[str, Any], remedy: str, tree: Path, check: Check
) -> None:
    table = np.arange(256, dtype=np.uint8)
    table[[*paint]] = [*paint.values()]
    _repaint(tree, lambda raw: table[raw])
    result = check(data=_data(tree, **options))
    if remedy:
        assert remedy in _problems(result)
    else:
        assert result[0] == 0


def test_different_palettes_suggest_a_mapping_of_colours(tree: Path, check: Check) -> None:
    colours = np.array([[0, 0, 0], [128, 64, 128], [255, 255, 1]], np.uint8)
    for place, path in enumerate(_masks(tree)):
        flip = place % 2
        image = Image.fromarray(2 - ids(3) if flip else ids(3))
        image.putpalette(colours[:: -1 if flip else 1].ravel().tolist())
        image.save(path)
    result = check(data=_data(tree))
    assert "the palettes of the masks differ (index 0 is #000000 in" in _problems(result)
    (proposal,) = _proposed(result[1])
    code, out, _ = check(data=_data(tree, **proposal))
    assert code == 0
    assert "palettes of the masks" not in out


@pytest.mark.parametrize(
    "options",
    [
        {"mask_suffix": 1.5},
        {"mask_dir": [1]},
        {"image_dir": 7},
        {"list_file": ["a"]},
        {"val_fraction": "1:30"},
        {"classes": -1.5},
        {"classes": 10**8},
        {"classes": 10**18},
        {"mapping": "none"},
        {"threshold": [1]},
        {"root": "elsewhere"},
        {"unpaired": [1]},
        {"orientation": 3},
    ],
    ids=str,
)
def test_options_of_the_wrong_type_are_problems(
    options: dict[str, Any], tree: Path, check: Check
) -> None:
    data = _data(tree)
    data["options"].update(options)
    assert next(iter(options)) in _problems(check(data=data))


def test_a_wrong_root_is_one_line(tmp_path: Path, check: Check) -> None:
    assert "nowhere: no such folder" in _problems(check(data=_data(tmp_path / "nowhere")))
    problems = _problems(check(data={"name": "camvid", "root": str(tmp_path)}))
    assert "is not a CamVid folder with a train split" in problems


def test_other_data_sets_are_counted_too(camvid_root: Path, check: Check) -> None:
    code, out, _ = check(data={"name": "synthetic", "options": {"size": [32, 48], "count": 5}})
    assert code == 0
    assert "train: 5 images with masks" in out
    assert "sky" in out
    code, out, _ = check(data={"name": "camvid", "root": str(camvid_root)})
    assert "share 1 group(s) of similar frames (0001TP)" in out
    code, out, _ = check(data={"name": "tests.run.auditing.test_check.Custom"})
    assert code == 2
    assert "sample 1: this one is broken" in out
    assert "sample 2: label id is 9; expected 0..1, or 255" in out


class Custom:
    """A user's data set: one sample cannot be read, one holds an undeclared id."""

    classes = ("a", "b")

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        if index == 1:
            raise RuntimeError("this one is broken\nin two lines")
        label = torch.zeros(4, 6, dtype=torch.int64)
        label[0, 0] = 9 if index == 2 else 1
        return torch.rand(3, 4, 6), label


@pytest.fixture
def camvid_root(tmp_path: Path) -> Path:
    root = tmp_path / "camvid"
    for value, split in enumerate(("train", "val")):
        save_image(root / split / "images" / f"0001TP_{value}.png", value=value)
        save_mask(root / split / "labels" / f"0001TP_{value}.png", ids(12))
    return root


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"student": {"model": "compct"}}, "did you mean 'compact'"),
        ({"student": {"model": "compact", "options": {"widht": 32}}}, "widht"),
        ({"student": {"model": "compact", "weights": "none.pth"}}, "none.pth"),
        ({"method": "idt"}, "did you mean 'idd'"),
        ({"method": "idd"}, "teacher"),
        ({"terms": {"cross_entropy": {"options": {"wieght": [1]}}}}, "wieght"),
        ({"train": {"batch": 3, "accumulate": 2, "crop": [8, 8]}}, "train.batch is 3"),
        ({"train": {"precision": "fp16", "crop": [8, 8]}}, "train.precision is fp16"),
        ({"observers": ["nowhere.Watch"]}, "nowhere"),
    ],
)
def test_what_training_would_refuse_is_a_problem(
    values: dict[str, Any], message: str, tree: Path, tmp_path: Path, check: Check
) -> None:
    assert message in _problems(check(data=_data(tree), **values))
    assert not (tmp_path / "runs").exists()


def test_a_student_of_another_number_of_channels_is_a_problem(tree: Path, check: Check) -> None:
    options = {"in_channels": 4, "input": {"mean": [0] * 4, "std": [1] * 4}}
    student = {"model": "compact", "options": options}
    result = check(data=_data(tree), student=student)
    assert "images have 3 channels and the student reads 4" in _problems(result)


def test_sizes_that_do_not_suit_the_images_are_warnings(tree: Path, check: Check) -> None:
    data = {**_data(tree), "size": [16, 48]}
    code, out, _ = check(data=data, train={"crop": [16, 64]})
    assert code == 0
    assert "data.size is [16, 48]; images change their aspect ratio by up to 2.2x" in out
    assert "train.crop is [16, 64]; data.size is [16, 48], so that crops are padded" in out
    code, out, _ = check(data=_data(tree), train={"crop": [64, 64]})
    assert "train.crop is [64, 64]; the largest image is [12, 16]" in out
    assert "aspect ratio" not in out


# The teacher -------------------------------------------------------------------------------------


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    return write_scenes(tmp_path / "scenes")


def _data_of(scenes: Path) -> dict[str, Any]:
    return _data(scenes, mapping={10: 0, 20: 1, 30: 2})


def test_a_sound_teacher_is_measured(scenes: Path, tmp_path: Path, check: Check) -> None:
    data = _data_of(scenes)
    code, out, error = check(data=data, teacher={**teacher_in(tmp_path), "min_miou": 90})
    assert code == 0, out + error
    assert "3 tensors matched" in out
    assert "mIoU 100.00 over 3 of 3 classes" in out


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"bgr": True}, "With its channels as BGR its mIoU is 100.0 instead of"),
        ({"scale": 255.0}, "With values from 0 to 255 its mIoU is 100.0 instead of"),
        ({"order": (1, 0, 2)}, "its classes in another order (its 0 as road [/x], its 1 as grass)"),
        ({"order": (1, 2, 0)}, "its class numbers shifted up by one"),
        ({"order": (2, 0, 1)}, "its class numbers shifted down by one"),
    ],
)
def test_the_cause_of_a_poor_teacher_is_reported_and_its_remedy_works(
    made: dict[str, Any], message: str, scenes: Path, tmp_path: Path, check: Check
) -> None:
    data = _data_of(scenes)
    teacher = teacher_in(tmp_path, **made)
    problems = _problems(check(data=data, teacher=teacher))
    assert message in problems
    key, remedy = re.findall(r"set teacher\.(labels|options) to (\{.*\})", problems)[0]
    code, out, error = check(data=data, teacher={**teacher, key: yaml.safe_load(remedy)})
    assert code == 0, out + error
    assert "mIoU 100.00" in out


def test_a_poor_teacher_without_a_known_cause_lists_what_to_check(
    scenes: Path, tmp_path: Path, check: Check
) -> None:
    network = ByColour()
    torch.nn.init.zeros_(network.head.weight)
    teacher = {**teacher_in(tmp_path), "min_miou": 50}
    save_file(network.state_dict(), tmp_path / "teacher.safetensors")
    data = _data_of(scenes)
    problems = _problems(check(data=data, teacher=teacher))
    assert (
        "at least 50.0 (teacher.min_miou). Check its weights, the order of its channels" in problems
    )


def test_the_teacher_is_not_measured_on_faulty_data(
    scenes: Path, tmp_path: Path, check: Check
) -> None:
    result = check(data=_data(scenes), teacher=teacher_in(tmp_path))
    _problems(result)
    assert "warning: the teacher was not measured. Fix the data first" in result[1]
    teacher = {**teacher_in(tmp_path), "weights": str(tmp_path / "none.safetensors")}
    data = _data_of(scenes)
    assert "teacher: no weights file at" in _problems(check(data=data, teacher=teacher))


# Training ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["the same file", "a copy", "one split, on purpose"])
def test_check_and_train_judge_images_in_both_splits_alike(
    how: str, scenes: Path, tmp_path: Path, check: Check, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(scenes / "val/images/0.png", scenes / "val/images/copy.png")
    shutil.copy(scenes / "val/masks/0.png", scenes / "val/masks/copy.png")
    name = "copy" if how == "a copy" else "0"
    (scenes / "train.txt").write_text(f"val/images/{name}.png val/masks/{name}.png\n")
    (scenes / "val.txt").write_text("val/images/0.png val/masks/0.png\n")
    data = _data(scenes, mapping={10: 0, 20: 1, 30: 2}, list_file="{split}.txt")
    if "purpose" in how:
        data["val_split"] = "train"
    student = {"model": "tests.run.plain.NoNorm"}
    training = {"crop": [16, 16], "steps": 1}
    recipe = small.recipe(data=data, student=student, train=training, out=str(tmp_path / "run"))
    code, found, _ = check(data=data, student=student, train=training)
    if "purpose" in how:
        assert train(recipe, progress=False).finished
        for said in (found, caplog.text):
            assert "1 image of train is also in train (val/images/0)" in said
        assert not code
        return
    with pytest.raises(
        ValueError, match=r"1 image of val is also in train \(val/images/0"
    ) as error:
        train(recipe, progress=False)
    assert f"problem: {error.value}" in found


# Real masks --------------------------------------------------------------------------------------


def test_real_cityscapes_masks_are_recognised(real_data: Path) -> None:
    root = real_data / "samples" / "cityscapes"
    images = sorted(root.glob("leftImg8bit/*/*/*_leftImg8bit.png"))[:2]
    pairs = [
        Pair(
            p.stem,
            p,
            root
            / "gtFine"
            / Path(*p.parts[-3:-1])
            / p.name.replace("leftImg8bit", "gtFine_labelIds"),
        )
        for p in images
    ]
    found = survey(pairs, None)
    assert found.faults == []
    assert found.sizes == {(2048, 1024): 2}
    assert "Cityscapes" in proposals([found], 19)[0].reason
