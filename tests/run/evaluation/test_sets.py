import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from segdistill.cli import main
from segdistill.config import EvaluationSetConfig, recipe_text
from segdistill.run import commands
from segdistill.run.compare import compare
from segdistill.run.evaluation import measure
from segdistill.run.evaluation.by_image import ByImage, entry_of
from segdistill.run.evaluation.evaluate import Evaluation
from segdistill.run.evaluation.protocol import Protocol
from segdistill.run.folder import RunFolder
from segdistill.run.networks import load_run_model
from segdistill.run.opening import open_set, set_data
from segdistill.run.recipe import parse_recipe
from segdistill.run.training import records
from segdistill.run.training.train import train
from tests.run import small

SETS = {"other": {"options": {"seed": 5}}, "few": {"split": "train", "options": {"count": 3}}}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return small.teacher(tmp_path_factory.mktemp("teacher") / "run")


def _recipe(teacher: RunFolder, out: Path, **changes: Any) -> Any:
    changes = {"train": {"steps": 2, "log_every": 1}, "evaluation": SETS, **changes}
    return small.recipe(
        **small.distilled(teacher.path, **{"method": "kd", **changes}), out=str(out)
    )


@pytest.fixture(scope="module")
def run(teacher: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return train(_recipe(teacher, tmp_path_factory.mktemp("run") / "kd-s0"), progress=False)


def test_each_set_is_measured_under_the_recipe_s_protocol(
    run: RunFolder, teacher: RunFolder
) -> None:
    recipe, found = run.recipe(), run.sets()
    assert set(found) == set(SETS)
    for name, record in found.items():
        dataset = open_set(recipe, name, small_classes(run))
        expected = measure(load_run_model(run), dataset, Protocol.of(recipe))
        assert record["confusion"] == expected.confusion.tolist()
        assert record["images"] == len(dataset)
        theirs = measure(load_run_model(teacher), dataset, Protocol.of(recipe))
        assert record["teacher"]["miou"] == theirs.miou
    assert found["other"]["confusion"] != (run.evaluation() or {})["confusion"]


def small_classes(run: RunFolder) -> list[str]:
    return list(run.model_info()["classes"])


def test_the_counts_of_single_images_add_up(run: RunFolder) -> None:
    for record in (run.evaluation() or {}, *run.sets().values()):
        single = ByImage.from_json(record["by_image"])
        assert len(single.names) == record["images"]
        per_image = single.summed(range(len(single.names)))
        assert per_image.shape == (record["images"], small.CLASSES**2)
        assert (per_image.sum(1) > 0).all()
        assert per_image.sum(0).tolist() == np.ravel(record["confusion"]).tolist()


def test_counts_of_single_images_survive_json() -> None:
    matrices = [torch.tensor([[3, 0], [1, 2**31]]), torch.zeros(2, 2, dtype=torch.int64)]
    entries = [entry_of(place, f"i{place}", one) for place, one in enumerate(matrices)]
    single = ByImage.of(reversed(entries), 2, ["a", "b"])
    again = ByImage.from_json(json.loads(json.dumps(single.to_json())))
    assert (again.names, again.groups) == (["i0", "i1"], ["a", "b"])
    assert again.summed([0, 1]).tolist() == [[3, 0, 1, 2**31], [0, 0, 0, 0]]
    with pytest.raises(ValueError, match="damaged"):
        ByImage.from_json({**single.to_json(), "cells": "AAAA"})


def test_a_set_that_a_finished_run_gains_is_measured_and_nothing_is_trained(
    teacher: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "kd-s0"
    before = train(_recipe(teacher, out, evaluation={}), progress=False)
    weights = (out / "model.safetensors").stat().st_mtime_ns
    assert before.sets() == {}
    after = train(_recipe(teacher, out), progress=False)
    assert set(after.sets()) == set(after.recipe().evaluation) == set(SETS)
    assert (out / "model.safetensors").stat().st_mtime_ns == weights
    fresh = train(_recipe(teacher, tmp_path / "again" / "kd-s0"), progress=False)
    assert fresh.sets() == after.sets()

    monkeypatch.setattr(records, "measure", lambda *_, **__: pytest.fail("measured again"))
    train(_recipe(teacher, out), progress=False)
    files = {path.name: path.read_text() for path in (out / "evaluations").iterdir()}
    assert set(files) == {"other.json", "few.json"}

    def measured(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(records, "measure", measured)
    with pytest.raises(ZeroDivisionError):  # the same name, other data
        train(_recipe(teacher, out, evaluation={"other": {"options": {"seed": 6}}}), progress=False)
    with pytest.raises(ZeroDivisionError):  # the same data, another protocol
        recipe = _recipe(teacher, out)
        recipe.evaluate.flip = True
        run = RunFolder(out)
        records.complete_sets(_job(recipe, out), run)


def _job(recipe: Any, out: Path) -> Any:
    from segdistill.run.training.train import open_job

    return open_job(recipe, out)


def test_a_comparison_measures_the_teacher_once_and_repeats_its_tables(
    teacher: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[str] = []
    plain = records.evaluate_with

    def noting(job: Any, model: Any, *rest: Any) -> Any:
        seen.append("teacher" if model is job.teacher else "student")
        return plain(job, model, *rest)

    monkeypatch.setattr(records, "evaluate_with", noting)
    claims = {"contrasts": [["kd", "control"]], "claims_on": "other"}
    recipe = _recipe(teacher, tmp_path, evaluation={"other": SETS["other"]}, **claims)
    caplog.set_level("INFO")
    compare(recipe, ["supervised", "kd", "cwd"], seeds=2, progress=False)
    first = [line for line in caplog.messages if "mult-adds" in line or "Registered" in line]
    before = (tmp_path / "comparison.json").read_bytes()
    caplog.clear()
    compare(recipe, ["supervised", "kd", "cwd"], seeds=2, progress=False)
    assert len(first) == 2
    assert first == [
        line for line in caplog.messages if "mult-adds" in line or "Registered" in line
    ]
    assert (tmp_path / "comparison.json").read_bytes() == before
    assert seen.count("student") == 6 and seen.count("teacher") == 1

    content = json.loads((tmp_path / "comparison.json").read_text())
    rows = content["methods"]
    record = RunFolder(tmp_path / "cwd-s1").sets()["other"]
    assert rows["cwd"]["sets"]["other"]["miou_by_seed"]["1"] == 100 * record["miou"]
    assert rows["teacher"]["sets"]["other"]["miou_mean"] == 100 * record["teacher"]["miou"]
    plain_runs = [RunFolder(tmp_path / f"supervised-s{seed}").sets()["other"] for seed in (0, 1)]
    own = [RunFolder(tmp_path / f"kd-s{seed}").sets()["other"] for seed in (0, 1)]
    assert content["claims_on"] == "other" and content["claims_registered_after"] == 0
    assert content["claims"][0]["on"]["other"]["differences"] == [
        pytest.approx(value) for value in rows["kd"]["sets"]["other"]["minus_control"]
    ]
    assert [(one["label"], one["reference"]) for one in content["exploratory"]] == [
        ("cwd", "control"),
        ("cwd", "kd"),
    ]
    assert rows["kd"]["sets"]["other"]["minus_control"] == [
        pytest.approx(100 * (one["miou"] - other["miou"]))
        for one, other in zip(own, plain_runs, strict=True)
    ]


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({"a/b": {}}, r"evaluation: 'a/b' names a file; use only letters"),
        (
            {"a": {"spilt": "test"}},
            r"evaluation.a.spilt: no key named 'spilt'; did you mean 'split'",
        ),
        ({"a": {"split": "tset"}}, r"evaluation.a: .*did you mean 'test'"),
        ({"a": {"options": {"size": [32, 48], "seeed": 1}}}, r"evaluation.a: .*'seeed'"),
    ],
)
def test_a_mistake_in_a_set_is_refused_before_step_1(
    sets: dict[str, Any], message: str, teacher: RunFolder, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        train(_recipe(teacher, tmp_path / "run", evaluation=sets), progress=False)
    assert not (tmp_path / "run").exists()


def test_a_set_of_other_data_has_only_its_own_options(teacher: RunFolder, tmp_path: Path) -> None:
    recipe = _recipe(
        teacher, tmp_path, evaluation={"far": {"name": "folder", "root": "far"}, "near": {}}
    )
    recipe.data.val_options = {"seed": 3}
    far = set_data(recipe.data, recipe.evaluation["far"])
    assert (far.name, far.root, far.options) == ("folder", "far", {})
    near = set_data(recipe.data, recipe.evaluation["near"])
    assert (near.options, near.val_options, near.val_split) == (recipe.data.options, {}, "val")


def test_evaluate_measures_and_keeps_a_set_that_was_never_in_a_recipe(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["evaluate", str(run.path), "--on", "other"])
    table = Evaluation.from_json(run.sets()["other"]).table()
    out = capsys.readouterr().out
    assert table.splitlines()[-1] in out and "teacher: " in out
    new = ["--data.options", "{size: [32, 48], count: 4, seed: 8}"]
    main(["evaluate", str(run.path), "--on", "fresh", *new])
    assert run.sets()["fresh"]["images"] == 4
    assert run.sets()["fresh"]["data"]["options"]["seed"] == 8
    first = capsys.readouterr().out
    main(["evaluate", str(run.path), "--on", "fresh"])
    again = capsys.readouterr().out
    assert first.splitlines()[:10] == again.splitlines()[:10]
    main(["evaluate", str(run.path), *new])
    assert Evaluation.from_json(run.sets()["fresh"]).table() in capsys.readouterr().out
    (run.path / "evaluations" / "fresh.json").unlink()
    with pytest.raises(SystemExit):
        main(["evaluate", str(run.path), "--on", "fresh"])
    assert "no evaluation set named 'fresh'" in capsys.readouterr().err


@pytest.mark.parametrize("size", [(8, 8), (16, 40)])
def test_metrics_and_cost_are_those_at_the_size_that_is_given(
    size: tuple[int, int], run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def noting(model: Any, dataset: Any, protocol: Protocol, **options: Any) -> Evaluation:
        seen.append(protocol.size)
        return measure(model, dataset, protocol, **options)

    def costs(networks: Any, size: Any) -> dict[str, Any]:
        seen.append(size)
        return compare_profiles(networks, size)

    compare_profiles = commands.compare_profiles
    monkeypatch.setattr(commands, "measure", noting)
    monkeypatch.setattr(commands, "compare_profiles", costs)
    main(["evaluate", str(run.path), "--data.size", json.dumps(size)])
    assert seen == [size, size]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--on other --data.root far", "--data.root is given with --on other, a set of the run's"),
        ("--on few --split val", "--data.val_split is given with --on few, a set of the run's"),
        ("--on val --data.root far", "--on is val, the recipe's data.val_split; expected another"),
        ("--on new --data.size [8,8]", "--data.size is given with --on new; expected none"),
        ("--on other --transfer true --data.val_options {seed: 3}", "Choose another name"),
        ("--overlap 0.5", "overlap is 0.5 without a window; expected a window"),
        ("--on other --overlap 0.5", "overlap is 0.5 without a window; expected a window"),
        ("--split val --data.val_split test", "--split is val and --data.val_split test; expected"),
        ("--data.root far", "data.root is far, which the data set 'synthetic' does not read"),
        ("--on new --data.root far", "data.root is far, which the data set 'synthetic' does not"),
    ],
)
def test_what_would_have_no_effect_or_replace_a_set_of_the_recipe_is_refused(
    options: str, message: str, run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    before = run.sets()
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", str(run.path), *re.findall(r"{.*}|\S+", options)])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert run.sets() == before


def test_figures_of_other_weights_are_refused(run: RunFolder, tmp_path: Path) -> None:
    path = run.path / "evaluations" / "other.json"
    content = path.read_text()
    path.write_text(json.dumps({**json.loads(content), "weights_sha256": "0" * 64}))
    try:
        with pytest.raises(ValueError, match=r"other.json does not belong to model.safetensors"):
            run.sets()
    finally:
        path.write_text(content)


def _folder(root: Path, ids: list[int]) -> dict[str, Any]:
    """Four photographs and masks, for training and validation, with these ids."""
    noise = np.random.default_rng(len(ids))
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number in range(4):
        pixels = noise.integers(0, 255, (32, 48, 3), np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{root.name}{number}.png")
        mask = noise.choice(ids, (32, 48)).astype(np.uint8)
        Image.fromarray(mask).save(root / "masks" / f"{root.name}{number}.png")
    options = {"classes": ["a", "b"], "val_fraction": 0.5}
    return {"name": "folder", "root": str(root), "options": options}


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run on a folder of two classes, a and b."""
    folder = tmp_path_factory.mktemp("mine")
    data = _folder(folder / "good", [0, 1])
    return train(
        small.recipe(data=data, train={"steps": 1}, out=str(folder / "run")), progress=False
    )


@pytest.mark.parametrize("classes", ["[b, a]", "[a, c]", "[a, b, c]"])
@pytest.mark.parametrize("name", [None, "away"])
def test_data_of_other_classes_is_refused(
    classes: str, name: str | None, mine: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data.options", f"{{classes: {classes}, val_fraction: 0.5}}"]
    with pytest.raises(SystemExit):
        main(["evaluate", str(mine.path), *options, *(["--on", name] if name else [])])
    found = classes.strip("[]")
    what = name or "folder, split 'val',"
    message = f"{what} has the classes {found}; expected those of data, a, b. Set `classes`"
    assert message in capsys.readouterr().err
    assert not mine.set_names()


def test_a_bad_mask_of_a_set_is_found_before_step_1_and_by_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _folder(tmp_path / "good", [0, 1])
    bad = _folder(tmp_path / "bad", [0, 1, 7])
    changes = {"data": data, "evaluation": {"away": {"root": bad["root"]}}}
    recipe = small.write(tmp_path / "recipe.yaml", **changes, out=str(tmp_path / "run"))
    with pytest.raises(SystemExit):
        main(["train", str(recipe)])
    assert "bad/masks/bad0.png: the mapping lacks label" in capsys.readouterr().err
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    with pytest.raises(SystemExit):
        main(["check", str(recipe)])
    out = capsys.readouterr().out
    assert re.search(r"evaluation.away: \d images with masks", out)
    assert re.search(r"problem: .*bad.*lacks", out)


def test_images_of_a_set_that_are_also_trained_on_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = _folder(tmp_path / "good", [0, 1])
    changes = {"data": data, "evaluation": {"seen": {"split": "train"}, "held": {"split": "val"}}}
    with caplog.at_level("WARNING"):
        train(
            small.recipe(**changes, train={"steps": 1}, out=str(tmp_path / "run")), progress=False
        )
    told = [text for text in caplog.messages if "also in train" in text]
    assert len(told) == 1 and "evaluation.seen" in told[0]


def _again(mine: RunFolder, folder: Path, **changes: Any) -> Any:
    """The recipe of a finished run, with changes, in a copy of its folder."""
    out = shutil.copytree(mine.path, folder / "supervised-s0")
    return parse_recipe({**mine.config(), "out": str(out), **changes})


SEEN = {"evaluation": {"seen": {"split": "train"}}}


def test_a_set_of_training_images_is_told_of_after_the_training_too(
    mine: RunFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = train(_again(mine, tmp_path, **SEEN), progress=False)
    assert "1 image of evaluation.seen is also in train" in caplog.text
    for options in (["--on", "again"], [], ["--on", "third", "--transfer", "true"]):
        caplog.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("segdistill.cli._set_up", lambda debug: None)
            main(["evaluate", str(run.path), *options, "--split", "train"])
        name = options[1] if options else "train"
        assert f"1 image of {name} is also in train" in caplog.text
    caplog.clear()
    main(["evaluate", str(run.path)])
    assert "also in train" not in caplog.text


def test_no_claims_are_made_on_training_images(
    mine: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = r"1 image of evaluation\.seen is also in train .* meaningless\. Name .* claims_on"
    recipe = _again(mine, tmp_path, **SEEN, claims_on="seen")
    with pytest.raises(ValueError, match=message):
        train(recipe, progress=False)
    assert not RunFolder(str(recipe.out)).set_names()
    # Measured before claims are made on it.
    train(replace(recipe, claims_on=None), progress=False)
    with pytest.raises(ValueError, match=message):
        train(recipe, progress=False)
    with pytest.raises(ValueError, match=message):
        train(replace(recipe, out=str(tmp_path / "new")), progress=False)
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe_text(recipe))
    with pytest.raises(SystemExit):
        main(["check", str(file)])
    assert re.search(f"problem: {message}", capsys.readouterr().out.replace("\n", " "))


def test_a_comparison_of_finished_runs_makes_no_claims_on_training_images(
    mine: RunFolder, tmp_path: Path
) -> None:
    base = parse_recipe({**mine.config(), "out": str(tmp_path)})
    compare(base, ["supervised"], seeds=1, progress=False)
    before = (tmp_path / "comparison.json").read_bytes()
    later = replace(base, evaluation={"seen": EvaluationSetConfig(split="train")}, claims_on="seen")
    with pytest.raises(ValueError, match=r"evaluation\.seen is also in train .* claims_on"):
        compare(later, ["supervised"], seeds=1, progress=False)
    assert (tmp_path / "comparison.json").read_bytes() == before


@pytest.mark.parametrize("content", ["", "[]", '{"miou": 0.5}'])
def test_a_damaged_record_of_a_set_is_measured_again(
    content: str, run: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    path = run.path / "evaluations" / "other.json"
    before = json.loads(path.read_text())
    path.write_text(content)
    with pytest.raises(
        ValueError, match=rf"other\.json is damaged .* evaluate {run.path} --on other"
    ):
        run.sets()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segdistill.run.commands.profile_table", lambda _: "")
        main(["evaluate", str(run.path), "--on", "other"])
    assert json.loads(path.read_text()) == before
