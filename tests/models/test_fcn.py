"""FCN-8s: where its scores come to lie, how it upsamples, and weights of VGG16."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segdistill.models import build_model
from segdistill.models.networks.fcn import bilinear_upsampling


@pytest.mark.parametrize("stride", [2, 8])
def test_upsampling_starts_bilinear(stride):
    layer = bilinear_upsampling(3, stride)
    x = torch.randn(1, 3, 6, 7)
    half = stride // 2
    found = layer(x)[..., half:-half, half:-half]
    expected = F.interpolate(x, scale_factor=stride, mode="bilinear", align_corners=False)
    # At the border the transposed convolution meets zeros, interpolation repeats the edge.
    inner = (..., slice(stride, -stride), slice(stride, -stride))
    torch.testing.assert_close(found[inner], expected[inner])


@pytest.mark.parametrize("head", ["score_pool3", "score_pool4", "classifier"])
def test_what_is_scored_lies_where_the_image_is(head):
    torch.manual_seed(0)
    model = build_model("fcn8s_vgg16", 1, width=4).eval()
    with torch.no_grad():
        for name in ("score_pool3", "score_pool4", "classifier"):
            for parameter in model.get_submodule(name).parameters():
                parameter.fill_(1.0 if name == head else 0.0)
        for part in (model.encoder, model.fc6, model.fc7):
            for parameter in part.parameters():
                parameter.abs_()
    images = torch.rand(1, 3, 257, 257, requires_grad=True)
    middle = slice(121, 137)
    model(images)[..., middle, middle].sum().backward()
    reach = images.grad.abs().sum((0, 1))
    position = torch.arange(257.0)
    centre = [float((reach.sum(axis) @ position) / reach.sum()) for axis in (1, 0)]
    # Half a position of the stride at which the scores are.
    stride = {"score_pool3": 8, "score_pool4": 16, "classifier": 32}[head]
    assert centre == pytest.approx([128.5, 128.5], abs=stride / 2)


def test_weights_of_vgg16_fit_and_the_linear_layers_become_convolutions(tmp_path):
    torch.manual_seed(0)
    source = build_model("fcn8s_vgg16", 2, width=4)
    linear = nn.Linear(32 * 49, 256)
    state = {f"features.{k}": v for k, v in source.encoder.state_dict().items()}
    state |= {f"classifier.0.{k}": v for k, v in linear.state_dict().items()}
    state |= {"classifier.3.weight": torch.randn(256, 256), "classifier.3.bias": torch.randn(256)}
    state |= {"classifier.6.weight": torch.randn(1000, 256), "classifier.6.bias": torch.zeros(1000)}
    torch.save(state, tmp_path / "vgg16.pth")
    model = build_model("fcn8s_vgg16", 5, width=4, weights=str(tmp_path / "vgg16.pth"))
    assert model.weights_report.complete
    assert model.weights_report.left_out == ["classifier.6.bias", "classifier.6.weight"]
    assert torch.equal(model.encoder[0].weight, source.encoder[0].weight)
    x = torch.rand(1, 32, 7, 7)
    torch.testing.assert_close(model.fc6(x).flatten(1), linear(x.flatten(1)).relu())
    with pytest.raises(ValueError, match=r"the weights do not fit .* of another shape"):
        build_model("fcn8s_vgg16", 5, width=8, weights=str(tmp_path / "vgg16.pth"))
