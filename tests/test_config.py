import os
import re
from copy import deepcopy
from operator import truediv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from segdistill import config
from segdistill.config import (
    DataConfig,
    ModelConfig,
    ObserverConfig,
    Recipe,
    annotation_at,
    check_keys,
    option_texts,
    recipe_text,
    to_dict,
)
from segdistill.run.recipe import load_recipe, parse_recipe, recipe_name, variant_training
from segdistill.yaml_files import load_yaml, read_yaml


@pytest.mark.parametrize(
    ("values", "messages"),
    [
        ({"trian": {}}, ["trian: no key named 'trian'", "did you mean 'train'"]),
        ({"train": {"lrr": 1}}, ["train.lrr: ", "did you mean 'lr'"]),
        (
            {"terms": {"channelwise": {"wieght": 1}}},
            ["terms.channelwise.wieght: ", "did you mean 'weight'"],
        ),
        ({"teacher": {"rum": "a"}}, ["teacher.rum: ", "did you mean 'run'"]),
        ({"method": {"nam": "idd"}}, ["method.nam: ", "did you mean 'name'"]),
        ({"train": 5}, ["train is 5; expected a mapping", "steps"]),
        ({"train": None}, ["train is null. Give it a value"]),
        ({"teacher": "runs/a"}, ["teacher is 'runs/a'; expected a mapping", "run"]),
        ({"terms": {"pixelwise": 5}}, ["terms.pixelwise is 5; expected a mapping", "weight"]),
        (
            {"train": {"optimizer": "adam"}},
            ["train.optimizer is 'adam'; expected 'sgd' or 'adamw'"],
        ),
        (
            {"method": {"preset": "papr"}},
            ["method.preset is 'papr'; expected 'default' or 'paper'"],
        ),
        ({1: 2}, ["1: no key named '1'"]),
    ],
)
def test_a_wrong_key_is_named_with_its_path(values: dict[Any, Any], messages: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        check_keys(values)
    for message in messages:
        assert message in str(caught.value)


def test_options_and_taps_may_have_any_key() -> None:
    check_keys(
        {
            "data": {"options": {"anything": {"at": "all"}}},
            "student": {"taps": {"mine": "path"}},
            "teacher": None,
            "method": "idd",
        }
    )


def test_an_error_in_the_yaml_is_reported_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("train:\n  steps: 5\n  crop: [3, 4\nmethod: idd\n")
    with pytest.raises(ValueError, match=r"recipe.yaml is not valid YAML at line \d, column \d"):
        read_yaml(file)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "idd\n"])
def test_a_yaml_file_without_a_mapping_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"recipe.yaml holds .*; expected a mapping such as"):
        read_yaml(file)


def test_a_missing_or_binary_recipe_is_refused(tmp_path: Path) -> None:
    (tmp_path / "student.yaml").write_text("method: idd")
    with pytest.raises(
        FileNotFoundError, match=r"no recipe at .*; did you mean .*/student\.yaml\?"
    ):
        read_yaml(tmp_path / "student.yml")
    with pytest.raises(FileNotFoundError, match=r"no recipe at .*nowhere.yaml. Name a YAML file"):
        read_yaml(tmp_path / "nowhere.yaml")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ValueError, match=r"picture.png is not a text file"):
        read_yaml(tmp_path / "picture.png")


def test_yaml_cannot_run_code(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("out: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ValueError, match="is not valid YAML at line 1"):
        read_yaml(file)


FULL = {
    "data": {
        "name": "folder",
        "size": [32, 48],
        "options": {"mapping": {0: 0, 255: 1}, "text": "1e-3", "classes": ["no", "yes", "5"]},
    },
    "teacher": {"run": "runs/teacher", "min_miou": 0.0},
    "method": {"name": "idd", "preset": "paper"},
    "terms": {"channelwise": {"weight": 2, "options": {"temperature": 4.0}}},
    "train": {"lr": "1e-3", "clip": None, "scale": [0.5, 2]},
    "evaluate": {"scales": [0.5, 1]},
    "observers": ["a.B", {"path": "a.C", "options": {"text": "1e-3", "answer": "no"}}],
}


def test_a_saved_recipe_is_loaded_unchanged(tmp_path: Path) -> None:
    recipe = parse_recipe(FULL)
    assert recipe.train.lr == 1e-3
    assert recipe.data.options == FULL["data"]["options"]  # type: ignore[index]
    assert recipe.chosen_observers()[1].options == {"text": "1e-3", "answer": "no"}
    (tmp_path / "config.yaml").write_text(recipe_text(recipe), "utf-8")
    assert load_recipe(tmp_path / "config.yaml") == recipe
    assert [file.name for file in tmp_path.iterdir()] == ["config.yaml"]
    assert to_dict(recipe)["train"]["scale"] == [0.5, 2.0]


def test_parsing_does_not_change_the_values() -> None:
    values = deepcopy(FULL)
    parse_recipe(values, ["--terms.channelwise.weight", "7", "--teacher.run", "b"])
    assert values == FULL


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": {"lr": "abc"}}, "here: train.lr is abc; expected a number"),
        ({"train": {"steps": 1.5}}, "train.steps is 1.5; expected an integer"),
        ({"train": {"crop": [3]}}, "train.crop is [3]; expected height x width in pixels"),
        ({"terms": 5}, "terms is 5; expected a mapping"),
        ({"out": 5}, "out is 5; expected text or null"),
        ({"train": {"lr": " "}}, "here: train.lr is empty text; expected a number"),
        ({"thin_classes": ""}, "here: thin_classes is empty text; expected a list such as"),
        ({"label": ["a" * 300]}, f"here: label is ['{'a' * 46} .. "),
        (
            {"variants": {"v": {"terms": {"pixelwise": {"weight": "x"}}}}},
            "here: variants.*.terms.*.weight is x; expected a number or null",
        ),
        ({"teacher": {"scale": "abc"}}, "here: teacher.scale is abc; expected a number"),
        (
            {"data": {"size": 3}, "variants": {"a": {"terms": {"pixelwise": {"weight": 1}}}}},
            "here: data.size is 3; expected",
        ),
        (
            {"train": {"precision": 16}},
            "train.precision is '16'; expected 'auto', '32', 'bf16' or 'fp16'",
        ),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_in_one_line(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as caught:
        parse_recipe(values, name="here")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def _numbers(text: str) -> set[float]:
    """The numbers that a message writes out, powers and fractions among them."""
    text = text.replace("positive", "1").replace("2^63 - 1", str(2**63 - 1))
    found = re.findall(r"(\d+(?:\.\d+)?)(\^|/)?(-?\d+)?", text)
    how = {"^": pow, "/": truediv, "": lambda value, _: value}
    return {float(how[sign](float(first), float(second or 0))) for first, sign, second in found}


@pytest.mark.parametrize("key", config._RANGES)
def test_a_message_states_both_bounds_of_a_number(key: str) -> None:
    low, high, expected = config._RANGES[key]
    for bound in (low, high):
        assert any(number == pytest.approx(bound, rel=1e-9, abs=0) for number in _numbers(expected))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": {"lr": 1e12}}, "train.lr is 1000000000000.0; expected a number from 0 to 10^6"),
        ({"tuning": {"lr": [1, 1e20]}}, "tuning.lr is [1.0, 1e+20]; expected factors from 10^-6"),
        ({"train": {"steps": 2 * 10**9}}, "expected a positive integer, at most 10^9"),
        ({"train": {"momentum": float("nan")}}, "momentum is nan; expected a number from 0 to 1"),
    ],
)
def test_a_number_above_its_bound_is_answered_with_the_bound(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as caught:
        parse_recipe(values)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("train:\n  batch: 2\n  batch: 3\n", "line 3, column 3: the key 'batch' is there twice"),
        ("method: kd\n\n'method': idd\n", "line 3, column 1: the key 'method' is there twice"),
        ("terms: {pixelwise: {on: a, on: b}}", "the key 'on' is there twice, first in line 1"),
        ("train: {steps: 1:30}", "1:30 is a number in base 60 in YAML"),
        ("teacher: {labels: {1:2}}", "Write a space after the colon"),
        ("label: a\0b", "unacceptable character #x0000"),
        (f"train: {{seed: {'9' * 5000}}}", "Exceeds the limit"),
    ],
)
def test_yaml_that_would_be_read_otherwise_than_it_is_written(
    text: str, problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"^{path} is not valid YAML") as caught:
        read_yaml(path)
    assert problem in str(caught.value) and "\n" not in str(caught.value)


def test_merged_keys_are_overridden_and_dates_and_leading_zeros_are_text(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "a: &a {x: 1, y: 2}\nb: &b {<<: *a, y: 3}\nc: {<<: [*b, *a], x: 4}\n"
        "d: [010, 2020-01-01, 0x10, -1_000, .5, 1.5e+3, .inf, no]\n"
    )
    values = read_yaml(path)
    assert values["b"] == {"x": 1, "y": 3} and values["c"] == {"x": 4, "y": 3}
    assert values["d"] == ["010", "2020-01-01", 16, -1000, 0.5, 1500.0, float("inf"), False]


@pytest.mark.parametrize(
    "value",
    [
        *["0:30", "16:9", "1:30.5", "010", "1e3", "1E-3", "2020-01-01", "no", "null", "~", "0x1"],
        *["<<", "=", ".5", "-", "1_0", ".inf", "*a", "&a", "!a", "08", "é"],
        *("", " a ", "a: b", "a\nb", "\u202e"),
    ],
)
def test_text_that_a_run_writes_is_read_as_text(value: str) -> None:
    text = yaml.safe_dump({"label": value, value: [value]}, allow_unicode=True, sort_keys=False)
    assert load_yaml(text) == {"label": value, value: [value]}


def test_what_is_no_recipe_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(FileNotFoundError, match=r"folder\.yaml is a folder; expected a YAML file"):
        read_yaml(tmp_path / "folder.yaml")
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(FileNotFoundError, match=r"pipe\.yaml is not a regular file"):
        read_yaml(tmp_path / "pipe.yaml")
    with open(tmp_path / "large.yaml", "wb") as file:
        file.truncate(3 * 10**9)
    with pytest.raises(ValueError, match="has 3000 MB; expected at most 10"):
        read_yaml(tmp_path / "large.yaml")


def test_overrides_change_single_keys_and_keep_the_rest() -> None:
    recipe = parse_recipe(
        FULL,
        [
            *("--terms.channelwise.weight", "5"),
            *("--terms.pairwise.weight", "0"),
            *("--terms.channelwise.options.form", "mmrazor"),
            *("--teacher.min_miou", "30"),
            *("--train.lr", "1e-4"),
            "--train.crop=[64, 96]",
            *("--train.precision", "32"),
            *("--out", "7"),
            *("--student.taps.features", "0"),
            *("--data.size", "null"),
        ],
    )
    assert recipe.terms["channelwise"].weight == 5
    assert recipe.terms["channelwise"].options == {"temperature": 4.0, "form": "mmrazor"}
    assert recipe.terms["pairwise"].weight == 0
    assert recipe.teacher is not None
    assert (recipe.teacher.run, recipe.teacher.min_miou) == ("runs/teacher", 30)
    assert (recipe.train.lr, recipe.train.crop, recipe.train.precision) == (1e-4, (64, 96), "32")
    assert (recipe.out, recipe.student.taps, recipe.data.size) == ("7", {"features": "0"}, None)


def test_the_precision_32_needs_no_quotes() -> None:
    values = {"train": {"precision": 32}, "variants": {"half": {"train": {"precision": 32}}}}
    recipe = parse_recipe(values)
    assert recipe.train.precision == "32"
    assert variant_training(recipe, "half").precision == "32"
    assert values["train"]["precision"] == 32  # what was given is not changed


def test_numbers_and_arrays_of_numpy_and_torch_are_plain_in_a_recipe() -> None:
    weight = {"options": {"weight": torch.tensor([1.0, 2.0]), "pair": (np.float32(0.5), 1)}}
    recipe = parse_recipe(
        {
            "train": {"steps": np.int64(7), "lr": np.float32(0.5), "crop": np.array([32, 48])},
            "terms": {"cross_entropy": {"weight": torch.tensor(2.0), **weight}},
        }
    )
    assert (recipe.train.steps, recipe.train.lr, recipe.train.crop) == (7, 0.5, (32, 48))
    term = recipe.terms["cross_entropy"]
    assert (term.weight, term.options) == (2.0, {"weight": [1.0, 2.0], "pair": (0.5, 1)})


def test_paths_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "below.yaml").write_text("data: {root: ~/data}\nlabel: ~/label\n")
    path = tmp_path / "recipes" / "recipe.yaml"
    path.parent.mkdir()
    path.write_text(
        "base: ~/below.yaml\nevaluation: {snow: {root: ~/snow}}\n"
        "data: {train_options: {labelled: ~/names.txt, splits: [~/a, '~b']}}\n"
        "observers: [{path: watch.Log, options: {folder: ~/logs, mark: '~'}}]\n"
    )
    recipe = load_recipe(path, ["--out=~/runs/a", "--teacher.run=~/runs/teacher"])
    assert recipe.data.root == str(tmp_path / "data")
    assert recipe.evaluation["snow"].root == str(tmp_path / "snow")
    assert recipe.out == str(tmp_path / "runs" / "a")
    assert recipe.teacher is not None and recipe.teacher.run == str(tmp_path / "runs" / "teacher")
    assert recipe.label == "~/label"
    assert recipe.data.train_options == {
        "labelled": str(tmp_path / "names.txt"),
        "splits": [str(tmp_path / "a"), "~b"],
    }
    assert isinstance(recipe.observers[0], ObserverConfig)
    assert recipe.observers[0].options == {"folder": str(tmp_path / "logs"), "mark": "~"}


def test_the_key_on_of_a_term_needs_no_quotes(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("terms: {channelwise: {on: features}}\n")
    assert load_recipe(path).terms["channelwise"].on == "features"
    recipe = load_recipe(path, ["--terms.pairwise", "{on: layer3, weight: 1}"])
    assert recipe.terms["pairwise"].on == "layer3"


def test_overriding_the_preset_keeps_the_method() -> None:
    recipe = parse_recipe({"method": "idd"}, ["--method.preset", "paper"])
    assert (recipe.chosen_method().name, recipe.chosen_method().preset) == ("idd", "paper")
    assert parse_recipe(FULL, ["--method", "kd"]).chosen_method().name == "kd"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--train.lrr", "3"], r"train.lrr: no key named 'lrr'; did you mean 'lr'"),
        (["--terms.pixelwise.wieght", "3"], r"terms.pixelwise.wieght: .*did you mean 'weight'"),
        (["--train.lr"], r"--train.lr has no value; expected --train.lr VALUE"),
        (
            ["--train.lr", "--train.steps", "3"],
            r"--train.lr has no value; expected --train.lr VALUE",
        ),
        (["train.lr", "3"], r"'train.lr' is not an option; expected one such as --train.lr 0.1"),
        (["--train", "3"], r"train is 3; expected a mapping"),
        (["--observers", "a.B"], r"observers is a.B; expected a list such as \[a, b\]"),
    ],
)
def test_a_wrong_override_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_recipe({}, overrides)


def test_a_recipe_is_merged_into_its_base_key_by_key(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "base.yaml").write_text(
        "data: {name: folder, options: {classes: [a, b], limit: 3}}\n"
        "method: kd\nteacher: {run: runs/a}\ntrain: {steps: 5, crop: [3, 4]}\n"
    )
    (tmp_path / "middle.yaml").write_text("base: shared/base.yaml\ntrain: {crop: [5, 6]}\n")
    (tmp_path / "row.yaml").write_text(
        "base: middle.yaml\ndata: {options: {classes: [c]}}\n"
        "method: {name: idd, preset: paper}\nteacher: null\ntrain: {batch: 2}\n"
    )
    recipe = load_recipe(tmp_path / "row.yaml", ["--train.lr", "0.5"])
    assert (recipe.data.name, recipe.data.options) == ("folder", {"classes": ["c"], "limit": 3})
    assert (recipe.chosen_method().name, recipe.teacher) == ("idd", None)
    train = recipe.train
    assert (train.steps, train.crop, train.batch, train.lr) == (5, (5, 6), 2, 0.5)
    # The run's copy does not need its base.
    assert "base" not in to_dict(recipe)


def test_options_change_a_recipe_as_a_recipe_changes_its_base(
    caplog: pytest.LogCaptureFixture,
) -> None:
    values = {
        "train": {"steps": 7, "lr": 0.1},
        "data": {"name": "folder", "root": "a", "options": {"classes": 3, "limit": 5}},
        "student": {"model": "compact", "options": {"width": 8}},
    }
    made = parse_recipe(values, ["--train={lr: 0.2}", "--data.options={limit: 9}"])
    assert (made.train.steps, made.train.lr) == (7, 0.2)
    assert made.data.options == {"classes": 3, "limit": 9} and not caplog.text
    assert parse_recipe(values, ["--data.options={}"]).data.options == {}
    assert parse_recipe(values, ["--data.options={}", "--data.options.limit=2"]).data.options == {
        "limit": 2
    }
    with caplog.at_level("INFO"):
        made = parse_recipe(values, ["--student.options.aux=true", "--student.model", "enet"])
    assert made.student == ModelConfig("enet", options={"aux": True})
    assert (
        "the command line replaces the student; not taken over from the former one: options"
        in caplog.text
    )
    assert parse_recipe(values, ["--data.name=synthetic"]).data == DataConfig("synthetic")


@pytest.mark.parametrize(
    ("base", "changes", "left", "lost"),
    [
        ("student: {model: compact, options: {width: 8}, taps: {a: b}}", "student: {model: enet}",
         {"student": {"model": "enet"}}, "student; .*: options, taps"),
        ("student: {model: compact, weights: a.pth}", "student: {model: enet, options: {aux: true}}",
         {"student": {"model": "enet", "options": {"aux": True}}}, "student; .*: weights"),
        ("teacher: {run: a, scale: 2.0, min_miou: 3}", "teacher: {model: enet, weights: b.pth}",
         {"teacher": {"model": "enet", "weights": "b.pth", "min_miou": 3}}, "teacher; .*: run, scale"),
        ("teacher: {model: enet, weights: b.pth, labels: {0: 0}}", "teacher: {run: a}",
         {"teacher": {"run": "a"}}, "teacher; .*: model, weights, labels"),
        ("data: {name: folder, root: a, options: {classes: 3}}", "data: {name: camvid, size: [8, 8]}",
         {"data": {"name": "camvid", "size": [8, 8]}}, "data set; .*: root, options"),
        # The same network, another run of a fold, and a base that names none.
        ("student: {model: enet, options: {aux: true}}", "student: {model: enet, weights: a.pth}",
         {"student": {"model": "enet", "weights": "a.pth", "options": {"aux": True}}}, None),
        ("teacher: {run: a, scale: 2.0}", "teacher: {run: b}",
         {"teacher": {"run": "b", "scale": 2.0}}, None),
        ("student: {options: {aux: true}}", "student: {model: enet}",
         {"student": {"model": "enet", "options": {"aux": True}}}, None),
    ],
)  # fmt: skip
def test_another_network_or_data_set_takes_nothing_of_the_former_one(
    base: str,
    changes: str,
    left: dict[str, Any],
    lost: str | None,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "base.yaml").write_text(base)
    (tmp_path / "own.yaml").write_text(f"base: base.yaml\n{changes}\n")
    with caplog.at_level("INFO"):
        assert to_dict(load_recipe(tmp_path / "own.yaml")) == to_dict(parse_recipe(left))
    assert (
        re.search(rf"own\.yaml replaces the {lost}$", caplog.text, re.M)
        if lost
        else not caplog.text
    )


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        (["base: 1.yaml", "base: 2.yaml", "base: 1.yaml"], ValueError,
         r"0\.yaml: recipes are each other's base \(0\.yaml -> 1\.yaml -> 2\.yaml -> 1\.yaml\)"),
        (["base: 0.yaml"], ValueError, r"each other's base \(0\.yaml -> 0\.yaml\). Remove one"),
        (["base: 7.yaml"], FileNotFoundError, r"0\.yaml: base: no recipe at .*7\.yaml. Name"),
        (["base: [1.yaml]"], ValueError, r"0\.yaml: base is \['1\.yaml'\]; expected the path"),
        (["base: 1.yaml", "train: {lrr: 1}"], ValueError, r"train\.lrr: .*did you mean 'lr'"),
        (["base: 1.yaml", "- a"], ValueError, r"1\.yaml holds .*; expected a mapping"),
    ],
)  # fmt: skip
def test_an_invalid_base_is_refused_in_one_line(
    texts: list[str], error: type[Exception], message: str, tmp_path: Path
) -> None:
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.yaml").write_text(text)
    with pytest.raises(error, match=message) as caught:
        load_recipe(tmp_path / "0.yaml")
    assert "\n" not in str(caught.value)


def test_options_are_the_paths_of_all_keys_and_say_what_they_are() -> None:
    texts = option_texts()
    assert texts["train.lr"] == "base learning rate"
    assert texts["data"] == "The images and labels."
    assert all(texts.values())
    names = list(texts)
    assert {"data.name", "teacher.min_miou", "method.preset", "train.lr", "terms"} <= set(names)
    for name in names:
        assert annotation_at(name.split(".")) is not Any, name


def test_a_run_folder_is_named_after_the_recipe() -> None:
    assert recipe_name("recipes/camvid/idd.yaml") == "camvid/idd"
    assert Recipe().chosen_method().name == "supervised"


@pytest.mark.parametrize("text", ["96x128", "96 x 128", "96X128", "[96, 128]"])
@pytest.mark.parametrize("key", ["data.size", "train.crop", "evaluate.window"])
def test_a_size_is_read_in_the_form_of_suggest(key: str, text: str) -> None:
    part, name = key.split(".")
    assert getattr(getattr(parse_recipe({}, [f"--{key}", text]), part), name) == (96, 128)
    assert getattr(getattr(parse_recipe({part: {name: text}}), part), name) == (96, 128)


@pytest.mark.parametrize("value", ["96", "96x", "wide", [96], [96, 128, 3], ["a", 128]])
@pytest.mark.parametrize("key", ["data.size", "train.crop", "evaluate.window"])
def test_what_is_no_size_is_refused_with_the_form_of_one(key: str, value: Any) -> None:
    part, name = key.split(".")
    with pytest.raises(
        ValueError, match=rf"{key} is .*; expected height x width in pixels, such as 512x1024"
    ):
        parse_recipe({part: {name: value}})
