"""The command line: exit codes, one line per user error, and the written files."""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from docstring_parser import parse_from_object
from PIL import Image

import segdistill.run.training.train as train_module
from segdistill import cli
from segdistill.cli import main
from segdistill.models import build_model
from segdistill.run.evaluation.profile import profile
from segdistill.run.folder import RunFolder
from segdistill.run.listing import KINDS
from segdistill.run.shipping.predict import load_predictor, predict
from segdistill.run.training.loop import Interrupted
from segdistill.run.training.train import train
from tests.data import trees
from tests.run import small

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run evaluated with mirrored images, as set in its recipe."""
    out = tmp_path_factory.mktemp("cli") / "small"
    recipe = small.recipe(train={"steps": 8}, evaluate={"flip": True}, out=str(out))
    return train(recipe, progress=False)


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Command]:
    """Run the command in this process; return exit code, standard output and standard error."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    logger = logging.getLogger("segdistill")
    before = logger.handlers, logger.propagate, logger.level

    def call(*argv: object) -> tuple[int, str, str]:
        code = 0
        try:
            main([str(word) for word in argv])
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    yield call
    logger.handlers, logger.propagate, _ = before
    logger.setLevel(before[2])


def _refused(command: Command, *argv: object) -> str:
    """The message of a refusal: exit code 2, one line, nothing on standard output."""
    code, out, error = command(*argv)
    assert code == 2
    assert out == ""
    assert error.startswith("segdistill: ")
    assert error.count("\n") == 1, error
    return error


# Mistakes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "messages"),
    [
        (["trian"], ["no command named 'trian'; did you mean 'train'?"]),
        (["train"], ["train has no recipe; expected a YAML", "segdistill train RECIPE.yaml"]),
        (["compare"], ["compare has no recipe; expected a YAML", "segdistill compare RECIPE.yaml"]),
        (["train", "--train.lr", "1", "a.yaml"], ["train has no recipe"]),
        (["train", "nowhere.yaml"], ["no recipe at nowhere.yaml", "Name a YAML file"]),
        (["evaluate"], ["run is missing; expected segdistill evaluate RUN"]),
        (["evaluate", "nowhere"], ["no run at nowhere", "no such folder"]),
        (["evaluate", "nowhere", "--wiendow", "3"], ["'--wiendow'", "did you mean '--window'"]),
        (["predict", "nowhere", "a.png"], ["no run at nowhere"]),
        (["report", "nowhere"], ["no run at nowhere"]),
        (["profile"], ["expected runs or networks, or --table paper"]),
        (
            ["profile", "compact", "--table", "paper"],
            ["runs or networks, or --table paper"],
        ),
        (["reproduce", "tabel1"], ["tabel1", "table1"]),
        (["reproduce", "table1", "--runs", "nowhere"], ["no run at nowhere"]),
        (["profile", "compct"], ["did you mean 'compact'"]),
        (
            ["profile", "compact", "--size", "64"],
            ["--size is 64; expected height x width in pixels, such as 512x1024"],
        ),
        (["profile", "compact", "--size", "64x"], ["--size is 64x; expected height x width"]),
        (
            ["evaluate", "nowhere", "--window", "[64]"],
            ["--window is [64]; expected height x width"],
        ),
        (["evaluate", "nowhere", "--overlap", "x"], ["--overlap is x; expected a number"]),
        (["evaluate", "nowhere", "--scales", "2"], ["--scales is 2; expected a list"]),
        (["evaluate", "nowhere", "--flip=may"], ["--flip is may; expected true or false"]),
        (["evaluate", "nowhere", "--weights", "bset"], ["--weights: no choice named 'bset'; did"]),
        (["demo", "--seeds", "two"], ["demo: --seeds is two; expected an integer"]),
        (["list", "modles"], ["what: no choice named 'modles'; did you mean 'models'?"]),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    argv: list[str],
    messages: list[str],
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    error = _refused(command, *argv)
    for message in messages:
        assert message in error


@contextmanager
def _sigint(handler: Any) -> Iterator[None]:
    """Another handler of SIGINT inside the context."""
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("error", [ValueError("no shape"), ImportError("not installed"), None])
def test_an_interrupt_that_a_library_turns_into_an_error_is_one(
    number: signal.Signals,
    error: Exception | None,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stopped(*_: object, **__: object) -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        except KeyboardInterrupt:
            if error is not None:
                raise error from None
            raise

    monkeypatch.setattr("segdistill.run.commands.evaluate_run", stopped)
    # Tests that a shell runs in its background ignore SIGINT, and so would the command.
    with _sigint(signal.default_int_handler):
        code, _, err = command("evaluate", "runs/x")
    assert code == 128 + number
    assert f"segdistill: stopped by {number.name} while running evaluate (runs/x)" in err


def test_an_ignored_interrupt_stays_ignored(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a job that a shell started in its background."""

    def interrupted(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        raise ValueError("the command went on")

    monkeypatch.setattr("segdistill.run.commands.evaluate_run", interrupted)
    with _sigint(signal.SIG_IGN):
        code, _, err = command("evaluate", "runs/x")
    assert code == 2
    assert err.strip() == "segdistill: the command went on"


def test_paths_that_name_nothing_are_one_line(command: Command, tmp_path: Path) -> None:
    circle = tmp_path / "circle"
    circle.symlink_to("circle")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"{{student: {{model: compact}}, out: {tmp_path}/run}}")
    assert "circle is a link to itself" in _refused(command, "train", circle)
    assert "circle" in _refused(command, "report", circle)
    line = _refused(command, "train", recipe, "--out", "a\0b")
    assert "a path holds the character \\0, which no file name can hold while" in line


def test_a_message_is_never_longer_than_a_screen(command: Command, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    for text in (f"label: ['{'a' * 5000}']", f"data: {{name: {'a' * 5000}}}"):
        recipe.write_text(text)
        assert len(_refused(command, "train", recipe)) < 1100


def test_an_unknown_key_is_named_with_its_path_and_the_nearest(
    command: Command, tmp_path: Path
) -> None:
    recipe = small.write(tmp_path / "recipe.yaml", terms={"cross_entropy": {"wieght": 2}})
    for name in ("train", "compare"):
        error = _refused(command, name, recipe)
        assert "terms.cross_entropy.wieght: no key named 'wieght'; did you mean 'weight'?" in error
    good = small.write(tmp_path / "good.yaml")
    error = _refused(command, "train", good, "--train.lrr", "3")
    assert "train.lrr: no key named 'lrr'; did you mean 'lr'?" in error
    assert "train.lr is fast; expected a number" in _refused(
        command, "train", good, "--train.lr", "fast"
    )
    error = _refused(command, "compare", good, "--seeds", "many")
    assert "compare: --seeds is many; expected an integer" in error
    error = _refused(command, "tune", good, "--trials", "many")
    assert "tune: --trials is many; expected an integer" in error
    error = _refused(command, "tune", good, "--trails", "2")
    assert "tune: no option named '--trails'; did you mean '--trials'?" in error
    assert "the recipe has no tuning.data; expected" in _refused(command, "tune", good)
    error = _refused(command, "compare", good, "--sedes", "2")
    assert "compare: no option named '--sedes'; did you mean '--seeds'?" in error
    error = _refused(command, "compare", good, "--trian.lr", "2")
    assert "no option named '--trian.lr'; did you mean '--train'?" in error


@pytest.mark.parametrize("options", ["options", "train_options", "val_options"])
def test_a_split_in_the_options_is_refused_with_its_own_key(
    options: str, command: Command, tmp_path: Path
) -> None:
    key = "train" if options == "options" else options.removesuffix("_options")
    data = {"name": "synthetic", options: {"split": "val"}}
    recipe = small.write(tmp_path / "recipe.yaml", data=data, out=str(tmp_path / "run"))
    error = _refused(command, "train", recipe)
    assert f"split cannot be set in the options of data. Set data.{key}_split" in error


def test_logits_too_small_for_a_critic_are_refused_before_training(
    run: RunFolder, command: Command, tmp_path: Path
) -> None:
    recipe = small.write(tmp_path / "recipe.yaml", **small.released(run.path))
    out = tmp_path / "run"
    error = _refused(command, "train", recipe, "--out", out, "--train.crop", "[12, 40]")
    assert "the logits are 3x10; the critic expects at least 8x8. Use larger crops" in error
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_folder_that_is_not_a_run_is_refused(command: Command, tmp_path: Path) -> None:
    for name in ("evaluate", "report"):
        error = _refused(command, name, tmp_path)
        assert "no run at" in error
        assert "it has no config.yaml" in error


def test_an_unfinished_run_is_refused(run: RunFolder, command: Command, tmp_path: Path) -> None:
    shutil.copy(run.path / "config.yaml", tmp_path)
    assert "Resume it with `segdistill train`" in _refused(command, "evaluate", tmp_path)
    assert "no run is finished" in _refused(command, "report", tmp_path)


def test_damaged_files_of_a_run_are_named(run: RunFolder, command: Command, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(run.path, broken)
    weights = broken / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    assert "model.safetensors is not the file that the training wrote" in _refused(
        command, "evaluate", broken
    )
    weights.unlink()
    assert "no such weights in that run" in _refused(command, "evaluate", broken)
    weights.write_bytes(content)
    info = json.loads((broken / "model.json").read_text())
    info["options"]["width"] = 9
    (broken / "model.json").write_text(json.dumps(info))
    assert "size mismatch" in _refused(command, "evaluate", broken)
    (broken / "model.json").write_text("{")
    assert "model.json is damaged" in _refused(command, "evaluate", broken)
    shutil.copy(run.path / "model.json", broken)
    (broken / "config.yaml").write_text("data: [")
    assert "config.yaml is not valid YAML at line" in _refused(command, "evaluate", broken)


@pytest.mark.parametrize(
    ("stop", "code", "message"),
    [
        (Interrupted(7, signal.SIGTERM), 143, "stopped after step 7. Repeat the command to resume"),
        (Interrupted(7, signal.SIGINT), 130, "stopped after step 7"),
        (KeyboardInterrupt(), 130, "stopped by SIGINT while running train"),
    ],
)
def test_an_interrupted_training_exits_with_the_code_of_its_signal(
    stop: BaseException,
    code: int,
    message: str,
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stopped(*_: object) -> None:
        raise stop

    monkeypatch.setattr(train_module, "train", stopped)
    got, _, error = command("train", small.write(tmp_path / "recipe.yaml"))
    assert got == code
    assert f"segdistill: {message}" in error


def test_debug_shows_the_traceback_and_internal_errors_are_never_hidden(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match="no recipe at"):
        command("--debug", "train", tmp_path / "nowhere.yaml")

    def broken(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(train_module, "train", broken)
    recipe = small.write(tmp_path / "recipe.yaml")
    with pytest.raises(RuntimeError, match="a fault of ours"):
        command("--debug", "train", recipe)
    code, _, error = command("train", recipe)
    assert code == 1
    assert "unexpected RuntimeError while running train" in error and "a fault of ours" in error


def test_help_and_version(command: Command) -> None:
    code, out, _ = command()
    assert code == 0
    for name in (
        "train",
        "compare",
        "tune",
        "evaluate",
        "predict",
        "report",
        "profile",
        "suggest",
        "list",
        "demo",
    ):
        assert name in out
    assert command("--version")[1].startswith("segdistill ")
    code, out, _ = command("train", "--help")
    assert code == 0
    assert "--train.lr" in out
    assert "base learning rate" in out
    assert "--methods" in command("compare", "--help")[1]


# Commands on finished runs -----------------------------------------------------------------------


def test_train_writes_a_run_and_takes_overrides(command: Command, tmp_path: Path) -> None:
    recipe = small.write(tmp_path / "recipe.yaml")
    out = tmp_path / "run"
    code, _, error = command("train", recipe, f"--out={out}", "--train.steps", "2")
    assert code == 0, error
    assert RunFolder(out).config()["train"]["steps"] == 2
    assert "step 2 of 2" in error
    assert (
        "is already finished" in command("train", recipe, f"--out={out}", "--train.steps", "2")[2]
    )


def test_compare_takes_its_own_options_beside_those_of_the_recipe(
    command: Command, tmp_path: Path
) -> None:
    recipe = small.write(tmp_path / "recipe.yaml")
    out = tmp_path / "runs"
    options = ["--methods", "supervised", "--seeds", "1", "--first_seed=3", "--train.steps", "2"]
    code, _, error = command("compare", recipe, "--out", out, *options)
    assert code == 0, error
    assert "control" in error
    assert list(json.loads((out / "comparison.json").read_text())["methods"]) == ["control"]
    assert RunFolder(out / "supervised-s3").finished


def test_evaluate_prints_what_the_run_reported_unless_asked_otherwise(
    run: RunFolder, command: Command
) -> None:
    figures = run.evaluation()
    assert figures is not None

    def printed(*options: object) -> str:
        code, out, error = command("evaluate", run.path, *options)
        assert code == 0, error
        found = re.search(r"mIoU (\S+) over", out)
        assert found is not None
        for name in figures["classes"]:
            assert name in out
        return found[1]

    assert printed() == f"{100 * figures['miou']:.2f}"
    assert printed("--weights", "best") == f"{100 * figures['miou']:.2f}"
    assert printed("--flip", "false", "--scales", "[2.0]") != printed()
    assert "nosplit" in _refused(command, "evaluate", run.path, "--split", "nosplit")


def test_predict_writes_masks_and_overlays(
    run: RunFolder, command: Command, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.png"
    Image.new("RGB", (50, 30), (90, 120, 200)).save(photo)
    code, _, error = command("predict", run.path, photo, "--out", tmp_path / "out")
    assert code == 0, error
    with Image.open(tmp_path / "out" / "photo.png") as mask:
        assert mask.size == (50, 30)
        assert mask.mode == "P"
        assert int(np.asarray(mask).max()) < small.CLASSES
    assert {f.name for f in (tmp_path / "out").iterdir()} == {
        "photo.png",
        "photo_overlay.jpg",
        "classes.json",
    }
    assert "missing.png" in _refused(command, "predict", run.path, tmp_path / "missing.png")


def test_predict_shows_images_as_the_recipe_says(
    run: RunFolder, command: Command, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    known = load_predictor(run.path)
    masks = []
    for flip in (True, False):
        folder, own = tmp_path / f"run-{flip}", tmp_path / f"own-{flip}"
        shutil.copytree(run.path, folder)
        values = {**run.config(), "evaluate": {"flip": flip}}
        (folder / "config.yaml").write_text(yaml.safe_dump(values))
        code, _, error = command("predict", folder, tmp_path / "noise.png", "--out", folder / "out")
        assert code == 0, error
        looks = {"classes": known.classes, "palette": known.palette}
        predict(known.network, tmp_path / "noise.png", own, **looks, flip=flip)
        masks.append(np.asarray(Image.open(folder / "out" / "noise.png")))
        assert np.array_equal(masks[-1], np.asarray(Image.open(own / "noise.png")))
    assert (masks[0] != masks[1]).any()


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ("predict RUN --out oo a.png b.png", {"images": ["a.png", "b.png"], "out": "oo"}),
        ("predict --out=oo RUN a.png", {"images": ["a.png"], "out": "oo"}),
        ("predict RUN a.png --out oo", {"images": ["a.png"], "out": "oo"}),
        ("export --int8 RUN", {"int8": True, "resize": True}),
        ("export RUN --int8 --resize false", {"int8": True, "resize": False}),
        ("export --int8 false RUN", {"int8": False}),
        ("evaluate --flip RUN --scales [1.0]", {"flip": True, "scales": (1.0,)}),
        ("evaluate RUN --flip --weights best", {"flip": True, "weights": "best"}),
    ],
)
def test_options_may_stand_anywhere(
    argv: str, expected: dict[str, object], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = argv.split()[0]
    called: dict[str, object] = {}
    real = cli._COMMANDS[name]
    recorded = wraps(real)(lambda **arguments: called.update(arguments))
    monkeypatch.setitem(cli._COMMANDS, name, recorded)
    code, _, error = command(*argv.split())
    assert code == 0, error
    assert called.items() >= {"run": "RUN", **expected}.items()


@pytest.fixture(scope="module")
def cityscapes_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run on a small Cityscapes folder, evaluated with windows."""
    folder = tmp_path_factory.mktemp("cityscapes")
    root = trees.cityscapes(folder / "data", size=(32, 48))
    recipe = small.recipe(
        data={"name": "cityscapes", "root": str(root)},
        train={"steps": 2},
        evaluate={"window": [32, 32]},
        out=str(folder / "run"),
    )
    return train(recipe, progress=False)


def test_a_split_without_labels_is_exported_and_not_scored(
    cityscapes_run: RunFolder, command: Command, tmp_path: Path
) -> None:
    run = cityscapes_run.path
    error = _refused(command, "evaluate", run, "--split", "test")
    assert "cityscapes, split 'test', has no labels; expected labels" in error
    assert "segdistill predict RUN --server test" in error
    code, _, error = command("predict", run, "--server", "test", "--out", tmp_path / "out")
    assert code == 0, error
    assert [file.name for file in sorted((tmp_path / "out").iterdir())] == [
        f"bonn_{i:06d}_000019_pred_labelIds.png" for i in range(3)
    ]
    assert "expected only one of them" in _refused(
        command, "predict", run, tmp_path, "--server", "test"
    )
    assert "Name an image file" in _refused(command, "predict", run)


def test_training_on_an_unlabelled_split_is_refused(
    cityscapes_run: RunFolder, command: Command, tmp_path: Path
) -> None:
    data = cityscapes_run.config()["data"]
    recipe = small.write(tmp_path / "recipe.yaml", data=data)
    for key in ("data.train_split", "data.val_split"):
        error = _refused(command, "train", recipe, f"--{key}=test", f"--out={tmp_path / 'run'}")
        assert "cityscapes, split 'test', has no labels" in error


def _mask_of(kind: str) -> Image.Image:
    if kind == "16-bit":
        return Image.fromarray(np.full((32, 48), 26001, np.uint16))
    return Image.new("RGB", (48, 32), (128, 64, 128))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("16-bit", "in 6 masks); expected 0..33. Ids above 8 bits suggest an instance map"),
        ("RGB", "train: 6 masks are in colour"),
    ],
)
def test_masks_that_hold_no_class_ids_are_refused(
    kind: str, message: str, command: Command, tmp_path: Path
) -> None:
    root = trees.cityscapes(tmp_path / "data", size=(32, 48))
    for path in (root / "gtFine" / "train").rglob("*.png"):
        _mask_of(kind).save(path)
    data = {"name": "cityscapes", "root": str(root)}
    recipe = small.write(tmp_path / "recipe.yaml", data=data)
    error = _refused(command, "train", recipe, f"--out={tmp_path / 'run'}")
    assert "_gtFine_labelIds.png" in error
    assert message in error


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cityscapes", "no folder leftImg8bit/train in"),
        ("voc", "no folder JPEGImages in"),
        ("ade20k", "no folder images/training in"),
        ("cocostuff", "no folder images/train2017 or train2017 in"),
        ("camvid", "expected train/images and train/labels"),
    ],
)
def test_a_root_with_an_unknown_layout_is_refused(
    name: str, expected: str, command: Command, tmp_path: Path
) -> None:
    for folder in ("photos", "truth"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    data = {"name": name, "root": str(tmp_path / "data")}
    recipe = small.write(tmp_path / "recipe.yaml", data=data)
    error = _refused(command, "train", recipe, f"--out={tmp_path / 'run'}")
    assert expected in error
    assert "holds photos, truth" in error


def test_a_list_that_names_a_missing_file_is_refused(command: Command, tmp_path: Path) -> None:
    root = trees.voc(tmp_path / "data")
    (root / "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt").write_text("2007_000777\n")
    recipe = small.write(tmp_path / "recipe.yaml", data={"name": "voc", "root": str(root)})
    error = _refused(command, "train", recipe, f"--out={tmp_path / 'run'}")
    assert "train.txt names 1 file(s) missing from" in error
    assert "2007_000777.jpg" in error


def test_report_writes_one_file(run: RunFolder, command: Command, tmp_path: Path) -> None:
    code, _, error = command("report", run.path, "--out", tmp_path / "page" / "report.html")
    assert code == 0, error
    page = (tmp_path / "page" / "report.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html")
    assert "control" in page
    assert not re.search(r'(src|href)="https?://', page)


def test_profile_lays_runs_and_networks_side_by_side(run: RunFolder, command: Command) -> None:
    code, out, error = command(
        "profile", run.path, "compact", "--size", "[32,48]", "--latency", "false", "--classes", 11
    )
    assert code == 0, error
    figures = run.evaluation()
    assert figures is not None
    first = next(line for line in out.splitlines() if str(run.path) in line)
    assert f"{figures['profile']['parameters'] / 1e6:.3f}M" in first
    assert any(line.startswith("compact ") for line in out.splitlines())


def test_reproduce_prints_the_table_and_names_runs_that_fit_no_row(
    run: RunFolder, command: Command, tmp_path: Path
) -> None:
    code, out, error = command("reproduce", "table4", "--runs", run.path, "--out", tmp_path)
    assert code == 0, error
    assert "28.93" in out
    assert "no row: its data set is synthetic; expected ade20k" in out
    assert {file.name for file in tmp_path.iterdir()} == {"table4.html", "table4.png"}


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("losses", "inter_class"),
        ("methods", "idd"),
        ("models", "pspnet_r18_half"),
        ("datasets", "camvid"),
        ("keys", "train.head_lr_factor"),
    ],
)
def test_list_names_what_a_recipe_may_use(what: str, name: str, command: Command) -> None:
    code, out, _ = command("list", what)
    assert code == 0
    assert name in out


def test_list_keys_says_what_each_is(command: Command) -> None:
    _, out, _ = command("list", "keys")
    assert re.search(r"train\.lr +│ base learning rate", out)


def test_list_models_gives_the_parameters(command: Command) -> None:
    _, out, _ = command("list", "models")
    row = next(line for line in out.splitlines() if "pspnet_r18_half" in line)
    assert "3.27 M" in row
    assert any("smp:..." in line and "by name" in line for line in out.splitlines())


def test_list_without_arguments_shows_the_kinds(command: Command) -> None:
    code, out, _ = command("list")
    assert code == 0
    for kind in ("losses", "methods", "models", "datasets", "keys"):
        assert f"segdistill list {kind}" in out


def test_several_kinds_are_listed_at_once(command: Command) -> None:
    code, out, _ = command("list", "datasets", "methods")
    assert code == 0
    assert "camvid" in out
    assert "idd" in out


@pytest.mark.parametrize("argv", [["list"], ["list", *KINDS], ["trian"], ["train"]])
def test_commands_without_networks_do_not_import_torch(argv: list[str]) -> None:
    code = (
        "import sys\nfrom segdistill.cli import main\n"
        f"try: main({argv!r})\nexcept SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == 0


def test_list_losses_shows_their_published_forms(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segdistill.losses import LOSSES

    monkeypatch.setattr(LOSSES["pixelwise"], "forms", ("default", "skd"), raising=False)
    _, out, _ = command("list", "losses")
    assert re.search(r"pixelwise +│ default, skd", out)


def test_every_option_of_every_command_is_explained(command: Command) -> None:
    for name in cli._COMMANDS:
        _, out, _ = command(name, "--help")
        documented = parse_from_object(cli._COMMANDS[name]).params
        assert [p.arg_name for p in documented] == list(signature(cli._COMMANDS[name]).parameters)
        for parameter in documented:
            text = " ".join((parameter.description or "").split())
            assert len(text) > 10
            assert text in " ".join(out.split())


def test_a_failing_observer_is_reported_in_one_line(command: Command, tmp_path: Path) -> None:
    path = "tests.run.training.test_observing.Fails"
    recipe = small.write(tmp_path / "recipe.yaml", observers=[path])
    error = _last_line(command, "train", recipe, "--out", tmp_path / "run")
    assert f"segdistill: observer {path} failed in row() at step 4" in error
    code, _, error = command("train", recipe, "--out", tmp_path / "run", "--observers", "[]")
    assert code == 0, error
    assert "run resumes after step 4 of 6" in error


def _last_line(command: Command, *argv: object) -> str:
    code, _, error = command(*argv)
    assert code == 2
    return error.splitlines()[-1]


@pytest.mark.parametrize("size", ["32x48", "32,48", "[32,48]", "[32, 48]", "=32x48"])
def test_a_size_is_given_as_suggest_takes_it(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = [f"--size{size}"] if size[0] == "=" else ["--size", size]
    main(["profile", "compact", *given, "--latency", "false"])
    cost = profile(build_model("compact", 19), (32, 48), latency=False)
    assert f"{cost.multiply_adds / 1e9:.3f}G" in capsys.readouterr().out
