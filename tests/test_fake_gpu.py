"""Networks, losses and distiller on fake GPU tensors, which have shapes and devices but no values.

An operation on tensors of two devices raises there as on a GPU, so nothing in a forward pass is made on the
wrong device. Values, gradients and speed are not tested, nor the steps whose sizes depend on values:
evaluation's plan of strips and the edges of `boundary`.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from segdistill.distillation.catalogue import METHODS, build_method
from segdistill.distillation.distiller import Distiller
from segdistill.distillation.taps import tap_paths
from segdistill.geometry import _matrix
from segdistill.losses import LOSSES, Loss
from segdistill.losses.inter_class import token_distances
from segdistill.models import MODELS, build_model
from segdistill.run.evaluation.evaluate import confusion_matrix
from tests.distillation.networks import Tiny, batch

CLASSES = 3
# What takes long to build and shares its code with a smaller one.
LARGE = {"espnetv2", "pspnet_mobilenet_v2"}
_BATCH_NORM = nn.modules.batchnorm._BatchNorm


@contextmanager
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorMode]:
    """Fake tensors. Which classes a batch shows depends on values, so all are taken to be there."""
    everything = "segdistill.losses.{}.present_classes"
    for loss in ("inter_class", "intra_class"):
        monkeypatch.setattr(
            everything.format(loss), lambda labels: torch.arange(CLASSES, device=labels.device)
        )
    # What is kept between steps would be fake for later tests.
    _matrix.cache_clear()
    try:
        with (
            FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=False) as mode,
            torch.no_grad(),
        ):
            yield mode
    finally:
        _matrix.cache_clear()


def on_gpu(module: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """The module with fake GPU tensors in place of its own; `Module.to` cannot exchange these."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(_moved(parameter, mode), requires_grad=False)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = _moved(buffer, mode)
    return module


def _moved(tensor: Tensor, mode: FakeTensorMode) -> Tensor:
    return mode.from_tensor(tensor, static_shapes=True).detach().to("cuda")


def test_a_tensor_on_the_wrong_device_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lost(Loss):
        def forward(self, student: Tensor) -> Tensor:
            return (student + torch.ones(4)).mean()

    with fake_gpu(monkeypatch), pytest.raises(RuntimeError, match="at least two devices"):
        Lost()(torch.randn(2, 3, 4, 4, device="cuda"))


def _encoder(name: str) -> str:
    return ":resnet18" if "encoder" in inspect.signature(MODELS[name]).parameters else ""


def _size(name: str) -> list[object]:
    large = name in LARGE or "101" in name or "50" in name
    return [pytest.param(name, marks=pytest.mark.slow if large else ())]


@pytest.mark.parametrize("name", [one for name in MODELS for one in _size(name)])
def test_networks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model(name + _encoder(name), CLASSES)
    with fake_gpu(monkeypatch) as mode:
        images = torch.rand(2, 3, 128, 128, device="cuda")
        on_gpu(model, mode)
        for training in (True, False):
            logits = model.train(training)(images)
            assert logits.device.type == "cuda" and logits.shape[:2] == (2, CLASSES)


FORMS = [(name, form) for name, loss in LOSSES.items() for form in loss.forms]


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_losses(name: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "boundary":
        pytest.skip("its edges are counted by index, whose sizes depend on values")
    loss = LOSSES[name](**({"form": form} if len(LOSSES[name].forms) > 1 else {}))
    shape = torch.Size([2, CLASSES, 12, 16])
    loss.build(shape, shape)
    loss.prepare([(torch.randn(shape), torch.randn(shape)) for _ in range(4)])
    for value in ("_off", "_check_prepared"):
        # Whether a term is switched off is asked of a buffer.
        if hasattr(loss, value):
            monkeypatch.setattr(loss, value, False if value == "_off" else lambda: None)
    with fake_gpu(monkeypatch) as mode:
        on_gpu(loss, mode)
        given = {
            "student": torch.randn(shape, device="cuda"),
            "teacher": torch.randn(shape, device="cuda"),
            "labels": torch.randint(0, CLASSES, (2, 48, 64), device="cuda"),
            "images": torch.rand(2, 3, 48, 64, device="cuda"),
        }
        names = inspect.signature(loss.forward).parameters
        value = loss(**{name: given[name] for name in names})
    assert value.device.type == "cuda" and value.shape == ()


def test_distances_of_many_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_gpu(monkeypatch):
        distances = token_distances(torch.randn(2, 150, 64, device="cuda"))
    assert distances.device.type == "cuda" and distances.dtype == torch.float32
    assert distances.shape == (2, 150, 150)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "bpkd"])
def test_distiller(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of other widths and grids, so that maps are projected and resampled."""
    student, teacher = Tiny(4, CLASSES, stride=8), Tiny(6, CLASSES)
    images, labels = batch((64, 64))
    chosen = build_method(method, CLASSES)
    distiller = Distiller(student, chosen, teacher if chosen.needs_teacher else None)
    distiller.dry_pass(images)
    distiller.prepare([images] * 4)
    for term in chosen.terms.values():
        for value in ("_off", "_check_prepared"):
            if hasattr(term.loss, value):
                monkeypatch.setattr(term.loss, value, False if value == "_off" else lambda: None)
    hidden = distiller._hidden
    with fake_gpu(monkeypatch) as mode:
        on_gpu(distiller, mode)
        for network in hidden:
            on_gpu(network, mode)
        values = distiller(_moved(images, mode), _moved(labels, mode))
    assert values and all(value.device.type == "cuda" for value in values.values())


def test_confusion_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_gpu(monkeypatch):
        label, classes = (torch.randint(0, CLASSES, (8, 9), device="cuda") for _ in range(2))
        counted = confusion_matrix(label, classes, CLASSES)
    assert counted.device.type == "cuda" and counted.shape == (CLASSES, CLASSES)


@pytest.mark.parametrize("name", sorted(set(MODELS) - LARGE))
def test_a_student_is_the_same_with_its_norms_synchronised(name: str) -> None:
    """Over several GPUs every batch norm of a student is converted; names, shapes and taps are kept."""
    with torch.device("meta"):
        student = build_model(name + _encoder(name), CLASSES)
    before = {key: value.shape for key, value in student.state_dict().items()}
    norms = {path for path, part in student.named_modules() if isinstance(part, _BATCH_NORM)}
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(student)
    parts = dict(converted.named_modules())
    assert norms or name == "fcn8s_vgg16"  # which has none
    assert {path for path in parts if isinstance(parts[path], nn.SyncBatchNorm)} == norms
    assert {key: value.shape for key, value in converted.state_dict().items()} == before
    assert {path.partition(":")[0] for path in tap_paths(converted).values()} <= parts.keys()
    assert not {
        hook for part in parts.values() for hook in (*part._forward_hooks, *part._forward_pre_hooks)
    }, "hooks on a norm would be lost"
