"""The average of the weights: its equation, where it is used, and that the training underneath is unchanged."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file
from torch import nn

from segdistill.cli import main
from segdistill.config import TrainConfig
from segdistill.data import build_dataset
from segdistill.distillation.catalogue import build_method
from segdistill.distillation.distiller import Distiller
from segdistill.run.evaluation.evaluate import evaluate
from segdistill.run.folder import RunFolder
from segdistill.run.networks import build_student, load_run_model
from segdistill.run.training.checkpoint import load_checkpoint
from segdistill.run.training.loop import Loop
from segdistill.run.training.train import train
from segdistill.run.training.updates.average import WeightAverage
from segdistill.run.training.updates.finite import NonFiniteLoss
from tests.distillation.networks import Tiny, batch
from tests.run import processes, small
from tests.run.training.test_train import _assert_same_weights, _kill_and_resume

DECAY = 0.15


def _network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 1, bias=False), nn.BatchNorm1d(1, affine=False))


def _set(network: Any, weight: float, mean: float) -> None:
    with torch.no_grad():
        network[0].weight.fill_(weight)
        network[1].running_mean.fill_(mean)
        network[1].num_batches_tracked += 1


def test_a_small_case_by_hand() -> None:
    """Start 1, then 2 and 4; d = 1/10, then min(0.15, 2/11) = 0.15.

    0.1 * 1 + 0.9 * 2 = 1.9, then 0.15 * 1.9 + 0.85 * 4 = 3.685; the mean has ten times these.
    """
    network: Any = _network()
    _set(network, 1, 10)
    average = WeightAverage(network, DECAY)
    for value in (2, 4):
        _set(network, value, 10 * value)
        average.update()
    with average.applied():
        torch.testing.assert_close(network[0].weight, torch.full((1, 2), 3.685))
        torch.testing.assert_close(network[1].running_mean, torch.tensor([36.85]))
        assert network[1].num_batches_tracked == 3
    assert (network[0].weight == 4).all() and network[1].running_mean == 40


def test_the_warm_up_ends_at_the_decay() -> None:
    """While (1 + t) / (10 + t) is below the decay, the average of the constant 1 from 0 is as the product says."""
    network: Any = _network()
    _set(network, 0, 0)
    average = WeightAverage(network, 0.5)
    _set(network, 1, 1)
    left = 1.0
    for step in range(20):
        left *= min(0.5, (1 + step) / (10 + step))
        average.update()
        with average.applied():
            torch.testing.assert_close(network[0].weight, torch.full((1, 2), 1 - left))
    assert min(0.5, 8 / 17) < 0.5 == min(0.5, 9 / 18)


def test_weights_in_half_precision_are_averaged_in_single() -> None:
    """At a decay of 0.999 a step of bfloat16 would round most changes away."""
    network = nn.Linear(1, 1, bias=False, dtype=torch.bfloat16)
    nn.init.zeros_(network.weight)
    average = WeightAverage(network, 0.999)
    nn.init.ones_(network.weight)
    for _ in range(300):
        average.update()
    average.apply()
    assert network.weight.dtype == torch.bfloat16 and float(network.weight.detach()) == 1
    assert average.state_dict()["averages"]["weight"].dtype == torch.float32


def test_the_context_gives_the_weights_back_after_an_error() -> None:
    network: Any = _network()
    _set(network, 1, 1)
    average = WeightAverage(network, DECAY)
    _set(network, 3, 3)
    with pytest.raises(RuntimeError, match="broken"), average.applied():
        assert (network[0].weight == 1).all()
        raise RuntimeError("broken")
    assert (network[0].weight == 3).all()


def test_without_a_decay_nothing_is_kept() -> None:
    average = WeightAverage(_network(), 0.0)
    average.update()
    assert not average and average.state_dict() == {} and not average.named_averages()


def _states(folder: Path, **training: Any) -> dict[int, dict[str, Any]]:
    """The state after each step of a training, from its checkpoints."""
    kept: dict[int, dict[str, Any]] = {}

    class Keeping:
        def row(self, values: Any) -> None:
            state = load_checkpoint(folder)
            if state is not None:
                kept[state["step"]] = state

        def finished(self, run: RunFolder) -> None:
            pass

    recipe = small.recipe(
        train={"val_every": 1, "log_every": 1, **training}, out=str(folder), terms=_TERMS
    )
    train(recipe, progress=False, observers=[Keeping()])
    return kept


_TERMS = {"cross_entropy_aux": {"weight": 0.0}}


def test_the_training_underneath_is_unchanged_and_its_average_is_saved(tmp_path: Path) -> None:
    """Evaluated and saved is the average, here written out from the weights of each step."""
    plain, averaged = (_states(tmp_path / str(d), average=d) for d in (0.0, DECAY))
    steps = sorted(plain)
    assert steps == sorted(averaged) and len(steps) == 6
    for step in steps:
        for name, value in plain[step]["distiller"].items():
            torch.testing.assert_close(value, averaged[step]["distiller"][name], rtol=0, atol=0)
    saved = load_file(tmp_path / str(DECAY) / "model.safetensors")
    last = load_file(tmp_path / "0.0" / "model.safetensors")
    start = build_student(small.recipe().student, small.CLASSES, seed=0).state_dict()
    for name, value in saved.items():
        states = (plain[n]["distiller"][f"student.module.{name}"] for n in steps)
        history = [start[f"module.{name}"], *states]
        expected = _averaged(history) if value.is_floating_point() else history[-1]
        torch.testing.assert_close(value, expected)
    moved = [name for name in saved if not torch.equal(saved[name], last[name])]
    assert "head.weight" in moved and any("running" in name for name in moved)


def _averaged(history: list[torch.Tensor]) -> torch.Tensor:
    average = history[0]
    for step, value in enumerate(history[1:]):
        decay = min(DECAY, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * value
    return average


def test_what_is_reported_is_the_saved_network(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    training = {"average": 0.9, "val_every": 3}
    run = train(small.recipe(train=training, out=str(tmp_path / "run")), progress=False)
    data = build_dataset("synthetic", split="val", size=(32, 48), count=6)
    figures = run.evaluation()
    assert figures is not None
    assert evaluate(load_run_model(run), data).confusion.tolist() == figures["confusion"]
    rows = [row for row in run.metrics() if row["kind"] == "val"]
    best = evaluate(load_run_model(run, "best"), data)
    assert best.miou == max(row["miou"] for row in rows)
    assert "moving average of the student's weights, decay 0.9, at" in caplog.text
    assert "averaged weights" in caplog.text and "last weights" not in caplog.text


def test_a_killed_run_resumes_bit_identically(tmp_path: Path) -> None:
    """Terminated and killed: the state holds the weights, their average and the number of updates."""
    kills = {signal.SIGTERM: 4, signal.SIGKILL: 8}
    _kill_and_resume(kills, {}, tmp_path, average=0.9, val_every=5)
    weights = load_file(tmp_path / "whole" / "model.safetensors")
    recipe = small.recipe(train={"steps": 12}, out=str(tmp_path / "plain"))
    plain = load_file(train(recipe, progress=False).path / "model.safetensors")
    assert not torch.equal(weights["head.weight"], plain["head.weight"])


def _loop(
    folder: Path,
    calls: list[int],
    poisoned: tuple[int, ...] = (),
    mask: torch.Tensor | None = None,
    **changes: Any,
) -> Loop:
    """A plain training whose loss is infinite on some calls; the student may have a constant buffer."""
    torch.manual_seed(0)
    method = build_method("supervised", 3, terms=_TERMS)
    student = Tiny(6, aux=False)
    if mask is not None:
        student.register_buffer("mask", mask)
    distiller = Distiller(student, method)
    distiller.dry_pass(batch()[0])
    loss: Any = distiller.losses["cross_entropy"]

    def poison(_module: nn.Module, _inputs: Any, value: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return value * (float("inf") if len(calls) in poisoned else 1.0)

    loss.register_forward_hook(poison)
    images, labels = batch(images=4)
    loaded = {
        "image": images,
        "label": labels,
        "name": list("abcd"),
        "labelled": torch.ones(4, dtype=torch.bool),
    }
    config = TrainConfig(**{"steps": 4, "lr": 0.1, "log_every": 1, "average": 0.9, **changes})
    fabric = Fabric(accelerator="cpu", devices=1)
    return Loop(fabric, distiller, config, folder, lambda start: iter([loaded] * 4))


def test_a_skipped_step_is_no_update(tmp_path: Path) -> None:
    """Its batch norm saw the images before the loss was known; neither weights nor statistics remember."""
    loop = _loop(tmp_path, [], poisoned=(2, 3), skip_nonfinite=2)
    loop.run(progress=False)
    assert loop.skipped == 2 and loop.average.state_dict()["updates"] == 2


def test_parts_of_a_batch_are_one_update(tmp_path: Path) -> None:
    calls: list[int] = []
    loop = _loop(tmp_path, calls, accumulate=2)
    loop.run(progress=False)
    assert len(calls) == 8 and loop.average.state_dict()["updates"] == 4


def test_a_non_finite_average_is_not_saved(tmp_path: Path) -> None:
    loop = _loop(tmp_path, [])
    loop.run(progress=False)
    loop.average.state_dict()["averages"]["head.weight"][0] = float("nan")
    with pytest.raises(NonFiniteLoss, match=r"the average of student\.head\.weight not finite"):
        loop.save()


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_a_mask_of_minus_infinity_is_kept_and_saved(decay: float, tmp_path: Path) -> None:
    mask = torch.tensor([0.0, -torch.inf])
    loop = _loop(tmp_path, [], mask=mask.clone(), average=decay)
    loop.run(progress=False)
    loop.save()
    assert torch.equal(loop.distiller.student.get_buffer("mask"), mask)
    loop.distiller.student.get_parameter("head.bias").data[0] = torch.inf
    with pytest.raises(NonFiniteLoss, match=r"step 4: student\.head\.bias not finite"):
        loop.save()


def test_a_compiled_student_is_averaged_as_the_plain_one(tmp_path: Path) -> None:
    torch.compiler.reset()
    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        network: Any = Tiny(6, aux=False)
        student = torch.compile(network, backend="eager") if compiled else network
        average = WeightAverage(student, DECAY)
        for _ in range(2):
            with torch.no_grad():
                network.head.weight += 1
            average.update()
        with average.applied():
            found.append(student(batch()[0]).detach())
    torch.testing.assert_close(found[0], found[1])


def test_two_processes_save_the_average_that_they_measure(tmp_path: Path) -> None:
    training = {"steps": 4, "batch": 4, "average": 0.9}
    recipe = small.write(tmp_path / "recipe.yaml", train=training)
    command = ["train", str(recipe), "--out", str(tmp_path / "run")]
    processes.run_two(tmp_path / "log", main, command)
    run = RunFolder(tmp_path / "run")
    data = build_dataset("synthetic", split="val", size=(32, 48), count=6)
    figures = run.evaluation()
    assert figures is not None
    assert evaluate(load_run_model(run), data).confusion.tolist() == figures["confusion"]


def test_the_same_average_whatever_is_evaluated_in_between(tmp_path: Path) -> None:
    for name, every in (("often", 1), ("once", 0)):
        training = {"average": 0.9, "val_every": every}
        train(small.recipe(train=training, out=str(tmp_path / name)), progress=False)
    _assert_same_weights(tmp_path / "often", tmp_path / "once")


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_a_decay_out_of_range_is_refused(decay: float, tmp_path: Path) -> None:
    recipe = small.recipe(out=str(tmp_path / "run"))
    recipe.train.average = decay
    with pytest.raises(
        ValueError, match=r"train\.average is .*; expected a decay from 0 to 0.999999"
    ):
        train(recipe, progress=False)
