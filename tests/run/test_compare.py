import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from segdistill.run import compare as module
from segdistill.run.compare import compare
from segdistill.run.folder import RunFolder
from segdistill.run.networks import build_student
from segdistill.run.reporting import find_runs, summarise
from segdistill.run.rows import taking as obtaining
from segdistill.run.training.updates.finite import NonFiniteLoss
from tests.run import small

METHODS = ("supervised", "kd")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return small.teacher(tmp_path_factory.mktemp("teacher") / "run")


def _recipe(teacher: RunFolder, out: Path, **changes: Any) -> Any:
    # A learning rate of zero keeps the initial weights.
    changes = {"train": {"steps": 2, "lr": 0.0, "log_every": 1}, **changes}
    return small.recipe(**small.distilled(teacher.path, out=str(out)), **changes)


@pytest.fixture(scope="module")
def compared(teacher: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compare")
    compare(_recipe(teacher, out), METHODS, seeds=2, first_seed=4, progress=False)
    return out


def _parameters(folder: Path) -> dict[str, torch.Tensor]:
    saved = load_file(folder / "model.safetensors")
    return {k: v for k, v in saved.items() if "running" not in k and "tracked" not in k}


def test_each_method_and_seed_has_its_folder(compared: Path) -> None:
    names = {folder.name for folder in compared.iterdir() if folder.is_dir()}
    assert names == {"supervised-s4", "supervised-s5", "kd-s4", "kd-s5"}
    for name in names:
        run = RunFolder(compared / name)
        assert run.finished
        method, seed = name.split("-s")
        assert (run.method_name, run.seed) == (method, int(seed))
        assert (run.config()["teacher"] is None) == (method == "supervised")


def test_the_log_has_the_gist_in_one_line(
    compared: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        module.conclude([RunFolder(compared / f"kd-s{seed}") for seed in (4, 5)], tmp_path)
    line = next(text for text in caplog.messages if text.startswith("kd: "))
    assert "× smaller, " in line and "faster" not in line
    assert "% of the teacher's mIoU (parameters; mIoU: mean ± sd of 2 seeds)" in line


def test_each_training_says_once_what_its_student_starts_from(
    teacher: RunFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every row is tried before the first training, and is silent then."""
    state = load_file(teacher.path / "model.safetensors")
    torch.save({"model": state, "ema": state}, file := str(tmp_path / "trainer.pth"))
    start = {"model": small.MODEL, "options": {"width": 12}, "weights": file}
    before = logging.getLogger("segdistill").level
    with caplog.at_level("INFO"):
        compare(_recipe(teacher, tmp_path / "out", student=start), METHODS, seeds=1, progress=False)
    assert [text.split(":")[0] for text in caplog.messages].count("student weights") == len(METHODS)
    assert len([text for text in caplog.messages if "holds weights under" in text]) == len(METHODS)
    assert logging.getLogger("segdistill").level == before


def test_the_methods_of_a_seed_start_from_the_same_weights(
    compared: Path, teacher: RunFolder
) -> None:
    start = _recipe(teacher, compared).student
    for seed in (4, 5):
        fresh = build_student(start, small.CLASSES, seed).state_dict()
        for method in METHODS:
            for key, value in _parameters(compared / f"{method}-s{seed}").items():
                torch.testing.assert_close(value, fresh[f"module.{key}"], rtol=0, atol=0)
    one, other = _parameters(compared / "kd-s4"), _parameters(compared / "kd-s5")
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_the_methods_of_a_seed_see_the_same_crops(compared: Path) -> None:
    """The weights do not change here, so equal crops give equal cross-entropies."""

    def losses(name: str) -> list[float]:
        rows = RunFolder(compared / name).metrics()
        return [r["terms"]["cross_entropy"]["value"] for r in rows if r["kind"] == "train"]

    for seed in (4, 5):
        assert losses(f"kd-s{seed}") == pytest.approx(losses(f"supervised-s{seed}"), rel=1e-5)
    assert losses("kd-s4") != pytest.approx(losses("kd-s5"), rel=1e-5)


def test_comparison_json_holds_what_the_runs_measured(compared: Path, teacher: RunFolder) -> None:
    content = json.loads((compared / "comparison.json").read_text())
    methods = content["methods"]
    assert list(methods) == ["teacher", "control", "kd"]

    def miou(folder: Path) -> float:
        figures = RunFolder(folder).evaluation()
        assert figures is not None
        return 100 * float(figures["miou"])

    control = [miou(compared / f"supervised-s{seed}") for seed in (4, 5)]
    kd = [miou(compared / f"kd-s{seed}") for seed in (4, 5)]
    assert methods["teacher"]["miou_mean"] == pytest.approx(miou(teacher.path))
    assert methods["control"]["miou_by_seed"] == pytest.approx({"4": control[0], "5": control[1]})
    assert methods["kd"]["miou_by_seed"] == pytest.approx({"4": kd[0], "5": kd[1]})
    assert methods["kd"]["miou_mean"] == pytest.approx(sum(kd) / 2)
    # The sample standard deviation of two values is their difference over √2.
    assert methods["kd"]["miou_sd"] == pytest.approx(abs(kd[0] - kd[1]) / 2**0.5)
    assert methods["kd"]["minus_control"] == pytest.approx([kd[0] - control[0], kd[1] - control[1]])
    assert methods["control"]["minus_control"] is None
    assert methods["kd"]["seconds_per_step"] > 0
    assert "kd" in content["verdict"]
    assert content["environment"]["packages"]["torch"]


def test_a_second_call_trains_only_what_is_missing(compared: Path, teacher: RunFolder) -> None:
    files = sorted(compared.rglob("model.safetensors"))
    before = [file.stat().st_mtime_ns for file in files]
    summaries = compare(_recipe(teacher, compared), METHODS, 2, first_seed=4, progress=False)
    assert [file.stat().st_mtime_ns for file in files] == before
    assert len(files) == 4
    assert [summary.label for summary in summaries].count("kd") == 2


VARIANTS = {
    "kd+pair": {"method": "skd", "terms": {"pairwise": {"weight": 2.0}}},
    "pair": {"method": "skd", "terms": {"pixelwise": {"weight": 0.0}}},
    "attends": {"method": "kd", "terms": {"attention": {"weight": 1.0, "on": "features"}}},
}


def test_variants_are_compared_under_their_names(teacher: RunFolder, tmp_path: Path) -> None:
    recipe = _recipe(teacher, tmp_path, variants=VARIANTS)
    compare(recipe, seeds=1, progress=False)
    methods = json.loads((tmp_path / "comparison.json").read_text())["methods"]
    assert list(methods) == ["teacher", "control", "attends", "kd+pair", "pair"]
    assert {f.name for f in tmp_path.iterdir() if f.is_dir()} == {
        "supervised-s0",
        "kd+pair-s0",
        "pair-s0",
        "attends-s0",
    }

    def terms(name: str) -> set[str]:
        rows = RunFolder(tmp_path / name).metrics()
        return set(rows[0]["terms"]) - {"cross_entropy", "cross_entropy_aux"}

    assert terms("kd+pair-s0") == {"pixelwise", "pairwise"}
    assert terms("pair-s0") == {"pairwise"}
    assert terms("attends-s0") == {"pixelwise", "attention"}
    config = RunFolder(tmp_path / "kd+pair-s0").config()
    assert (config["label"], config["variants"]) == ("kd+pair", {})
    assert config["terms"]["pairwise"]["weight"] == 2.0


def test_seeds_that_are_finished_and_left_out_are_told(
    compared: Path, teacher: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = _recipe(teacher, compared)
    compare(recipe, METHODS, seeds=1, first_seed=5, progress=False)
    assert "left out, though finished: seeds 4 of control, 4 of kd. Seeds" in caplog.text
    content = json.loads((compared / "comparison.json").read_text())
    assert content["seeds_left_out"] == {"control": [4], "kd": [4]}
    caplog.clear()
    compare(recipe, METHODS, seeds=2, first_seed=4, progress=False)
    assert "left out" not in caplog.text
    assert "seeds_left_out" not in json.loads((compared / "comparison.json").read_text())


def test_a_row_that_is_not_compared_this_time_takes_the_new_claims(
    compared: Path, teacher: RunFolder
) -> None:
    """A report of the folder would otherwise test the claims of several comparisons at once."""
    variants: dict[str, Any] = {"supervised": {}, "kd": {"method": "kd", "label": "ours"}}
    recipe = _recipe(teacher, compared, variants=variants, contrasts=[["kd", "control"]])
    try:
        compare(recipe, ["supervised"], seeds=2, first_seed=4, progress=False)
        config = RunFolder(compared / "kd-s4").config()
        assert (config["label"], config["contrasts"]) == ("ours", [["ours", "supervised"]])
    finally:
        (compared / "claims.json").unlink(missing_ok=True)
        compare(_recipe(teacher, compared), METHODS, seeds=2, first_seed=4, progress=False)
    assert RunFolder(compared / "kd-s4").config()["contrasts"] == []


def test_a_finished_run_is_reused_whatever_its_name(compared: Path, teacher: RunFolder) -> None:
    recipe = _recipe(teacher, compared, variants={"kd": {"method": "kd"}})
    file = compared / "kd-s4" / "model.safetensors"
    before = file.stat().st_mtime_ns
    labels = {s.label for s in compare(recipe, seeds=1, first_seed=4, progress=False)}
    assert file.stat().st_mtime_ns == before
    assert labels == {"teacher", "control", "kd"}


@pytest.mark.parametrize(
    ("methods", "changes", "message"),
    [
        (("supervised", "pairs"), {"variants": VARIANTS}, r"did you mean 'pair'"),
        (None, {"variants": {"a/b": {"method": "kd"}}}, r"variants: 'a/b' names a folder"),
        (None, {"variants": {"a": {"method": "skdd"}}}, r"variants.a: .*did you mean 'skd'"),
        (
            None,
            {"variants": {"a": {"method": "kd", "terms": {"atention": {"weight": 1.0}}}}},
            r"variants.a: terms.atention: .*did you mean 'attention'",
        ),
        (("supervised", "kdd"), {}, r"no method named 'kdd'; did you mean 'kd'"),
        (("supervised", "idd:papr"), {}, r"did you mean 'paper'"),
        (("supervised", "kd"), {"teacher": None}, r"the recipe has no teacher. Add one"),
        (
            ("supervised", "b"),
            {"variants": {"b": {"label": "control"}}},
            r"'supervised' and 'b' have the same label, 'control'; expected one label each",
        ),
        (
            None,
            {"variants": {"a": {"terms": {"cross_entropy": {"options": {"ohemm": True}}}}}},
            r"compare: a: terms.cross_entropy: .*did you mean 'ohem'",
        ),
        (
            None,
            {"variants": {"a": {"terms": {"attention": {"weight": 1.0, "on": "featurs"}}}}},
            r"compare: a: .*featurs",
        ),
        (
            None,
            {"variants": {"a": {"train": {"batch": 3, "accumulate": 2}}}},
            r"compare: a: .*batch",
        ),
        (
            None,
            {"variants": {"a": {"role": "control", "method": {"name": "kd", "preset": "papr"}}}},
            r"variants.a.method.preset is 'papr'",
        ),
        (
            ("supervised", "kd"),
            {"terms": {"chanelwise": {"weight": 5}}},
            r"terms.chanelwise: .*did you mean 'channelwise'",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_a_mistake_is_refused_before_anything_is_trained(
    methods: tuple[str, ...] | None,
    changes: dict[str, Any],
    message: str,
    teacher: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(obtaining, "train", lambda *_, **__: pytest.fail("something was trained"))
    values = {**small.distilled(teacher.path), **changes}
    with pytest.raises(ValueError, match=message):
        compare(small.recipe(**values, out=str(tmp_path / "runs")), methods, 1)
    assert not (tmp_path / "runs").exists()


CONTROLS = {
    "weighted": {"terms": {"cross_entropy": {"options": {"ohem": True}}}},
    "lr2": {"train": {"lr": 0.01}, "label": "control, lr × 2"},
    "twin": {"role": "method"},
    "ours": {"method": "kd"},
    "mixed": {"method": "kd", "role": "placebo", "terms": {"pixelwise": {"weight": 0.1}}},
}


@pytest.fixture(scope="module")
def many(teacher: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of three controls, a control under another name, a method and its placebo."""
    out = tmp_path_factory.mktemp("many")
    size = {"data": {**small.values()["data"], "size": [16, 24]}}
    changes = {**size, "variants": CONTROLS, "terms": {"cross_entropy": {"options": {}}}}
    compare(_recipe(teacher, out, **changes), seeds=2, progress=False)
    return out


def test_any_number_of_controls_and_placebos_is_compared(many: Path) -> None:
    content = json.loads((many / "comparison.json").read_text())
    roles = {label: row["role"] for label, row in content["methods"].items()}
    assert roles == {
        "teacher": "teacher",
        "control": "control",
        "control, lr × 2": "control",
        "weighted": "control",
        "ours": "method",
        "mixed": "placebo",
        "twin": "method",
    } and list(roles)[-3:] in (["ours", "mixed", "twin"], ["twin", "ours", "mixed"])
    assert {(c["label"], c["reference"]) for c in content["contrasts"] if c["label"] == "ours"} == {
        ("ours", "control"),
        ("ours", "control, lr × 2"),
        ("ours", "weighted"),
        ("ours", "mixed"),
    }
    assert RunFolder(many / "lr2-s1").recipe().train.lr == 0.01
    assert RunFolder(many / "mixed-s0").config()["tests"] == "ours"


def test_a_report_reads_the_roles_of_a_comparison(many: Path) -> None:
    summaries = summarise(find_runs([many]))
    assert {(s.label, s.role, s.tests) for s in summaries} >= {
        ("control, lr × 2", "control", None),
        ("twin", "method", None),
        ("mixed", "placebo", "ours"),
    }


def test_the_control_under_another_name_is_unclear(many: Path) -> None:
    content = json.loads((many / "comparison.json").read_text())
    assert content["tone"]["twin"] == "unclear" and content["control"]["twin"] == "control"
    twin = next(c for c in content["contrasts"] if c["label"] == "twin" and c["itself"])
    assert (twin["reference"], twin["difference"]["differences"]) == ("control", [0, 0])
    assert "same settings as plain training" in " ".join(content["verdict"]["twin"])


def test_the_teacher_s_figure_is_at_the_students_input(many: Path, teacher: RunFolder) -> None:
    content = json.loads((many / "comparison.json").read_text())
    audit, own = RunFolder(many / "ours-s0").teacher(), teacher.evaluation()
    assert audit is not None and own is not None and audit["miou"] != own["miou"]
    found = content["teacher"]
    assert found["miou"] == content["methods"]["teacher"]["miou_mean"]
    assert found["miou"] == pytest.approx(100 * audit["miou"])
    assert found["own_miou"] == pytest.approx(100 * own["miou"])
    assert (found["input"], found["own_input"]) == ([16, 24], [32, 48])
    assert found["at_students_input"]


def test_the_runs_record_what_their_times_depend_on(many: Path) -> None:
    environment = RunFolder(many / "ours-s0").environment()
    assert re.fullmatch("[0-9a-f]{8}", environment["machine"])
    assert environment["load"] is None or environment["load"] >= 0
    assert set(json.loads((many / "comparison.json").read_text())["times"]) == {
        "comparable",
        "differ",
    }


def test_equal_settings_are_told_before_the_training(
    teacher: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    class Stopped(Exception):
        pass

    def stop(*_: Any, **__: Any) -> None:
        raise Stopped

    monkeypatch.setattr(obtaining, "train", stop)
    variants = {"plain": {}, "kd": {"method": "kd"}, "again": {"method": "kd"}}
    recipe = _recipe(teacher, tmp_path, variants=variants)
    with caplog.at_level("WARNING"), pytest.raises(Stopped):
        compare(recipe, progress=False)
    # `plain` is the control, so no second one is trained beside it.
    assert [text for text in caplog.messages if "same settings" in text] == [
        "kd and again have the same settings, so any difference between them is chance"
    ]


def test_a_finished_run_takes_the_role_and_label_that_it_is_given(
    teacher: RunFolder, tmp_path: Path
) -> None:
    first = {"a": {"method": "kd"}, "b": {"method": "cwd"}}
    compare(_recipe(teacher, tmp_path, variants=first), ["a", "b"], 1, progress=False)
    weights = [(tmp_path / f"{n}-s0" / "model.safetensors").stat().st_mtime_ns for n in "ab"]
    again = {
        "a": {"method": "kd", "label": "KD"},
        "b": {"method": "cwd", "role": "placebo", "tests": "a"},
    }
    compare(_recipe(teacher, tmp_path, variants=again), ["a", "b"], 1, progress=False)
    found = {s.label: (s.role, s.tests) for s in summarise(find_runs([tmp_path]))}
    assert found == {"teacher": ("teacher", None), "KD": ("method", None), "b": ("placebo", "KD")}
    files = [tmp_path / f"{n}-s0" / "model.safetensors" for n in "ab"]
    assert [file.stat().st_mtime_ns for file in files] == weights


def test_a_folder_of_another_recipe_is_refused_before_anything_is_trained(
    teacher: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(_recipe(teacher, tmp_path, variants={"z": {"method": "kd"}}), ["z"], 1, progress=False)
    monkeypatch.setattr(obtaining, "train", lambda *_, **__: pytest.fail("something was trained"))
    other = {"z": {"method": "kd", "terms": {"pixelwise": {"weight": 9.0}}}}
    with pytest.raises(ValueError, match=r"z-s0 holds the run of another recipe"):
        compare(_recipe(teacher, tmp_path, variants=other), seeds=2, progress=False)


def test_a_poor_teacher_is_refused_before_any_control_is_trained(
    teacher: RunFolder, tmp_path: Path
) -> None:
    recipe = _recipe(teacher, tmp_path / "runs")
    recipe.teacher.min_miou = 99.0
    with pytest.raises(ValueError, match=r"expected at least 99.0"):
        compare(recipe, METHODS, 1, progress=False)
    assert not list((tmp_path / "runs").rglob("model.safetensors"))


def test_zero_seeds_are_refused(teacher: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seeds is 0; expected a positive integer"):
        compare(_recipe(teacher, tmp_path), METHODS, seeds=0)


def test_terms_apply_to_the_methods_that_have_them(teacher: RunFolder, tmp_path: Path) -> None:
    recipe = _recipe(teacher, tmp_path, terms={"pixelwise": {"weight": 3.0}})
    kd, alone = (
        module.one_run(recipe, module.MethodConfig(name), 1, tmp_path)
        for name in ("kd", "supervised")
    )
    assert kd.terms["pixelwise"].weight == 3.0
    assert alone.terms == {}
    paper = module.one_run(recipe, module.MethodConfig("kd", "paper"), 1, tmp_path)
    assert paper.out == str(tmp_path / "kd-paper-s1")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("wild", ["control", "taught"])
def test_rows_that_diverge_are_named_after_the_others_are_tabulated(
    wild: str, teacher: RunFolder, tmp_path: Path
) -> None:
    calm = ({"control", "taught"} - {wild}).pop()
    variants = {
        "control": {"method": "supervised", "train": {}},
        "taught": {"method": "kd", "train": {}},
    }
    variants[wild]["train"] = {"lr": 1e6}
    recipe = _recipe(teacher, tmp_path, variants=variants, train={"steps": 6, "log_every": 1})
    with pytest.raises(
        NonFiniteLoss, match=rf"{wild}-s0.*{wild}-s1 diverged and are not in .* step"
    ):
        compare(recipe, list(variants), seeds=2, progress=False)
    rows = json.loads((tmp_path / "comparison.json").read_text())["methods"]
    assert len(rows[calm]["miou_by_seed"]) == 2 and wild not in rows
    with pytest.raises(NonFiniteLoss, match=rf"{wild}-s0 diverged and is not in the table: step"):
        compare(replace(recipe, out=str(tmp_path / "none")), [wild], seeds=1, progress=False)


@pytest.mark.usefixtures("unchecked")
def test_the_seeds_and_folds_that_are_left_are_tabulated(
    teacher: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def some(recipe: Any, progress: bool) -> RunFolder:
        if recipe.out.endswith(("one/kd-s0", "two/kd-s0", "two/supervised-s0", "two/kd-s1")):
            raise NonFiniteLoss("step 1: cross_entropy = nan. Lower train.lr")
        return obtaining.obtain(recipe, progress)

    monkeypatch.setattr(module, "obtain", some)
    folds = {"one": {"data": {"val_options": {"seed": 3}}}, "two": {}}
    recipe = _recipe(teacher, tmp_path, folds=folds)
    with pytest.raises(NonFiniteLoss, match=r"one/kd-s0, .*two/kd-s1 diverged .* Lower train.lr"):
        compare(recipe, METHODS, seeds=2, progress=False)
    pooled, one, two = (
        json.loads((tmp_path / place / "comparison.json").read_text())["methods"]
        for place in ("", "one", "two")
    )
    assert list(one["kd"]["miou_by_seed"]) == ["1"] and "kd" not in two
    assert len(pooled["control"]["miou_by_seed"]) == 3
