"""The benchmarks cover every loss and network; nothing is timed here."""

import importlib.util
import json
import math
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from segdistill.config import Recipe
from segdistill.losses import LOSSES
from segdistill.run.comparing.folds import fold_recipes
from segdistill.run.folder import RunFolder
from segdistill.run.recipe import load_recipe
from tests.data import trees

ROOT = Path(__file__).parents[1]
FILE = ROOT / "benchmarks" / "losses.py"


def _module(name: str) -> ModuleType:
    path = ROOT / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def losses() -> ModuleType:
    return _module("losses")


def test_every_loss_is_timed_in_every_form(losses: ModuleType) -> None:
    forms = [(name, form) for name, loss in LOSSES.items() for form in loss.forms]
    assert [case for case in losses.cases(forms=True) if case[0] in LOSSES] == [
        *forms,
        ("inter_class", "plain"),
        ("intra_class", "plain"),
        ("position", "plain"),
    ]
    assert {name for name, _ in losses.cases()} == {*LOSSES, "class_tokens", "token_distances"}


@pytest.mark.parametrize("name", ["class_tokens", "inter_class", "position", "token_distances"])
def test_plain_versions_have_the_same_value(losses: ModuleType, name: str) -> None:
    ours, plain = (losses.step_of(name, one, 30, 2, 17)() for one in ("default", "plain"))
    assert plain == pytest.approx(ours, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "on_logits"),
    [
        ("cross_entropy", True),
        ("channelwise", True),
        ("pairwise", False),
        ("hint", False),
        ("class_tokens", False),
    ],
)
def test_losses_that_compare_channels_or_have_no_teacher_are_timed_on_logits(
    losses: ModuleType, name: str, on_logits: bool
) -> None:
    assert losses.reads_logits(name) == on_logits


@pytest.mark.parametrize(
    ("name", "form"), [(name, form) for name, loss in LOSSES.items() for form in loss.forms]
)
def test_a_step_of_each_form_runs(losses: ModuleType, name: str, form: str) -> None:
    assert math.isfinite(losses.step_of(name, form, 19, 2, 17)())


RESULTS = ROOT / "benchmarks" / "results"
NAMES = {
    "pixel-wise": "pixelwise",
    "channel-wise on logits": "channelwise",
    "channel-wise on features": "channelwise_features",
    "pair-wise": "pairwise",
    "intra-class": "intra_class",
    "inter-class": "inter_class",
    "position": "position",
    "attention": "attention",
    "DIST": "dist",
    "image relations": "image_relation",
}


def test_the_shares_in_the_docs_are_those_measured() -> None:
    measured = json.loads((RESULTS / "shares.json").read_text())
    text = (ROOT / "docs" / "weights.md").read_text()
    table = re.findall(
        r"^\| ([^|]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", text, re.M
    )
    assert len(table) == len(NAMES) + 2
    last = ""
    for title, *cells in table:
        name, _, weight = title.partition(", ")
        last = f"{last} mmrazor" if name == "the same" else NAMES[name]
        assert last.endswith(" mmrazor") or float(weight) == measured["weights"][last]
        assert [float(cell) for cell in cells] == pytest.approx(
            [row["shares"][last] for row in measured["rows"]], abs=0.0051
        )


def test_the_figures_on_geometry_in_the_docs_are_those_measured() -> None:
    measured = json.loads((RESULTS / "geometry.json").read_text())["miou"]
    text = (ROOT / "docs" / "architecture.md").read_text()
    found = re.search(
        r"reach ([\d.]+) mIoU with declared cells,\s+([\d.]+) by half pixels and ([\d.]+) at", text
    )
    assert found is not None
    kinds = ("declared cells", "half pixels (released)", "stride · i")
    assert [float(figure) for figure in found.groups()] == pytest.approx(
        [measured[kind] for kind in kinds], abs=0.051
    )


@pytest.mark.parametrize("name", ["shares", "geometry", "step"])
def test_a_result_names_its_command_versions_and_machine(name: str) -> None:
    result = json.loads((RESULTS / f"{name}.json").read_text())
    assert result["command"].startswith(f"python benchmarks/{name}.py")
    environment = result["environment"]
    assert environment["packages"]["torch"] and environment["processor"] and environment["threads"]


@pytest.fixture(scope="module")
def table() -> ModuleType:
    return _module("table")


PROTOCOLS = sorted(path.parent.name for path in FILE.parent.glob("*/table.yaml"))
MIXED = ["camvid-mixed", "camvid-mixed-all"]
UNTUNED = [*MIXED, "camvid-search", "synthetic-parts"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_protocol_names_teachers_that_it_has(protocol: str) -> None:
    folder = FILE.parent / protocol
    recipe = load_recipe(folder / "table.yaml")
    assert recipe.teacher is not None and (recipe.tuning is None) == (protocol in UNTUNED)
    named = [recipe.teacher.run, *([recipe.tuning.teacher["run"]] if recipe.tuning else [])]
    named += [fold.teacher["run"] for fold in recipe.folds.values() if fold.teacher]
    assert {Path(str(run)).parent.as_posix() for run in named} == {f"runs/{protocol}/teachers"}
    assert {Path(str(run)).name for run in named} == {
        file.stem for file in (folder / "teachers").glob("*.yaml")
    }


def test_records_have_no_weights_and_take_the_place_of_runs(
    table: ModuleType, tmp_path: Path
) -> None:
    source = RESULTS / "synthetic"
    runs, records, again = (tmp_path / name for name in ("runs", "records", "again"))
    made = runs / "table" / "world_200" / "idd-s0"
    shutil.copytree(source / "table" / "world_200" / "idd-s0", made)
    (made / "model.safetensors").write_bytes(b"weights")
    begun = runs / "table" / "world_200" / "idd-s1"
    begun.mkdir()
    shutil.copyfile(made / "config.yaml", begun / "config.yaml")
    table.record(runs, records, "python benchmarks/table.py synthetic")
    kept = records / "table" / "world_200"
    assert [folder.name for folder in kept.iterdir()] == ["idd-s0"]
    assert not list(records.rglob("*.safetensors"))
    table.restore(records, again)
    run = RunFolder(again / "table" / "world_200" / "idd-s0")
    assert run.recorded and run.evaluation() == RunFolder(made).evaluation()


def test_an_unknown_fold_ends_before_anything_is_trained(
    table: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        table.main(["camvid-drives", "--folds", "without_0006R0", "without_001TP"])
    assert stop.value.code == 2 and not list(tmp_path.iterdir())
    message = "--folds has without_001TP; expected some of without_0006R0, without_0016E5"
    assert message in capsys.readouterr().err


def _mixed(protocol: str, fold: str) -> tuple[Recipe, Recipe]:
    """The recipe of a fold and that of its teacher."""
    recipe = fold_recipes(load_recipe(FILE.parent / protocol / "table.yaml"), Path())[fold]
    assert recipe.teacher is not None
    name = Path(str(recipe.teacher.run)).name
    return recipe, load_recipe(FILE.parent / protocol / "teachers" / f"{name}.yaml")


@pytest.mark.parametrize("fold", ["without_0006R0", "without_0016E5"])
@pytest.mark.parametrize("protocol", MIXED)
def test_a_teacher_of_few_labels_has_seen_no_others(protocol: str, fold: str) -> None:
    recipe, teacher = _mixed(protocol, fold)
    assert teacher.data.train_options == recipe.data.train_options
    assert teacher.data.val_options == recipe.data.val_options
    assert recipe.data.train_options["labelled"] == (0.1 if protocol == "camvid-mixed" else None)
    # The published weights of camvid-drives were counted on all labels.
    for one in (recipe, teacher):
        assert one.terms["cross_entropy"].options.get("weight") is None
        assert one.terms["cross_entropy"].options["balance"] == "sqrt"


@pytest.mark.slow
@pytest.mark.parametrize("protocol", MIXED)
def test_two_steps_of_a_mixed_protocol(
    protocol: str,
    table: ModuleType,
    real_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def short(path: Path) -> Recipe:
        recipe = load_recipe(path)
        data = replace(recipe.data, options={**recipe.data.options, "limit": 20})
        training = replace(recipe.train, steps=2, warmup=0, crop=(32, 32))
        teacher = recipe.teacher and replace(recipe.teacher, min_miou=0.0)
        return replace(recipe, data=data, train=training, teacher=teacher)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(real_data)
    monkeypatch.setattr(table, "load_recipe", short)
    monkeypatch.setattr(table, "RESULTS", tmp_path / "results")
    (command,) = re.findall(
        rf"table.py ({protocol} --trials.*)", (FILE.parent / "README.md").read_text()
    )
    _, _, rows = command.partition("--rows ")
    table.main([*command.split(), "--seeds", "1"])
    for fold in ("without_0006R0", "without_0016E5"):
        for row in rows.split():
            info = RunFolder(
                tmp_path / "results" / protocol / "table" / fold / f"{row}-s0"
            ).model_info()
            labelled = 2 if protocol == "camvid-mixed" else 20
            assert (info["train_labelled"], info["train_images"]) == (labelled, 20)


def test_the_mixed_protocols_train_as_that_of_the_drives() -> None:
    drives = load_recipe(FILE.parent / "camvid-drives" / "table.yaml")
    for protocol in MIXED:
        recipe = load_recipe(FILE.parent / protocol / "table.yaml")
        assert replace(recipe.train, labelled_share=None) == drives.train
        assert recipe.student == drives.student and recipe.terms == drives.terms


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    return _module("gpu")


def test_a_weight_is_that_of_the_target_share_where_shares_were_measured(tmp_path: Path) -> None:
    def row(step: int, **terms: float | None) -> str:
        found = {
            name: {"value": 1.0, "weight": 2.0, "share": share} for name, share in terms.items()
        }
        return json.dumps({"kind": "train", "step": step, "terms": found})

    rows = [row(5, pixelwise=0.5), row(7, pixelwise=None), row(10, pixelwise=0.3, position=0.0)]
    rows += [row(11, pixelwise=9.0, position=0.0)]  # stopped there
    (tmp_path / "metrics.jsonl").write_text("\n".join(rows))
    (tmp_path / "config.yaml").write_text("train: {steps: 100}")
    found = _module("weights").suggestions(tmp_path, 0.05, 0.1)
    assert found == {"pixelwise": {"weight": 2.0, "share": 0.4, "suggested": pytest.approx(5.0)}}


def test_on_one_device_twice_no_loss_differs_from_itself(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {name: LOSSES[name] for name in ("cross_entropy", "inter_class", "pixelwise")}
    monkeypatch.setattr(gpu, "LOSSES", few)
    found = gpu.losses(gpu.Setting("cpu", True, tmp_path))["forms"]
    assert set(found) == {f"{name}:{form}" for name, loss in few.items() for form in loss.forms}
    assert all(row["value"] != 0 for row in found.values())
    assert all(row["value_off"] == row["gradient_off"] == 0 for row in found.values())


def test_tf32_is_off_for_the_losses_alone(gpu: ModuleType) -> None:
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [flag.allow_tf32 for flag in flags]
    with pytest.raises(ValueError, match="ends"), gpu.without_tf32():
        assert [flag.allow_tf32 for flag in flags] == [False, False]
        raise ValueError("ends")
    assert [flag.allow_tf32 for flag in flags] == before


def test_a_loss_that_is_not_finite_is_the_worst(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(name: str, form: str, device: str) -> tuple[float, torch.Tensor]:
        value = {"cross_entropy": math.nan, "pixelwise": 2.0}.get(name, 1.0)
        return value if device == "cuda" else 1.0, torch.ones(1)

    few = {name: LOSSES[name] for name in ("pixelwise", "cross_entropy", "inter_class")}
    monkeypatch.setattr(gpu, "LOSSES", few)
    monkeypatch.setattr(gpu, "value_and_gradient", found)
    assert gpu.losses(gpu.Setting("cuda", True, tmp_path))["worst"].startswith("cross_entropy")


def test_a_part_that_fails_is_told_and_the_others_go_on(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: object) -> dict[str, object]:
        raise RuntimeError("no such kernel")

    parts = {"bad": fails, "good": lambda _: {"miou": 0.5}}
    kept: list[int] = []
    found = gpu.measured(
        parts, gpu.Setting("cpu", True, tmp_path), lambda all: kept.append(len(all))
    )
    assert kept == [1, 2] and found == {
        "bad": {"error": "RuntimeError: no such kernel"},
        "good": {"miou": 0.5},
    }
    monkeypatch.setattr(gpu, "PARTS", parts)
    out = tmp_path / "new" / "gpu.json"
    assert gpu.main(["--device", "cpu", "--parts", "bad", "--out", str(out)]) == 1
    assert json.loads(out.read_text())["parts"]["bad"] == found["bad"]


def test_without_a_gpu_the_command_ends_before_anything_is_measured(
    gpu: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stop:
        gpu.main([])
    assert stop.value.code == 2 and "torch finds no GPU" in capsys.readouterr().err


@pytest.mark.slow
def test_the_rehearsal_runs_every_part(gpu: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    assert gpu.main(["--device", "cpu", "--quick", "--out", str(out)]) == 0
    parts = json.loads(out.read_text())["parts"]
    assert list(parts) == list(gpu.PARTS)
    assert parts["determinism"]["equal"] and set(parts["precision"]) == {"32", "bf16"}


def test_all_ways_to_load_are_timed_on_the_same_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root, out = trees.cityscapes(tmp_path, 1, (560, 1100)), tmp_path / "data.json"
    threads, state = torch.get_num_threads(), random.getstate()
    try:
        _module("data").main(["--data", str(root), "--rounds", "1", "--out", str(out)])
    finally:
        torch.set_num_threads(threads)
        random.setstate(state)
    result = json.loads(out.read_text())
    assert result["samples"] == 2 and result["sizes"] == [[560, 1100]]
    assert {"torchvision", "segdistill", "segdistill, cache: disk"} <= set(result["cases"])
    assert result["cases"]["torchvision"]["torchvision_by_this"] == 1
