"""The learning rates of a pretrained encoder and of the rest, on networks from anywhere."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segdistill.config import TrainConfig
from segdistill.distillation.catalogue import build_method
from segdistill.distillation.distiller import Distiller
from segdistill.models import build_model, encoders, network, wrap
from segdistill.run.training.records import show_groups
from segdistill.run.training.train import train
from segdistill.run.training.updates.optimizer import build_optimizer, parameter_groups
from tests.distillation.networks import Tiny
from tests.models.test_adapters import SEGFORMER
from tests.run import small


class Own(nn.Module):
    """A user's network."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(4, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(images))
        return logits


class Holder(nn.Module):
    """Only wraps another; its loss has no parameters."""

    def __init__(self, num_classes: int = 3, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.criterion = nn.CrossEntropyLoss()
        self.net = Own(num_classes) if inner is None else inner

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        return logits


def _compiled(module: nn.Module) -> Any:
    return torch.compile(module, backend="eager")


STUDENTS = {
    "own": (lambda: wrap(Own(), 3), "backbone."),
    "held": (lambda: wrap(Holder(), 3), "net.backbone."),
    "compiled, then wrapped": (lambda: wrap(_compiled(Own()), 3), "backbone."),
    "wrapped, then compiled": (lambda: _compiled(wrap(Own(), 3)), "backbone."),
    "held compiled": (lambda: wrap(Holder(3, _compiled(Own())), 3), "net._orig_mod.backbone."),
    "compiled, ours": (lambda: _compiled(build_model("pspnet:resnet18", 3)), "encoder."),
    "ours": (lambda: build_model("erfnet", 3), "encoder."),
    "smp": (lambda: build_model("smp:Unet", 3, encoder_name="resnet18"), "encoder."),
    "torchvision": (
        lambda: build_model("torchvision:lraspp_mobilenet_v3_large", 3),
        "backbone.",
    ),
    # Its encoder holds the patch embeddings, its base model everything but the head.
    "transformers": (lambda: build_model("hf:segformer", 3, **SEGFORMER), "segformer."),
    "held transformers": (
        lambda: wrap(Holder(3, network(build_model("hf:segformer", 3, **SEGFORMER))), 3),
        "net.segformer.",
    ),
}


@pytest.mark.parametrize("name", STUDENTS)
def test_the_encoder_keeps_the_learning_rate_and_all_else_is_multiplied(name: str) -> None:
    make, encoder = STUDENTS[name]
    student = make()
    distiller = Distiller(student, build_method("supervised", 3))
    config = TrainConfig(head_lr_factor=10.0)
    rates = {
        id(parameter): group["factor"]
        for group in parameter_groups(distiller, config)
        for parameter in group["params"]
    }
    named = dict(network(student).named_parameters())
    assert rates.keys() == {id(parameter) for parameter in named.values()}
    assert {rates[id(p)] for n, p in named.items() if n.startswith(encoder)} == {1.0}
    assert {rates[id(p)] for n, p in named.items() if not n.startswith(encoder)} == {10.0}


def test_a_factor_of_one_is_one_group_whatever_the_network() -> None:
    distiller = Distiller(Tiny(6), build_method("supervised", 3))
    (group,) = parameter_groups(distiller, TrainConfig())
    assert [id(p) for p in group["params"]] == [id(p) for p in distiller.parameters()]


class TwoParts(nn.Module):
    """Neither part says that it is the encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1)


def test_nothing_is_taken_for_an_encoder_by_its_place() -> None:
    assert encoders(TwoParts()) == []
    assert encoders(nn.Conv2d(3, 4, 1)) == []
    assert encoders(nn.ReLU()) == []


def test_a_factor_without_an_encoder_is_refused_before_training(tmp_path: Path) -> None:
    recipe = small.recipe(train={"head_lr_factor": 2.0}, out=str(tmp_path / "run"))
    with pytest.raises(
        ValueError, match="head_lr_factor is 2; expected 1, as Tiny has no submodule"
    ):
        train(recipe, progress=False)
    assert not (tmp_path / "run").exists()


def test_the_log_shows_the_groups_with_their_rates(caplog: pytest.LogCaptureFixture) -> None:
    distiller = Distiller(wrap(Own(), 3), build_method("supervised", 3))
    optimizer = build_optimizer(distiller, TrainConfig(lr=0.02, head_lr_factor=5.0))
    with caplog.at_level("INFO", logger="segdistill"):
        show_groups(optimizer.param_groups, 0.02)
    rows = [line.split() for line in caplog.text.replace("│", " ").splitlines()]
    assert ["encoder", "2", "112", "0.02"] in rows
    assert ["all", "others", "2", "15", "0.1"] in rows


def test_the_log_shows_what_is_frozen(caplog: pytest.LogCaptureFixture) -> None:
    student = wrap(Own(), 3)
    frozen = list(student.module.backbone.requires_grad_(False).parameters())
    optimizer = build_optimizer(Distiller(student, build_method("supervised", 3)), TrainConfig())
    with caplog.at_level("INFO", logger="segdistill"):
        show_groups(optimizer.param_groups, 0.01, frozen)
    rows = [line.split() for line in caplog.text.replace("│", " ").splitlines()]
    assert ["all", "2", "15", "0.01"] in rows
    assert ["frozen", "(student)", "2", "112", "-"] in rows


def test_a_run_shows_its_groups(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    student = {"model": f"{__name__}.Own"}
    training = {"steps": 1, "head_lr_factor": 3.0}
    recipe = small.recipe(student=student, train=training, out=str(tmp_path / "run"))
    with caplog.at_level("INFO", logger="segdistill"):
        train(recipe, progress=False)
    assert "What is trained" in caplog.text
    assert "0.15" in caplog.text
