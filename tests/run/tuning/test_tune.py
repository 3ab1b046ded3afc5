"""`segdistill tune`: equal trials, chosen settings that `compare` loads, and what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from segdistill import cli
from segdistill.config import Recipe
from segdistill.run.comparing import entry_of, same_settings
from segdistill.run.folder import RunFolder
from segdistill.run.identity.shared import shared_images
from segdistill.run.recipe import load_recipe
from segdistill.run.rows import checked_entries
from segdistill.run.rows import taking as obtaining
from segdistill.run.training.updates.finite import NonFiniteLoss
from segdistill.run.tuning import tune as module
from segdistill.run.tuning import unreported
from segdistill.run.tuning.outcome import Outcome, tuned
from segdistill.run.tuning.tune import on_tuning_data, tune
from tests.run import small
from tests.run.plain import write_scenes

TUNING = {"data": {"options": {"seed": 7}}, "seeds": [50]}
VARIANTS = {
    "mixed": {"method": "skd", "terms": {"pairwise": {"weight": 2.0}}},
    "lr2": {"train": {"lr": 0.01}, "label": "control, lr × 2"},
    "fake": {"method": "skd", "role": "placebo", "terms": {"pairwise": {"weight": 0}}},
}
METHODS = ["supervised", "cwd:paper"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return small.teacher(tmp_path_factory.mktemp("teacher") / "run")


def _values(run: RunFolder, /, **changes: Any) -> dict[str, Any]:
    short = {"steps": 2, "lr": 0.004, "log_every": 1}
    changes = {"tuning": TUNING, "variants": VARIANTS, "train": short, **changes}
    return small.values(**small.distilled(run.path, **changes))


def _recipe(run: RunFolder, out: Path, /, **changes: Any) -> Recipe:
    return small.parse_recipe({**_values(run, **changes), "out": str(out)})


@pytest.fixture(scope="module")
def searched(teacher: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuning")
    tune(_recipe(teacher, out), METHODS, trials=2, progress=False)
    return out


def _trials(folder: Path, label: str) -> list[dict[str, Any]]:
    content = json.loads((folder / "tuning.json").read_text())
    return list(content["methods"][label]["trials"])


def test_every_entry_has_the_same_trials_on_the_tuning_data(searched: Path) -> None:
    names = sorted(folder.name for folder in searched.iterdir() if folder.is_dir())
    assert names == sorted(
        f"{entry}-lr{lr}-{axis}1-s50"
        for entry, axis in (
            ("supervised", "weight_decay"),
            ("cwd-paper", "weights"),
        )
        for lr in ("1", "0.5")
    )
    for name in names:
        recipe = RunFolder(searched / name).recipe()
        assert recipe.data.options["seed"] == 7
        assert recipe.train.seed == 50
    content = json.loads((searched / "tuning.json").read_text())
    assert content["data"]["options"]["seed"] == 7
    assert {len(row["trials"]) for row in content["methods"].values()} == {2}
    assert [trial["lr"] for trial in _trials(searched, "control")] == [0.004, 0.002]


def test_the_result_of_a_trial_is_what_its_run_measured(searched: Path) -> None:
    for label, name in (
        ("control", "supervised-lr1-weight_decay1"),
        ("cwd:paper", "cwd-paper-lr1-weights1"),
    ):
        figures = RunFolder(searched / f"{name}-s50").evaluation()
        assert figures is not None
        trial = _trials(searched, label)[0]
        assert trial["miou_by_seed"] == {"50": pytest.approx(100 * figures["miou"])}
        assert trial["miou"] == trial["miou_by_seed"]["50"]


def test_the_same_command_trains_nothing_and_more_trials_only_the_new_ones(
    teacher: RunFolder, searched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f: f.stat().st_mtime_ns for f in searched.rglob("model.safetensors")}
    before = (searched / "tuning.json").read_text(), (searched / "tuned.yaml").read_text()
    tune(_recipe(teacher, searched), METHODS, trials=2, progress=False)
    assert ((searched / "tuning.json").read_text(), (searched / "tuned.yaml").read_text()) == before
    trained: list[str] = []
    real = obtaining.train

    def counted(recipe: Recipe, **options: Any) -> RunFolder:
        trained.append(Path(str(recipe.out)).name)
        return real(recipe, **options)

    monkeypatch.setattr(obtaining, "train", counted)
    try:
        tune(_recipe(teacher, searched), ["supervised"], trials=3, progress=False)
    finally:
        (searched / "tuning.json").write_text(before[0])
        (searched / "tuned.yaml").write_text(before[1])
    # Finished runs come first, and are handed back.
    assert trained == [
        f"supervised-lr{lr}-weight_decay{decay}-s50"
        for lr, decay in (("1", "1"), ("0.5", "1"), ("1", "0.3"))
    ]
    assert {f: f.stat().st_mtime_ns for f in files} == files


@pytest.fixture
def unbuilt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is built before a stand-in trains."""
    monkeypatch.setattr(module, "check_runs", lambda *_: None)


def _fixed(miou: Callable[[Recipe], float | None]) -> Callable[..., Any]:
    """A stand-in for `obtain` that gives each recipe a figure; None diverges."""

    class Run:
        def __init__(self, value: float) -> None:
            self.value = value

        def evaluation(self) -> dict[str, float]:
            return {"miou": self.value}

    def trained(recipe: Recipe, *_: Any) -> Run:
        value = miou(recipe)
        if value is None:
            raise NonFiniteLoss("step 1: cross_entropy = nan")
        return Run(value)

    return trained


@pytest.mark.usefixtures("unbuilt")
def test_the_best_trial_becomes_a_variant_that_compare_loads(
    teacher: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def best_at_the_corner(recipe: Recipe) -> float:
        weights = sum(term.weight or 0 for term in recipe.terms.values())
        return recipe.train.lr + weights / 1e3 + recipe.train.weight_decay

    monkeypatch.setattr(module, "obtain", _fixed(best_at_the_corner))
    recipe = _recipe(teacher, tmp_path / "t")
    rows = tune(recipe, [*METHODS, "kd", "mixed", "lr2", "fake"], progress=False)
    assert {(row.best.trial.lr, row.best.trial.other) for row in rows} == {(2, 3)}
    assert rows[2].edges() == ["highest learning rate", "highest distillation weights"]
    assert rows[0].edges() == ["highest learning rate", "highest weight decay"]
    loaded = load_recipe(tmp_path / "t" / "tuned.yaml")
    assert loaded.out is None and loaded.data == recipe.data and loaded.teacher == recipe.teacher
    for row in rows:
        trial = row.best.trial
        name = trial.entry.name.replace(":", "-")
        found = entry_of(loaded, name)
        assert found.label == row.label and found.role == trial.entry.role
        # Only the data is that of the recipe, and not the tuning's.
        wanted = entry_of(recipe, trial.entry.name).recipe
        wanted.train, wanted.terms = trial.recipe.train, trial.recipe.terms
        assert same_settings(found.recipe, wanted), name
    kd, paper = loaded.variants["kd"], loaded.variants["cwd-paper"]
    assert kd.terms["pixelwise"].weight == 3 and kd.train == {"lr": 0.008}
    assert paper.label == "cwd:paper" and paper.terms["channelwise"].weight == 9
    assert loaded.variants["supervised"].train == {"lr": 0.008, "weight_decay": 0.0015}
    # The variants are all that compare trains: `supervised` among them is the control.
    assert [entry.label for entry in checked_entries(loaded, None)].count("control") == 1


@pytest.mark.usefixtures("unbuilt")
def test_a_recipe_from_a_file_is_the_base_of_the_chosen_one(
    teacher: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "obtain", _fixed(lambda recipe: recipe.train.lr))
    (tmp_path / "mine").mkdir()
    source = tmp_path / "mine" / "student.yaml"
    source.write_text(yaml.safe_dump(_values(teacher)))
    out = tmp_path / "runs" / "t"
    tune(
        load_recipe(source, ["--out", str(out)]),
        [*METHODS, "mixed"],
        2,
        source=source,
        progress=False,
    )
    text = (out / "tuned.yaml").read_text()
    values = yaml.safe_load(text)
    assert values["base"] == "../../mine/student.yaml"
    assert set(values) == {"base", "variants", "tuned"}
    assert values["tuned"]["trials"] == {"supervised": 2, "cwd-paper": 2, "mixed": 2}
    assert values["variants"]["mixed"] == {
        "terms": {"pixelwise": {"weight": 1.0}, "pairwise": {"weight": 2.0}},
        "train": {"lr": 0.004},
    }
    loaded = load_recipe(out / "tuned.yaml")
    assert loaded.variants["mixed"].method == "skd" and loaded.data == load_recipe(source).data
    comment = [line for line in text.splitlines() if line.startswith("#")]
    assert sum("×" in line and "distillation weights" in line for line in comment) == 4
    assert sum("chosen" in line and "×" in line for line in comment) == 3


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize("options", [[], ["--train.steps", "3"]])
def test_the_command_names_the_file_unless_options_change_it(
    options: list[str], teacher: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "obtain", _fixed(lambda recipe: recipe.train.lr))
    source = small.write(tmp_path / "student.yaml", **_values(teacher))
    cli.tune([str(source), "--methods", "kd", *options, "--out", str(tmp_path / "t")])
    values = yaml.safe_load((tmp_path / "t" / "tuned.yaml").read_text())
    assert values.get("base") == (None if options else "../student.yaml")
    loaded = load_recipe(tmp_path / "t" / "tuned.yaml")
    assert loaded.train.steps == (3 if options else 2) and loaded.tuning is not None
    assert loaded.variants["kd"].train == {"lr": 0.008}


@pytest.mark.usefixtures("unbuilt")
def test_the_choice_for_rows_that_are_not_tuned_again_is_kept(
    teacher: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(module, "obtain", _fixed(lambda recipe: recipe.train.lr))
    recipe = _recipe(teacher, tmp_path)
    tune(recipe, ["supervised", "cwd:paper", "mixed"], 4, progress=False)
    before = json.loads((tmp_path / "tuning.json").read_text())["methods"]
    tune(recipe, ["kd", "mixed"], 2, progress=False)
    loaded = load_recipe(tmp_path / "tuned.yaml")
    assert loaded.tuned is not None
    assert loaded.tuned.trials == {"supervised": 4, "cwd-paper": 4, "kd": 2, "mixed": 2}
    assert loaded.variants.keys() == {*loaded.tuned.trials, "lr2", "fake"}
    assert loaded.variants["cwd-paper"].terms["channelwise"].weight == 3
    after = json.loads((tmp_path / "tuning.json").read_text())["methods"]
    assert after.keys() == {"control", "cwd:paper", "kd", "mixed"}
    assert all(after[label] == before[label] for label in ("control", "cwd:paper"))
    longer = replace(recipe, train=replace(recipe.train, steps=3))
    caplog.clear()
    tune(longer, ["kd"], 2, progress=False)
    assert load_recipe(tmp_path / "tuned.yaml").tuned.trials == {"kd": 2}  # type: ignore[union-attr]
    assert "the choice for supervised, cwd-paper, mixed is dropped" in caplog.text


@pytest.mark.usefixtures("unbuilt")
@pytest.mark.parametrize(
    ("tuning", "what"),
    [
        ({"data": {"options": {"seed": 8}}, "seeds": [50]}, "another tuning.data"),
        ({**TUNING, "teacher": {"scale": 2.0}}, "another tuning.teacher"),
        ({**TUNING, "seeds": [50, 51]}, "other tuning.seeds"),
        (TUNING, ""),
    ],
)
def test_a_choice_that_was_made_on_other_data_is_dropped(
    teacher: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: Any,
    tuning: dict[str, Any],
    what: str,
) -> None:
    monkeypatch.setattr(module, "obtain", _fixed(lambda recipe: recipe.train.lr))
    tune(_recipe(teacher, tmp_path), ["supervised", "kd"], 2, progress=False)
    tune(_recipe(teacher, tmp_path, tuning=tuning), ["mixed"], 2, progress=False)
    trials = load_recipe(tmp_path / "tuned.yaml").tuned.trials  # type: ignore[union-attr]
    methods = json.loads((tmp_path / "tuning.json").read_text())["methods"]
    kept = {} if what else {"supervised": 2, "kd": 2}
    assert trials == {**kept, "mixed": 2}
    assert methods.keys() == {*(("control", "kd") if kept else ()), "mixed"}
    told = f"the choice for supervised, kd is dropped, as it was made with {what}"
    assert (told in caplog.text) == bool(what)


@pytest.mark.usefixtures("unbuilt")
def test_equal_trials_are_decided_by_their_order_and_diverged_ones_never_win(
    teacher: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    recipe = _recipe(teacher, tmp_path, tuning={**TUNING, "seeds": [50, 51]})

    def figure(run: Recipe) -> float | None:
        if run.train.lr > 0.005 and run.train.seed == 51:
            return None
        return 0.9 if run.train.lr > 0.005 else 0.5

    monkeypatch.setattr(module, "obtain", _fixed(figure))
    (row,) = tune(recipe, ["kd"], progress=False)
    assert row.chosen == 0 and row.best.miou == pytest.approx(50)
    fast = [outcome for outcome in row.outcomes if outcome.trial.lr == 2]
    assert [outcome.miou for outcome in fast] == [None] * 3
    assert fast[0].miou_by_seed == {50: 90.0, 51: None}
    assert "kd-lr2-weights1-s51 diverged and is not chosen" in caplog.text
    assert json.loads((tmp_path / "tuning.json").read_text())["methods"]["kd"]["trials"][4][
        "miou_by_seed"
    ] == {"50": 90.0, "51": None}
    monkeypatch.setattr(module, "obtain", _fixed(lambda run: None))
    with pytest.raises(ValueError, match=r"tune: kd: all 9 trials diverged. Lower train.lr"):
        tune(recipe, ["kd"], progress=False)


def test_the_mean_over_seeds_decides(teacher: RunFolder, tmp_path: Path) -> None:
    recipe = _recipe(teacher, tmp_path)
    trial: Any = module.trials_of(
        entry_of(recipe, "kd"), module.Grid.of(recipe.tuning), [(2, 2)], 11
    )[0]  # type: ignore[arg-type]
    found = tuned([Outcome(trial, {0: 10.0, 1: 40.0}), Outcome(trial, {0: 30.0, 1: 25.0})])
    assert found.chosen == 1 and found.best.miou == 27.5


@pytest.mark.parametrize(
    ("changes", "methods", "message"),
    [
        ({"tuning": None}, None, r"the recipe has no tuning.data; expected changes to data"),
        ({"tuning": {"seeds": [1]}}, None, r"the recipe has no tuning.data"),
        (
            {"tuning": {"data": {"optoins": {}}}},
            None,
            r"tuning.data.optoins: .*did you mean 'options'",
        ),
        ({"tuning": {"data": {"size": 3}}}, None, r"tuning.data.size is 3; expected"),
        ({"tuning": {**TUNING, "teacher": {"rnu": "a"}}}, None, r"tuning.teacher.rnu: .*'run'"),
        (
            {"tuning": {**TUNING, "seeds": [1, 1]}},
            None,
            r"tuning.seeds is \[1, 1\]; expected one or",
        ),
        ({"tuning": {**TUNING, "seeds": []}}, None, r"tuning.seeds is \[\]; expected one or"),
        (
            {"tuning": {"data": {"options": {"cache": False}}}},
            None,
            r"tuning.data evaluates on 6 images that the recipe itself evaluates on: val-0-00000",
        ),
        (
            {"evaluation": {"other": {"options": {"seed": 7}}}},
            None,
            r"6 images that the recipe itself evaluates on \(evaluation.other\): val-7-0000",
        ),
        (
            {"folds": {"east": {"data": {"options": {"seed": 7}}}}},
            None,
            r"6 images that the recipe itself evaluates on \(folds.east\): val-7-0000",
        ),
        (
            {"tuning": {"data": {"options": {"seed": 7}, "val_split": "train"}}},
            None,
            r"tuning.data trains on 6 of the images that it evaluates on \(train-7-0000",
        ),
        ({}, ["kdd"], r"did you mean 'kd'"),
        ({"teacher": None}, ["kd"], r"tune: the recipe has no teacher"),
        (
            {"variants": {"a": {"terms": {"cross_entropy": {"options": {"ohemm": True}}}}}},
            ["a"],
            r"tune: a: terms.cross_entropy: .*did you mean 'ohem'",
        ),
        ({"train": {"weight_decay": 0.0}}, ["supervised"], r"control: train.weight_decay is 0"),
        ({"train": {"lr": 0.0}}, ["kd"], r"tune: kd: train.lr is 0; expected a number above 0"),
        ({"train": {"batch": 3, "accumulate": 2}}, ["kd"], r"train.batch is 3"),
        (
            {"tuning": {**TUNING, "lr": [1, 1e9]}},
            ["kd"],
            r"tuning.lr is .*; expected factors from",
        ),
    ],
)
def test_a_mistake_is_refused_before_anything_is_trained(
    changes: dict[str, Any],
    methods: list[str] | None,
    message: str,
    teacher: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(obtaining, "train", lambda *_, **__: pytest.fail("something was trained"))
    with pytest.raises(ValueError, match=message):
        tune(_recipe(teacher, tmp_path / "t", **changes), methods, progress=False)
    assert not (tmp_path / "t").exists()


def test_a_term_that_fails_in_the_dry_pass_is_refused_before_anything_is_trained(
    teacher: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(obtaining, "train", lambda *_, **__: pytest.fail("something was trained"))
    variants = {"a": {"terms": {"attention": {"weight": 1.0, "on": "featurs"}}}}
    with pytest.raises(ValueError, match=r"tune: a: .*featurs"):
        tune(_recipe(teacher, tmp_path / "t", variants=variants), ["a"], progress=False)


def test_the_teacher_of_the_tuning_data_is_its_own(teacher: RunFolder, tmp_path: Path) -> None:
    recipe = _recipe(teacher, tmp_path, tuning={**TUNING, "teacher": {"run": "runs/other"}})
    changed = on_tuning_data(recipe)
    assert changed.teacher is not None and recipe.teacher is not None
    assert (changed.teacher.run, changed.teacher.min_miou) == ("runs/other", 0.0)
    assert (recipe.teacher.run, recipe.data.options.get("seed")) == (str(teacher.path), None)


def test_images_are_told_apart_by_their_content(tmp_path: Path) -> None:
    """Copies under other names are the same; other images under the same names are not."""
    from segdistill.data import build_dataset

    options = {"classes": ["a", "b", "c"], "mapping": {10: 0, 20: 1, 30: 2}}
    for name in "ab":
        write_scenes(tmp_path / name)
    for file in (tmp_path / "b" / "val" / "images").iterdir():
        (tmp_path / "b" / "val" / "masks" / file.name).rename(
            tmp_path / "b" / "val" / "masks" / f"copy-{file.name}"
        )
        file.rename(file.with_name(f"copy-{file.name}"))
    one, copies = (build_dataset("folder", tmp_path / n, "val", **options) for n in "ab")
    train = build_dataset("folder", tmp_path / "a", "train", **options)
    assert len(shared_images(one, copies)) == len(one) == 4
    assert set(one.names) & set(train.names) and shared_images(one, train) == []
    scenes = [build_dataset("synthetic", split="val", count=2, seed=seed) for seed in (0, 0, 1)]
    assert len(shared_images(scenes[0], scenes[1])) == 2
    assert shared_images(scenes[0], scenes[2]) == []


def test_a_teacher_that_learnt_from_the_tuning_images_is_warned_of(
    teacher: RunFolder, tmp_path: Path, caplog: Any
) -> None:
    data = {"train_split": "val", "val_split": "train"}
    recipe = _recipe(teacher, tmp_path, tuning={"data": data})
    unreported.check_unreported(recipe, on_tuning_data(recipe))
    assert "the teacher was trained on 6 of the images that tuning evaluates on" in caplog.text
