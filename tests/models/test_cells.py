"""Where networks say that their cells lie, against what the cells really read."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segdistill.distillation.taps import Taps
from segdistill.geometry import Cells, tap_cells
from segdistill.models import build_model, wrap
from segdistill.models.foreign.relabelled import Relabelled
from segdistill.models.foreign.resampled import ResampledInput

# Name, options, taps, and how far off the centre may be, in cells.
DECLARING = [
    ("pspnet_r18_half", {}, ["logits", "features", "aux", "layer1", "layer4"], 0.05),
    ("pspnet:mobilenetv2_050", {"output_stride": 8}, ["layer1", "layer2"], 0.05),
    ("pspnet:resnet18", {"output_stride": 16, "aux": False}, ["features", "layer1"], 0.05),
    ("ann_r101", {"layers": [1, 1, 1, 1], "width": 8}, ["layer1", "layer3"], 0.05),
    ("espnet", {"depth": [1, 1]}, ["logits_distilled", "features"], 0.05),
    ("espnet_c", {"depth": [1, 1]}, ["features"], 0.05),
    ("fcn8s_vgg16", {"width": 2}, ["features", "layer3", "layer4", "layer5"], 0.05),
    ("enet", {}, ["context"], 0.1),
    ("ddrnet23_slim", {"width": 8}, ["context"], 0.05),
    ("pidnet_s", {"width": 8}, ["context"], 0.05),
    ("stdc1", {"width": 16}, ["features", "layer1", "layer3"], 0.05),
    # Beside each 3×3, centred on even pixels, a 2×2 pool is centred between two.
    ("erfnet", {}, ["context"], 0.15),
]
SIZE = (32, 320)


def _mean_pool(x, kernel, stride=None, padding=0, dilation=1, ceil_mode=False, **_):
    return F.avg_pool2d(x.masked_fill(x.isinf(), 0), kernel, stride, padding, ceil_mode)


def _levelled(model: nn.Module) -> nn.Module:
    """The same network with equal weights, so that a cell's gradient shows what it reads and how often."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()
        if isinstance(layer, nn.PReLU):
            nn.init.ones_(layer.weight)
    return model.eval()


def _centre_read(value: torch.Tensor, images: torch.Tensor) -> float:
    """Column around which the pixels lie that a value depends on most."""
    (gradient,) = torch.autograd.grad(value, images, retain_graph=True)
    read = gradient.double().abs().sum((0, 1, 2))
    # What global pooling adds is the same everywhere; the power leaves the core of the rest.
    read = ((read - read.min()) / read.max()) ** 4
    return float((read * torch.arange(len(read))).sum() / read.sum())


@pytest.mark.parametrize(
    ("name", "options", "taps", "off"), DECLARING, ids=[d[0] for d in DECLARING]
)
def test_cells_are_centred_where_they_are_declared(monkeypatch, name, options, taps, off) -> None:
    monkeypatch.setattr(F, "max_pool2d", _mean_pool)
    model = _levelled(build_model(name, 3, **options))
    images = torch.full((1, 3, *SIZE), 0.52, requires_grad=True)
    with Taps(model, {tap: model.taps[tap] for tap in taps}) as opened:
        model(images)
        tensors = opened.collect()
    for tap, tensor in tensors.items():
        assert tap in model.cells
        cells = tap_cells(model, tap, tuple(tensor.shape[-2:]), SIZE)
        middle = tensor.shape[-1] // 2
        for column in (middle, middle + 1):
            read = _centre_read(tensor[0, :, tensor.shape[-2] // 2, column].sum(), images)
            line = cells.columns
            assert abs(read - float(line.centres()[column])) <= off * line.stride, (tap, column)


@pytest.mark.parametrize(
    "name", ["pspnet:resnet18d", "pspnet:convnext_atto", "pspnet:tf_mobilenetv3_small_075"]
)
def test_encoders_whose_kernels_shift_what_they_read_declare_nothing(name) -> None:
    assert not build_model(name, 3, output_stride=32).cells


def test_logits_lie_where_align_corners_puts_them_but_for_a_pixel() -> None:
    model = build_model("pspnet_r18_half", 3)
    cells = tap_cells(model, "logits", (65, 65), (512, 512))
    assert cells == Cells.at((65, 65), (512, 512), 8)
    # 22 · 8 = 176, and the last of 180 pixels is 179: the rule that evaluation follows holds.
    cells = tap_cells(model, "logits", (23, 31), (180, 240))
    assert cells == Cells.by_corners((23, 31), (180, 240))
    assert tap_cells(model, "features", (23, 31), (180, 240)).rows.centres()[-1] == 176
    assert tap_cells(build_model("compact", 3), "features", (64, 64), (256, 256)).rows.offset == 1.5


def _net() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4, padding=1), nn.Conv2d(4, 5, 1))
    return wrap(net, 5, cells={"features": [4, 0]}, multiple_of=8)


def test_a_wrapped_network_is_told_its_cells() -> None:
    model = _net()
    assert model.cells == {"features": (4.0, 0.0)}
    assert tap_cells(model, "features", (8, 8), (32, 32)) == Cells.at((8, 8), (32, 32), 4)
    with pytest.raises(ValueError, match="cells names 'feature'; expected a tap"):
        wrap(_net().module, 5, cells={"feature": [4, 0]})


def test_a_relabelled_network_keeps_the_cells_of_its_own() -> None:
    model = Relabelled(_net(), [0, 0, 1, 1, 1], 2)
    assert tap_cells(model, "features", (8, 8), (32, 32)) == Cells.at((8, 8), (32, 32), 4)


def test_cells_of_a_resized_image_lie_where_that_shows_them() -> None:
    # 1.4 · 32 = 44.8, rounded to 45 and up to 48 pixels: 1.5 of them to a pixel of the image.
    model = ResampledInput(_net(), scale=1.4)
    cells = tap_cells(model, "features", (12, 12), (32, 32))
    centre = torch.arange(12, dtype=torch.float64) * 4
    torch.testing.assert_close(cells.rows.centres(), (centre + 0.5) / 1.5 - 0.5)
    assert tap_cells(model, "logits", (12, 12), (32, 32)) == Cells.by_corners(
        (12, 12), (32, 32), align_corners=False
    )
