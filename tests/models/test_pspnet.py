"""The paper's networks: parameters and multiply-adds to the last digit, and their layers."""

import pytest
import timm
import torch
from torch import nn

from segdistill.models import build_model


def _convolution_macs(model: nn.Module) -> tuple[int, float]:
    """Multiply-adds of all Conv2d at 512×1024, auxiliary head included; and half the bias adds."""
    products, biases = 0, 0.0

    def count(layer, _, out):
        nonlocal products, biases
        products += out.numel() * layer.weight[0].numel()
        biases += out.numel() / 2 if layer.bias is not None else 0

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    model.aux.register_forward_hook(lambda *_: None)
    model.eval()(torch.empty(1, 3, 512, 1024, device="meta"))
    return products, biases


@pytest.mark.parametrize(
    ("name", "parameters", "published_millions", "gmacs", "published_gmacs"),
    [
        ("pspnet_r18", 13_068_262, "13.07", 125.832, "125.8"),
        ("pspnet_r18_half", 3_271_686, "3.27", 31.525, "31.5"),
        ("pspnet_r101", 70_437_350, "70.44", 574.932, "574.9"),
    ],
)
def test_counts_equal_the_papers(name, parameters, published_millions, gmacs, published_gmacs):
    with torch.device("meta"):
        model = build_model(name, 19)
    count = sum(p.numel() for p in model.parameters())
    assert count == parameters
    assert f"{count / 1e6:.2f}" == published_millions
    products, biases = _convolution_macs(model)
    assert round(products / 1e9, 3) == gmacs
    # The papers also count half of the bias adds, which the printed digit hides.
    assert f"{(products + biases) / 1e9:.1f}" == published_gmacs


@pytest.mark.parametrize(("classes", "parameters"), [(21, 13_068_778), (150, 13_102_060)])
def test_parameters_at_other_class_counts(classes, parameters):
    with torch.device("meta"):
        model = build_model("pspnet_r18", classes)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_parameters_part_by_part():
    with torch.device("meta"):
        model = build_model("pspnet_r18", 19)
    parts = {
        "encoder.layer1": 193_152,
        "encoder.layer2": 525_568,
        "encoder.layer3": 2_099_712,
        "encoder.layer4": 8_393_728,
        "psp": 1_443_072,
        "classifier": 2_451,
        "aux": 297_747,
    }
    for path, expected in parts.items():
        assert sum(p.numel() for p in model.get_submodule(path).parameters()) == expected, path


def test_maps_are_rounded_up():
    with torch.device("meta"):
        model = build_model("pspnet_r18_half", 19)
        out = model.eval()(torch.empty(1, 3, 512, 1024))
    assert out.shape[-2:] == (65, 129)


def test_released_features_are_the_features_after_channel_dropout():
    torch.manual_seed(0)
    model = build_model("pspnet_r18_half", 3, dropout=0.5).train()
    seen = {}
    for name in ("features", "features_released"):
        model.get_submodule(model.taps[name]).register_forward_hook(
            lambda _, __, out, name=name: seen.__setitem__(name, out)
        )
    model(torch.rand(2, 3, 65, 65))
    before, after = seen["features"], seen["features_released"]
    dropped = (after == 0).flatten(2).all(-1)
    assert 0.2 < dropped.float().mean() < 0.8
    # What stays is scaled by 1 / (1 - 0.5).
    torch.testing.assert_close(after[~dropped], 2 * before[~dropped])


def test_published_deep_stem_weights_fit_by_name_and_shape(monkeypatch):
    # timm offers ImageNet weights for resnet50s and resnet101s; names do not depend on depth.
    whole = timm.create_model("resnet50s").eval()
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: whole)
    model = build_model("pspnet_r50", 2, weights="imagenet")
    report = model.weights_report
    assert report.complete
    assert report.left_out == ["fc.bias", "fc.weight"]
    assert len(report.matched) == len(whole.state_dict()) - 2
    # Same weights, same numbers: of an odd size the two are one network up to stride 4.
    x = torch.rand(1, 3, 65, 65)
    with torch.no_grad():
        stem = whole.maxpool(whole.act1(whole.bn1(whole.conv1(x))))
        torch.testing.assert_close(model.encoder.eval()(x)[0], whole.layer1(stem))


def test_imagenet_weights_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match=r"nobody offers ImageNet weights.*pspnet:resnet18"):
        build_model("pspnet_r18", 19, weights="imagenet")


def test_deep_stem_file_reports_what_it_left_out(tmp_path):
    encoder = build_model("pspnet_r18_half", 2).encoder
    state = {f"module.{k}": v for k, v in encoder.state_dict().items()}
    state |= {"module.fc.weight": torch.zeros(1000, 256), "module.fc.bias": torch.zeros(1000)}
    torch.save({"state_dict": state}, tmp_path / "backbone.pth")
    model = build_model("pspnet_r18_half", 5, weights=str(tmp_path / "backbone.pth"))
    assert model.weights_report.complete
    assert model.weights_report.left_out == ["fc.bias", "fc.weight"]
    assert torch.equal(model.encoder.conv1.weight, encoder.conv1.weight)
    assert "weights" not in model.spec["options"]


def test_learns_from_scratch_in_a_few_steps():
    torch.manual_seed(0)
    model = build_model("pspnet:mobilenetv3_small_050", 2, output_stride=16, dropout=0.0).train()
    images = torch.rand(4, 3, 65, 65) * 0.2
    labels = torch.zeros(4, 65, 65, dtype=torch.long)
    images[:, 0, :, 32:] += 0.8
    labels[:, :, 32:] = 1
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(12):
        logits = nn.functional.interpolate(
            model(images), labels.shape[-2:], mode="bilinear", align_corners=True
        )
        loss = nn.functional.cross_entropy(logits, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(0.69, abs=0.1)
    assert losses[-1] < 0.35


def test_trains_under_bfloat16_autocast():
    torch.manual_seed(0)
    model = build_model("pspnet_r18_half", 3, dropout=0.0).train()
    x = torch.rand(2, 3, 65, 65)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(x)
    assert half.dtype == torch.bfloat16
    half.float().pow(2).mean().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())
    # bfloat16 keeps 8 bits, and batch norm over few positions magnifies: alike, not equal.
    full = model(x)
    similarity = nn.functional.cosine_similarity(half.float().flatten(), full.flatten(), dim=0)
    assert float(similarity.detach()) > 0.97
