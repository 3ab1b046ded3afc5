"""An exported file predicts the same classes as evaluation, at any size, and describes itself."""

from functools import cache
from inspect import signature

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segdistill.models import MODELS, build_model, wrap
from segdistill.models.layers.resnet import BasicBlock, DeepStemResNet
from segdistill.models.networks.pspnet import PSPNet
from segdistill.run.evaluation.protocol import Protocol, evaluating
from segdistill.run.evaluation.showing import segment
from segdistill.run.shipping.onnx_file import (
    Deployed,
    FileInfo,
    OnnxNetwork,
    antialiased,
    file_info,
    onnx_bytes,
)
from tests.distillation.networks import Tiny

CLASSES = ["road", "car", "sky"]
PALETTE = [(1, 2, 3), (4, 5, 6), (7, 8, 9)]
ODD = ((33, 47), (64, 50), (21, 90))


def tiny(multiple_of: int = 1, align_corners: bool = False) -> nn.Module:
    torch.manual_seed(0)
    model = Tiny(6).eval()
    model.multiple_of, model.align_corners = multiple_of, align_corners
    return model


def info(model: nn.Module, size=None, resize=True, argmax=False) -> FileInfo:
    return file_info(model, CLASSES, PALETTE, size, resize, argmax)


def photo(size: tuple[int, int], batch: int = 1) -> Tensor:
    """Smooth, so that few pixels lie where two classes are equally likely."""
    torch.manual_seed(sum(size))
    return nn.functional.interpolate(torch.rand(batch, 3, 5, 7), size, mode="bilinear")


def seen(model: nn.Module, image: Tensor, size=None) -> Tensor:
    with evaluating(model):
        return segment(model, {"image": image[0]}, Protocol(size=size))


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("multiple_of", [1, 8])
@pytest.mark.parametrize("size", [None, (32, 48), (29, 41)])
def test_an_exported_file_predicts_the_classes_of_evaluation(
    size, multiple_of, align_corners
) -> None:
    model = tiny(multiple_of, align_corners)
    deployed = Deployed(model, info(model, size, argmax=True))
    for shape in ODD:
        image = photo(shape)
        with torch.no_grad():
            labels = deployed(image)
        assert labels.dtype == torch.uint8
        agreement = float((labels[0] == seen(model, image, size)).float().mean())
        assert agreement > 0.9995  # sums in another order, where two classes are equally likely


@pytest.mark.parametrize("size", [(24, 40), (27, 43)])
def test_logits_of_the_images_size_are_resized_as_in_evaluation(size) -> None:
    torch.manual_seed(0)
    model = nn.Conv2d(3, 3, 3, padding=1)
    model.multiple_of, model.align_corners = 8, True
    image = photo((64, 50))
    with torch.no_grad():
        labels = Deployed(model, info(model, size, argmax=True))(image)
    assert float((labels[0] == seen(model, image, size)).float().mean()) > 0.9995


@cache
def _exported(
    size: tuple[int, int] | None, resize: bool, argmax: bool, multiple_of: int
) -> tuple[nn.Module, Deployed, bytes]:
    model = tiny(multiple_of, align_corners=True)
    deployed = Deployed(model, info(model, size, resize, argmax))
    return model, deployed, onnx_bytes(deployed, 18)


@pytest.mark.parametrize(
    ("size", "resize", "argmax", "multiple_of"),
    [
        (None, True, False, 8),
        pytest.param((32, 48), True, True, 1, marks=pytest.mark.slow),
        ((29, 41), True, True, 8),
        (None, False, False, 8),
    ],
    ids=["logits", "labels at the run's size", "rounded up", "raw logits"],
)
def test_the_file_matches_pytorch_at_sizes_it_was_not_traced_at(
    size, resize, argmax, multiple_of
) -> None:
    model, deployed, content = _exported(size, resize, argmax, multiple_of)
    network = OnnxNetwork(content, threads=1)
    for batch, shape in enumerate(ODD, 1):
        images = photo(shape, batch)
        (answer,) = network.session.run(None, {"images": images.numpy()})
        with torch.no_grad():
            expected = deployed(images)
        # 1e-4: other kernels sum in another order; a class id differs by 1 or not at all.
        torch.testing.assert_close(torch.from_numpy(answer), expected, atol=1e-4, rtol=1e-4)
        # Through evaluation's own protocol, which pads and resizes where the file does not.
        image = images[:1]
        same = seen(network, image, network.size) == seen(model, image, size)
        assert float(same.float().mean()) > 0.9995


def test_a_file_without_resizing_has_the_size_of_the_network() -> None:
    model = tiny()
    content = onnx_bytes(Deployed(model, info(model, (32, 48), resize=False, argmax=True)), 23)
    network = OnnxNetwork(content)
    assert network.session.get_inputs()[0].shape == ["batch", 3, 32, 48]
    assert network.session.get_outputs()[0].type == "tensor(uint8)"
    assert network.size == (32, 48)
    assert onnx.load_from_string(content).opset_import[0].version == 23
    assert network(torch.rand(1, 3, 32, 48)).shape == (1, 3, 8, 12)


def test_a_file_of_fixed_size_pads_internally() -> None:
    model = tiny(multiple_of=32)
    deployed = Deployed(model, info(model, (45, 59), resize=False))
    network = OnnxNetwork(onnx_bytes(deployed, 18))
    image = photo((45, 59))
    with torch.no_grad():
        torch.testing.assert_close(network(image), deployed(image), atol=1e-4, rtol=1e-4)
    assert network(image).shape == (1, 3, 16, 16), "64x64 at the head's stride"
    for shape in ODD:
        image = photo(shape)
        same = seen(network, image, network.size) == seen(model, image, network.size)
        assert float(same.float().mean()) > 0.9995
    with pytest.raises(ValueError, match=r"is \[1, 3, 32, 32\]; expected .* 45, 59") as caught:
        network(photo((32, 32)))
    assert "\n" not in str(caught.value)


@pytest.fixture
def content() -> bytes:
    return _exported(None, True, False, 8)[2]


def test_the_file_holds_its_description_and_no_traces(content: bytes) -> None:
    network = OnnxNetwork(content)
    assert network.info == info(tiny(8, align_corners=True))
    assert network.session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    graph = onnx.load_from_string(content).graph
    assert not [entry.name for entry in graph.initializer if "aux" in entry.name]
    assert b"segdistill/run" not in content, "no paths of the machine that exported"


def test_unreadable_files_are_refused_in_one_line(content: bytes, tmp_path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"onnxruntime cannot read .*broken.onnx") as caught:
        OnnxNetwork(broken)
    assert "\n" not in str(caught.value)
    model = onnx.load_from_string(content)
    model.ClearField("metadata_props")
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(ValueError, match="expected a file written by `segdistill export`"):
        OnnxNetwork(tmp_path / "foreign.onnx")


class ByValue(nn.Module):
    """Branches on the values of the image, which an exporter cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        if images.mean() > 0.5:
            images = -images
        logits: Tensor = self.head(self.body(images))
        return logits


def test_a_network_that_cannot_be_exported_is_refused_in_one_line() -> None:
    model = wrap(ByValue(), 3).eval()
    message = r"ByValue cannot be exported with dynamic height and width \(.*\). Fix the size"
    with pytest.raises(ValueError, match=message) as caught:
        onnx_bytes(Deployed(model, info(model)), 18)
    assert "\n" not in str(caught.value)


def _check_exported(model: nn.Module) -> None:
    deployed = Deployed(model.eval(), info(model))
    network = OnnxNetwork(onnx_bytes(deployed, 18), threads=1)
    for size in ((65, 97), (96, 131), (128, 90)):
        images = photo(size, 2)
        with torch.no_grad():
            expected = deployed(images)
        answer = network(images)
        # Random weights give logits of any size, so their error is compared with their spread.
        assert float((answer - expected).abs().max()) < 1e-3 * float(expected.std()) + 1e-5
        assert float((answer.argmax(1) == expected.argmax(1)).float().mean()) > 0.999


@pytest.mark.parametrize(
    "name",
    [
        # A quick run exports `compact` in tests of channels and of the quickstart.
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("compact", "pspnet", "deeplabv3plus")
    ],
)
def test_a_network_exports_with_free_height_and_width(name: str) -> None:
    torch.manual_seed(0)
    if name == "compact":
        _check_exported(build_model(name, 3, width=4, depth=1))
    elif name == "pspnet":
        _check_exported(PSPNet(DeepStemResNet(BasicBlock, (1, 1, 1, 1), width=4), 3))
    else:
        _check_exported(build_model("deeplabv3plus:resnet10t", 3, head_width=16, skip_width=8))


_ENCODER = {"deeplabv3plus": "mobilenetv3_small_050"}
_FURTHER = ["pspnet:mobilenetv3_small_050", "deeplabv3plus:tf_efficientnet_lite0"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*MODELS, *_FURTHER])
def test_every_listed_network_exports(name: str) -> None:
    if name in MODELS and "encoder" in signature(MODELS[name]).parameters:
        name += f":{_ENCODER.get(name, 'resnet10t')}"
    torch.manual_seed(0)
    model = build_model(name, 3)
    if sum(p.numel() for p in model.parameters()) > 20e6:
        pytest.skip("the layers of a smaller one, many times over")
    _check_exported(model)


@pytest.mark.parametrize(
    ("old", "new"),
    [((32, 48), (24, 40)), ((25, 37), (24, 41)), ((20, 30), (24, 40)), ((33, 64), (8, 8))],
)
def test_resizing_by_matrices_equals_pytorchs(old: tuple[int, int], new: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 3, *old)
    expected = F.interpolate(x, new, mode="bilinear", antialias=True)
    torch.testing.assert_close(antialiased(x, new), expected, rtol=0, atol=1e-6)
