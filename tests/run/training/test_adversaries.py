"""The steps of critics: order, exactness, state, processes."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file

from segdistill.config import TrainConfig
from segdistill.distillation.catalogue import build_method
from segdistill.distillation.distiller import Distiller
from segdistill.losses import HolisticKD
from segdistill.run.folder import RunFolder
from segdistill.run.reporting import charts
from segdistill.run.reporting.report import summarise
from segdistill.run.training.checkpoint import load_checkpoint
from segdistill.run.training.loop import Loop, _mix
from segdistill.run.training.train import train
from tests.distillation.networks import Tiny, batch
from tests.run import ranks, small
from tests.run.processes import run_two


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return small.teacher(tmp_path_factory.mktemp("teacher") / "run", **small.FINE)


def _distiller(**options: Any) -> Distiller:
    """Cross-entropy and a critic, without its own way of normalising over the batch."""
    torch.manual_seed(0)
    terms = {"holistic": {"weight": 0.5, "options": options}, "cross_entropy_aux": {"weight": 0}}
    method = build_method("supervised", 3, terms=terms)
    distiller = Distiller(Tiny(6, stride=2, aux=False), method, Tiny(9, stride=2))
    distiller.dry_pass(batch()[0])
    return distiller


def _loop(distiller: Distiller, folder: Path, **changes: Any) -> Loop:
    images, labels = batch(images=4)
    loaded = {
        "image": images,
        "label": labels,
        "name": list("abcd"),
        "labelled": torch.ones(4, dtype=torch.bool),
    }
    config = TrainConfig(**{"steps": 3, "lr": 0.1, "log_every": 1, **changes})
    fabric = Fabric(accelerator="cpu", devices=1)
    return Loop(fabric, distiller, config, folder, lambda start: iter([loaded] * 3))


def test_the_critic_steps_after_the_student_on_its_old_logits(tmp_path: Path) -> None:
    """Three steps of the loop, compared with the same three written with two plain optimizers."""
    distiller = _distiller(form="skd", lr=0.01)
    twin = _distiller(form="skd", lr=0.01)
    twin.close()
    _loop(distiller, tmp_path, momentum=0.0, weight_decay=0.01).run(progress=False)

    student, loss, aligned = twin.student, twin.losses["holistic"], twin.alignments["holistic"]
    task, objective = twin.losses["cross_entropy"], loss.adversary
    mine = torch.optim.SGD(student.parameters(), lr=0.1, weight_decay=0.01)
    theirs = torch.optim.SGD(objective.parameters(), lr=0.01, momentum=0.9, weight_decay=0.01)
    images, labels = batch(images=4)
    for step in range(3):
        mine.param_groups[0]["lr"] = 0.1 * (1 - step / 3) ** 0.9
        theirs.param_groups[0]["lr"] = 0.01 * (1 - step / 3) ** 0.9
        with torch.no_grad():
            target = twin.teacher(images)
        logits, target = aligned(student(images), target)
        (task(logits, labels) + 0.5 * loss(logits, target)).backward()
        mine.step()
        mine.zero_grad()
        assert all(p.grad is None for p in objective.parameters())
        # The penalty draws random numbers; nothing else in a step of these networks does.
        torch.manual_seed(_mix(0, step, 0))
        objective.requires_grad_(True)
        (0.1 * objective(logits.detach(), target)).backward()
        theirs.step()
        theirs.zero_grad()
        objective.requires_grad_(False)
    pairs = zip(distiller.state_dict().items(), twin.state_dict().values(), strict=True)
    for (key, value), wanted in pairs:
        torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-6, msg=key)


def test_the_critic_is_left_out_of_the_students_optimiser_and_clipping(tmp_path: Path) -> None:
    distiller = _distiller()
    loop = _loop(distiller, tmp_path, clip=1e-9)
    critic = {id(p) for p in distiller.losses["holistic"].parameters()}
    for group in loop.optimizer.param_groups:
        assert not critic & {id(p) for p in group["params"]}
    before = copy.deepcopy(distiller.state_dict())
    loop.run(progress=False)
    after = distiller.state_dict()
    last = "losses.holistic.adversary.critic.layers.6.weight"
    assert (after[last] - before[last]).abs().max() > 1e-4
    # Clipped to zero, the student changes only by its weight decay.
    torch.testing.assert_close(
        after["student.head.weight"], before["student.head.weight"], rtol=1e-3, atol=1e-6
    )


def test_accumulation_gives_the_critic_the_gradient_of_the_whole_batch(tmp_path: Path) -> None:
    images, labels = batch(images=4)
    gradients = []
    for count in (1, 2):
        twin = _distiller()
        loop = _loop(twin, tmp_path)
        twin.student.eval()  # batch statistics differ between parts
        twin.losses["holistic"].adversary.eval()  # and each part would iterate the kernels' norms
        for some_images, some_labels in zip(images.chunk(count), labels.chunk(count), strict=True):
            loop.module(some_images, some_labels)
        loop.adversaries.backward()
        gradients.append([p.grad for p in twin.losses["holistic"].parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("options", [{}, {"form": "skd"}, {"conditional": True}])
def test_a_non_finite_critic_stops_the_run(
    options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segdistill.losses.holistic import CriticObjective

    real = CriticObjective.forward
    monkeypatch.setattr(
        CriticObjective, "forward", lambda self, *a, **k: real(self, *a, **k) * float("nan")
    )
    distiller = _distiller(**options)
    before = copy.deepcopy(distiller.losses["holistic"].adversary.critic.layers[-1].weight)
    with pytest.raises(ValueError, match=r"step 1: holistic_adversary = nan on a, b, c, d"):
        _loop(distiller, tmp_path).run(progress=False)
    assert torch.equal(distiller.losses["holistic"].adversary.critic.layers[-1].weight, before)


def test_methods_without_an_adversary_have_no_adversaries(tmp_path: Path) -> None:
    torch.manual_seed(0)
    distiller = Distiller(Tiny(6), build_method("supervised", 3))
    distiller.dry_pass(batch()[0])
    loop = _loop(distiller, tmp_path)
    assert not loop.adversaries
    assert loop.adversaries.state_dict() == {}


def test_nothing_is_recorded_for_the_critic_outside_training(tmp_path: Path) -> None:
    distiller = _distiller()
    loop = _loop(distiller, tmp_path)
    distiller.eval()
    loop.module(*batch())
    assert all(not side.seen for side in loop.adversaries._sides.values())


def test_a_run_records_the_critic_and_ships_without_it(teacher: RunFolder, tmp_path: Path) -> None:
    recipe = small.recipe(**small.released(teacher.path), out=str(tmp_path / "run"))
    run = train(recipe, progress=False)
    rows = [row["terms"] for row in run.metrics() if row["kind"] == "train"]
    assert [row["holistic_adversary"]["weight"] for row in rows] == [0.1] * 3
    assert all(row["holistic_adversary"]["share"] is None for row in rows)
    assert all(row["holistic"]["share"] > 0 for row in rows)
    for row in [row for row in run.metrics() if row["kind"] == "train"]:
        own = {name: term for name, term in row["terms"].items() if name != "holistic_adversary"}
        assert row["total"] == pytest.approx(sum(t["value"] * t["weight"] for t in own.values()))
    shipped = load_file(run.path / "model.safetensors")
    assert shipped.keys() == load_file(teacher.path / "model.safetensors").keys()
    colours = {"skd:paper": charts.SERIES[0]}
    assert "holistic_adversary" in charts.term_curves(summarise([run]), colours)


def test_the_state_to_resume_from_holds_critic_and_optimiser(
    teacher: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segdistill.run.training.records.drop_checkpoints", lambda folder: None)
    recipe = small.recipe(**small.released(teacher.path, method="ifvd"), out=str(tmp_path / "run"))
    train(recipe, progress=False)
    state = load_checkpoint(tmp_path / "run")
    assert state["step"] == 6  # saved before the last evaluation
    moments = state["adversaries"]["holistic_adversary"]["state"]
    critic = [key for key in state["distiller"] if key.startswith("losses.holistic.adversary.")]
    buffers = ("_u", "_v", "running_mean", "running_var", "num_batches_tracked")
    assert len(moments) == len([key for key in critic if not key.endswith(buffers)])
    assert {float(entry["step"]) for entry in moments.values()} == {6.0}


def test_two_processes_hold_the_same_critic(teacher: RunFolder, tmp_path: Path) -> None:
    training = {"batch": 4, "steps": 2, "accumulate": 2}
    changes = small.released(teacher.path, train=training)
    recipe = small.write(tmp_path / "recipe.yaml", **changes)
    run_two(tmp_path / "log", ranks.train, recipe, tmp_path / "run")
    first, second = (torch.load(tmp_path / f"critic-{rank}.pt") for rank in (0, 1))
    loss = HolisticKD("skd")
    loss.build(torch.Size([2, small.CLASSES, 16, 24]), None)
    start = loss.state_dict()
    for name, _ in loss.named_parameters():
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0, msg=name)
    moved = [
        name for name, _ in loss.named_parameters() if not torch.equal(first[name], start[name])
    ]
    assert len(moved) > len(list(loss.parameters())) // 2
