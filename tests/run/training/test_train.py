import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from multiprocessing.context import ForkProcess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from segdistill.cli import main
from segdistill.run.folder import RunFolder
from segdistill.run.networks import load_run_model
from segdistill.run.recipe import load_recipe
from segdistill.run.training.checkpoint import load_checkpoint, save_checkpoint
from segdistill.run.training.train import train
from segdistill.run.training.updates.optimizer import learning_rate_factor
from tests.run import processes, small

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return small.teacher(tmp_path_factory.mktemp("teacher") / "run")


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def _assert_same_weights(one: Path, other: Path) -> None:
    ours, theirs = _weights(one), _weights(other)
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key], rtol=0, atol=0, msg=key)


def test_a_run_holds_everything_that_later_commands_read(
    teacher: RunFolder, tmp_path: Path
) -> None:
    run = train(
        small.recipe(**small.distilled(teacher.path), out=str(tmp_path / "run")), progress=False
    )
    assert run.finished
    assert run.method_name == "idd"
    figures = run.evaluation()
    assert figures is not None
    assert 0 <= figures["miou"] <= 1
    last = [row for row in run.metrics() if row["kind"] == "val"][-1]
    assert last["step"] == 6
    assert last["miou"] == figures["miou"]
    rows = [row for row in run.metrics() if row["kind"] == "train"]
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert set(rows[-1]["terms"]) >= {
        "cross_entropy",
        "pixelwise",
        "channelwise",
        "inter_class",
        "position",
    }
    assert rows[-1]["terms"]["inter_class"]["share"] > 0
    assert run.teacher()["miou"] == teacher.evaluation()["miou"]
    assert "r2_teacher_x" in run.preparation()["position"]
    assert torch.__version__.startswith(run.environment()["packages"]["torch"])
    assert not (run.path / "resume.ckpt").exists()


def test_the_shipped_weights_load_strictly_and_reproduce_the_reported_miou(
    teacher: RunFolder, tmp_path: Path
) -> None:
    from segdistill.data import build_dataset
    from segdistill.run.evaluation.evaluate import evaluate
    from tests.distillation.networks import Tiny

    plain = Tiny(12, small.CLASSES)
    plain.load_state_dict(_weights(teacher.path), strict=True)
    data = build_dataset("synthetic", split="val", size=(32, 48), count=6)
    assert evaluate(plain.eval(), data).miou == teacher.evaluation()["miou"]
    rebuilt = load_run_model(teacher)
    assert not rebuilt.training
    torch.testing.assert_close(rebuilt.module.state_dict(), plain.state_dict(), rtol=0, atol=0)


def test_the_teacher_is_measured_where_its_run_was_measured_otherwise(
    teacher: RunFolder, tmp_path: Path
) -> None:
    recipe = small.recipe(
        **small.distilled(teacher.path, method="kd"),
        out=str(tmp_path / "run"),
        data={
            "name": "synthetic",
            "options": {"size": [32, 48], "count": 6},
            "val_options": {"count": 3},
        },
    )
    audit = train(recipe, progress=False).teacher()
    assert audit["miou"] != teacher.evaluation()["miou"]


def test_a_killed_run_resumes_bit_identically(teacher: RunFolder, tmp_path: Path) -> None:
    kills = {signal.SIGKILL: 4, signal.SIGTERM: 8}
    terms = {"channelwise": {"schedule": "cosine"}, "pairwise": {"schedule": "linear"}}
    _kill_and_resume(kills, small.distilled(teacher.path, terms=terms), tmp_path)


@pytest.mark.parametrize(("steps", "every", "measured"), [(5, 1, 5), (100, 1, 44), (99, 7, 15)])
def test_gradient_shares_are_measured_once_in_a_fortieth_of_the_training_and_from_5_to_10_percent(
    tmp_path: Path, steps: int, every: int, measured: int
) -> None:
    """All other values are logged each time."""
    train_config = {"steps": steps, "log_every": every, "batch": 1, "crop": (16, 16)}
    recipe = small.recipe(train=train_config, out=str(tmp_path / "run"))
    found = train(recipe, progress=False).metrics()
    rows = [row for row in found if row["kind"] == "train"]
    assert len(rows) == -(-steps // every)
    terms = [row["terms"]["cross_entropy"] for row in rows]
    assert all(term["value"] > 0 for term in terms)
    known = [row["step"] for row, term in zip(rows, terms, strict=True) if term["share"] == 1]
    assert len(known) == measured == len(terms) - [term["share"] for term in terms].count(None)
    assert known[0] == every and known[-1] == steps
    assert {row["step"] for row in rows if 0.05 <= row["step"] / steps <= 0.1} <= set(known)


def test_a_schedule_is_in_the_log_and_in_each_row(
    teacher: RunFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The share is that of the weight in its row: per unit of weight it is that of a constant one."""
    caplog.set_level("INFO")
    rows = {}
    for name, schedule in (("a", "linear"), ("b", None)):
        recipe = small.recipe(
            **small.distilled(teacher.path, method="kd"),
            terms={"pixelwise": {"weight": 4.0, "schedule": schedule}},
            # The weights of the network do not change, so that the gradients are the same.
            train={"steps": 5, "log_every": 1, "lr": 0.0},
            out=str(tmp_path / name),
        )
        found = train(recipe, progress=False).metrics()
        rows[name] = [row["terms"]["pixelwise"] for row in found if row["kind"] == "train"]
    assert "4 → 0, linear" in caplog.text
    assert [row["weight"] for row in rows["a"]] == [4, 3, 2, 1, 0]
    assert [row["weight"] for row in rows["b"]] == [4] * 5
    for falling, constant in zip(rows["a"], rows["b"], strict=True):
        assert falling["value"] == pytest.approx(constant["value"])
        share = falling["weight"] / 4 * constant["share"]
        assert falling["share"] == pytest.approx(share, rel=1e-4) and constant["share"] > 0


def test_images_that_the_teacher_learnt_from_are_named(
    teacher: RunFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, further in (("clean", {}), ("seen", {"evaluation": {"all": {"split": "train"}}})):
        recipe = small.recipe(
            **small.distilled(teacher.path, method="kd", **further),
            train={"steps": 1},
            out=str(tmp_path / name),
        )
        train(recipe, progress=False)
        told = [line for line in caplog.messages if "the teacher was trained on" in line]
        assert len(told) == len(further)
    assert "trained on 6 images of evaluation.all (train-0-00000" in told[0]


def test_a_killed_run_resumes_with_the_statistics_that_a_loss_prepared(
    teacher: RunFolder, tmp_path: Path
) -> None:
    changes = small.distilled(
        teacher.path,
        method="hint",
        terms={"pixel_to_class": {"weight": 1.0, "on": "features"}},
    )
    _kill_and_resume({signal.SIGKILL: 4}, changes, tmp_path)


@pytest.mark.parametrize("method", ["skd", pytest.param("ifvd", marks=pytest.mark.slow)])
def test_a_killed_run_with_a_critic_resumes_bit_identically(method: str, tmp_path: Path) -> None:
    """The student depends on the critic, so its bits also cover the critic and its optimizer."""
    teacher = small.teacher(tmp_path / "teacher", **small.FINE)
    changes = small.released(teacher.path, method=method)
    _kill_and_resume({signal.SIGKILL: 4}, changes, tmp_path)


def _kill_and_resume(
    kills: dict[signal.Signals, int], changes: dict, tmp_path: Path, **train: object
) -> None:
    """Killed after these steps; the same command resumes and ends like an uninterrupted run."""
    training = {"steps": 12, "save_every": 3, **train}
    recipe = small.write(tmp_path / "recipe.yaml", **changes, train=training)
    whole, broken, log = tmp_path / "whole", tmp_path / "broken", tmp_path / "log"
    processes.run(log, main, ["train", str(recipe), "--out", str(whole)])
    for number, step in kills.items():
        process = processes.start(log, main, ["train", str(recipe), "--out", str(broken)])
        _wait_for(process, broken / "metrics.jsonl", f'"step": {step}')
        os.kill(process.pid, number)
        process.join(60)
        assert process.exitcode == (-number if number == signal.SIGKILL else 128 + number)
        assert load_checkpoint(broken) is not None
        assert not (broken / "model.safetensors").exists()
    processes.run(log, main, ["train", str(recipe), "--out", str(broken)])
    _assert_same_weights(whole, broken)
    logged = [row["step"] for row in RunFolder(broken).metrics() if row["kind"] == "train"]
    assert logged == list(range(2, 13, 2))


def _wait_for(process: ForkProcess, path: Path, text: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.is_alive():
        if path.exists() and text in path.read_text():
            break
        time.sleep(0.005)
    assert process.is_alive(), "the run ended before it could be killed"


def test_only_the_same_seed_gives_bit_identical_weights(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(small.recipe(train={"seed": seed}, out=str(tmp_path / name)), progress=False)
    _assert_same_weights(tmp_path / "a", tmp_path / "b")
    with pytest.raises(AssertionError):
        _assert_same_weights(tmp_path / "a", tmp_path / "c")


def _without_ignored_pixels(root: Path) -> dict:
    """All labels are valid, so the mean over a part is its share of the whole mean."""
    _two_class_folder(root)
    options = {"classes": ["a", "b"], "val_fraction": 0.5}
    return {
        "data": {"name": "folder", "root": str(root), "options": options},
        "student": {"model": "tests.run.plain.NoNorm"},
    }


def test_accumulation_gives_the_gradient_of_the_whole_batch(tmp_path: Path) -> None:
    changes = _without_ignored_pixels(tmp_path / "data")
    for name, parts in (("whole", 1), ("parts", 2)):
        training = {"steps": 3, "batch": 4, "accumulate": parts, "scale": [1.0, 1.0]}
        train(small.recipe(**changes, train=training, out=str(tmp_path / name)), progress=False)
    whole, parts = _weights(tmp_path / "whole"), _weights(tmp_path / "parts")
    for key in whole:
        torch.testing.assert_close(whole[key], parts[key], rtol=1e-4, atol=1e-6)


def _launched(command: list[str], log: Path) -> None:
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *launcher, "-m", "segdistill", *command]
    subprocess.run(command, check=True, cwd=ROOT, env=environment)


def _forked(command: list[str], log: Path) -> None:
    processes.run_two(log, main, command)


@pytest.mark.parametrize("start", [_forked, pytest.param(_launched, marks=pytest.mark.slow)])
def test_two_processes_train_as_one_does(
    start: Callable[[list[str], Path], None], tmp_path: Path
) -> None:
    """gloo on the CPU, no batch norm: the same order of samples, so the same weights up to rounding."""
    training = {"steps": 5, "batch": 4, "scale": [1.0, 1.0]}
    changes = _without_ignored_pixels(tmp_path / "data")
    recipe = small.write(tmp_path / "recipe.yaml", **changes, train=training)
    one, two = tmp_path / "one", tmp_path / "two"
    train(load_recipe(recipe, ["--out", str(one)]), progress=False)
    start(["train", str(recipe), "--out", str(two)], tmp_path / "log")
    ours, theirs = _weights(one), _weights(two)
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-4, atol=1e-6)
    single, double = RunFolder(one).evaluation(), RunFolder(two).evaluation()
    assert single["images"] == double["images"]
    assert single["confusion"] == double["confusion"]
    assert RunFolder(two).environment()["processes"] == 2


def test_two_processes_measure_the_network_that_they_save(
    teacher: RunFolder, tmp_path: Path
) -> None:
    """Running statistics differ between processes; the first process's are saved, so they must be measured."""
    from segdistill.data import build_dataset
    from segdistill.run.evaluation.evaluate import evaluate

    recipe = small.write(
        tmp_path / "recipe.yaml", **small.distilled(teacher.path), train={"steps": 4, "batch": 4}
    )
    command = ["train", str(recipe), "--out", str(tmp_path / "run")]
    processes.run_two(tmp_path / "log", main, command)
    run = RunFolder(tmp_path / "run")
    data = build_dataset("synthetic", split="val", size=(32, 48), count=6)
    assert evaluate(load_run_model(run), data).confusion.tolist() == run.evaluation()["confusion"]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_bf16_channels_last_clipping_and_warm_up_train(
    optimizer: str, teacher: RunFolder, tmp_path: Path
) -> None:
    run = train(
        small.recipe(
            **small.distilled(teacher.path),
            train={
                "precision": "bf16",
                "channels_last": True,
                "clip": 1.0,
                "warmup": 2,
                "optimizer": optimizer,
                "photometric": 0.3,
                "val_every": 3,
                "lr": 0.01,
            },
            out=str(tmp_path / "run"),
        ),
        progress=False,
    )
    assert [row["step"] for row in run.metrics() if row["kind"] == "val"] == [3, 6]
    best = load_file(run.weights_path("best"))
    assert best.keys() == _weights(run.path).keys()
    assert {value.dtype for value in best.values() if value.is_floating_point()} == {torch.float32}


def test_the_learning_rate_warms_up_and_ends_near_zero() -> None:
    config = small.recipe(train={"steps": 10, "warmup": 2, "power": 1.0}).train
    factors = [learning_rate_factor(step, config) for step in range(10)]
    assert factors[0] == pytest.approx(0.5 * 1.0)
    assert factors[1] == pytest.approx(0.9)
    assert factors[9] == pytest.approx(0.1)


# Bad input ---------------------------------------------------------------------------------------


def test_a_run_of_another_recipe_is_refused_and_not_changed(tmp_path: Path) -> None:
    train(small.recipe(out=str(tmp_path)), progress=False)
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"holds the run of another recipe \(train.lr differ\)"):
        train(small.recipe(train={"lr": 0.1}, out=str(tmp_path)), progress=False)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_a_refused_recipe_leaves_no_folder(tmp_path: Path) -> None:
    out = tmp_path / "runs" / "mine"
    with pytest.raises(ValueError, match="did you mean 'compact'"):
        train(small.recipe(student={"model": "compct"}, out=str(out)), progress=False)
    assert list(tmp_path.iterdir()) == []
    out.mkdir(parents=True)
    with pytest.raises(ValueError, match="did you mean 'compact'"):
        train(small.recipe(student={"model": "compct"}, out=str(out)), progress=False)
    assert out.is_dir()  # it was there before


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    train(small.recipe(out=str(tmp_path)), progress=False)
    written = (tmp_path / "model.safetensors").stat().st_mtime_ns
    train(small.recipe(train={"workers": 1}, out=str(tmp_path)), progress=False)
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": {"precision": "fp16"}}, "precision is fp16; expected bf16 or 32"),
        ({"train": {"batch": 3, "accumulate": 2}}, "train.batch is 3; expected a multiple of 2"),
        ({"train": {"steps": 0}}, "train.steps is 0; expected a positive integer"),
        ({"train": {"accumulate": 0}}, "train.accumulate is 0; expected a positive integer"),
        ({"method": "idd"}, "needs a teacher, but none is given"),
        ({"method": "ide"}, "did you mean 'idd'"),
        ({"teacher": {}, "method": "kd"}, "teacher has no run and no model"),
        ({"teacher": {"model": "espnet"}, "method": "kd"}, "expected a file of trained weights"),
        ({"teacher": {"run": "nowhere"}, "method": "kd"}, "no run at nowhere"),
        (
            {"teacher": {"run": "a", "model": "enet"}, "method": "kd"},
            "run is a beside teacher.model",
        ),
        (
            {"teacher": {"run": "a", "weights": "b"}, "method": "kd"},
            "run is a beside teacher.weights",
        ),
        ({"teacher": {"run": "a", "options": {"width": 3}}}, "run is a beside teacher.options"),
        ({"data": {"root": "data/mine"}}, "data.root is data/mine, which the data set 'synthetic'"),
        ({"student": {"model": "pspnet_r81"}}, "did you mean 'pspnet_r18'"),
        ({"data": {"name": "synthetc"}}, "did you mean 'synthetic'"),
    ],
)
def test_a_mistake_is_refused_before_training(changes: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train(small.recipe(**changes, out=str(tmp_path / "run")), progress=False)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_teacher_of_other_classes_is_refused(teacher: RunFolder, tmp_path: Path) -> None:
    root = tmp_path / "data"
    _two_class_folder(root)
    recipe = small.recipe(
        **small.distilled(teacher.path, method="kd"),
        data={
            "name": "folder",
            "root": str(root),
            "options": {"classes": ["a", "b"], "val_fraction": 0.5},
        },
        out=str(tmp_path / "run"),
    )
    with pytest.raises(ValueError, match="the teacher has 11 classes; expected 2, as in the data"):
        train(recipe, progress=False)


def _two_class_folder(root: Path) -> None:
    from PIL import Image

    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for index in range(8):
        Image.new("RGB", (48, 32), (index, 0, 0)).save(root / "images" / f"{index}.png")
        mask = Image.new("L", (48, 32), index % 2)
        mask.paste(1 - index % 2, (0, 0, 24, 32))
        mask.save(root / "masks" / f"{index}.png")


def test_a_teacher_below_the_asked_miou_is_refused(teacher: RunFolder, tmp_path: Path) -> None:
    changes = small.distilled(teacher.path, method="kd")
    changes["teacher"]["min_miou"] = 99.0
    with pytest.raises(ValueError, match=r"expected at least 99\.0 \(teacher\.min_miou\)"):
        train(small.recipe(**changes, out=str(tmp_path / "run")), progress=False)


def test_a_non_finite_term_is_named_with_its_files_and_keeps_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segdistill.losses.task import CrossEntropy

    calls = {"n": 0}
    real = CrossEntropy.forward

    def sometimes_infinite(
        self: CrossEntropy, student: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        calls["n"] += 1
        return real(self, student, labels) * (float("inf") if calls["n"] > 8 else 1.0)

    monkeypatch.setattr(CrossEntropy, "forward", sometimes_infinite)
    recipe = small.recipe(
        out=str(tmp_path / "run"), terms={"cross_entropy_aux": {"weight": 0.0}}, train={"steps": 20}
    )
    with pytest.raises(
        ValueError, match=r"step 9: cross_entropy = (inf|nan) on train-0-0000\d, train-0-"
    ):
        train(recipe, progress=False)
    state = load_checkpoint(tmp_path / "run")
    assert state is not None
    assert state["step"] == 8
    assert all(
        torch.isfinite(v).all() for v in state["distiller"].values() if v.is_floating_point()
    )


def test_a_non_finite_gradient_stops_before_it_changes_the_weights(tmp_path: Path) -> None:
    class Poison(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, grad: torch.Tensor) -> torch.Tensor:
            return grad * float("nan")

    from segdistill.losses.task import CrossEntropy

    calls = {"n": 0}
    real = CrossEntropy.forward

    def poisoned(self: CrossEntropy, student: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        calls["n"] += 1
        value = real(self, student, labels)
        return Poison.apply(value) if calls["n"] == 4 else value

    recipe = small.recipe(
        out=str(tmp_path), terms={"cross_entropy_aux": {"weight": 0.0}}, train={"log_every": 100}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CrossEntropy, "forward", poisoned)
        with pytest.raises(
            ValueError, match=r"step 4: the gradient of student\.\S+ is not finite on train-0-"
        ):
            train(recipe, progress=False)
    state = load_checkpoint(tmp_path)
    assert state is not None
    assert state["step"] == 2
    assert train(recipe, progress=False).finished


def test_a_run_killed_before_its_first_checkpoint_restarts_its_metrics(tmp_path: Path) -> None:
    recipe = small.recipe(out=str(tmp_path), train={"save_every": 100})
    tmp_path.joinpath("metrics.jsonl").write_text(json.dumps({"kind": "train", "step": 2}) + "\n")
    rows = train(recipe, progress=False).metrics()
    assert [row["step"] for row in rows if row["kind"] == "train"] == [2, 4, 6]


def test_a_refused_teacher_does_not_occupy_the_folder(teacher: RunFolder, tmp_path: Path) -> None:
    changes = small.distilled(teacher.path, method="kd")
    changes["teacher"]["min_miou"] = 99.0
    with pytest.raises(ValueError, match="min_miou"):
        train(small.recipe(**changes, out=str(tmp_path)), progress=False)
    changes["teacher"]["min_miou"] = 0.0
    assert train(small.recipe(**changes, out=str(tmp_path)), progress=False).finished


def test_no_hooks_remain_on_a_trained_student(tmp_path: Path, teacher: RunFolder) -> None:
    from segdistill.run.networks import build_student

    run = train(small.recipe(**small.distilled(teacher.path), out=str(tmp_path)), progress=False)
    profile = run.evaluation()["profile"]
    fresh = build_student(small.recipe().student, small.CLASSES, 0)
    from segdistill.run.evaluation.profile import multiply_adds

    assert profile["multiply_adds"] == multiply_adds(fresh, tuple(profile["size"]))


def test_an_unwritable_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot write to"):
        train(small.recipe(out=str(tmp_path / "file" / "run")), progress=False)


# Checkpoints -------------------------------------------------------------------------------------


def test_a_damaged_checkpoint_falls_back_to_the_previous_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import logging

    logging.getLogger("segdistill").propagate = True
    save_checkpoint(tmp_path, {"step": 1})
    save_checkpoint(tmp_path, {"step": 2})
    newest = tmp_path / "resume.ckpt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(bytes(content))
    assert load_checkpoint(tmp_path) == {"step": 1}
    assert "damaged" in caplog.text


@pytest.mark.parametrize("fail_at", [1, 2, 3, 4, 5, 6])
def test_a_failed_save_keeps_the_previous_checkpoint(
    fail_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up, or the process dies, at each operation of a save that touches a file."""
    save_checkpoint(tmp_path, {"step": 1})
    save_checkpoint(tmp_path, {"step": 2})
    touched = 0

    def failing(real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            nonlocal touched
            touched += 1
            if touched == fail_at:
                raise OSError(28, "No space left on device")
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(os.fsync))
        patch.setattr(os, "replace", failing(os.replace))
        # Some file systems cannot sync a folder; the files themselves are whole by then.
        syncs_folder = fail_at in (3, 6)
        expected = nullcontext() if syncs_folder else pytest.raises(OSError, match="No space left")
        with expected:
            save_checkpoint(tmp_path, {"step": 3})
    # Once the new content is complete under its temporary name, either may be read.
    assert load_checkpoint(tmp_path) == {"step": 2 if fail_at <= 2 else 3}
    save_checkpoint(tmp_path, {"step": 4})
    assert load_checkpoint(tmp_path) == {"step": 4}


def test_a_save_touches_six_times_and_each_is_tried_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, {"step": 1})
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, real=real: (calls.append(1), real(*a))[1])
    save_checkpoint(tmp_path, {"step": 2})
    assert len(calls) == 6


def test_truncated_metrics_are_read_up_to_the_cut(tmp_path: Path) -> None:
    from segdistill.run.folder import read_metrics

    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"step": 1}) + "\n" + '{"step": 2, "tot')
    assert read_metrics(path) == [{"step": 1}]
