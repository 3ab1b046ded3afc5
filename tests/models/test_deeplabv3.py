"""DeepLabV3 as CIRKD released it."""

import pytest
import torch

from segdistill.models import build_model


def test_maps_are_rounded_down_as_in_cirkd():
    with torch.device("meta"):
        out = build_model("deeplabv3_r18", 19).eval()(torch.empty(1, 3, 512, 1024))
    assert out.shape == (1, 19, 64, 128)


def test_a_dilated_layer_begins_with_half_of_its_dilation():
    with torch.device("meta"):
        r18, r101 = (build_model(f"deeplabv3_{name}", 3).encoder for name in ("r18", "r101"))
        skd = build_model("pspnet_r18", 3).encoder
    dilations = [(b.conv1.dilation[0], b.conv2.dilation[0]) for b in (*r18.layer3, *r18.layer4)]
    assert dilations == [(1, 2), (2, 2), (2, 4), (4, 4)]
    assert [b.conv2.dilation[0] for b in r101.layer4] == [2, 4, 4]
    assert [b.conv1.dilation[0] for b in (*skd.layer3, *skd.layer4)] == [2, 2, 4, 4]


def test_a_deep_stem_file_fits(tmp_path):
    encoder = build_model("deeplabv3_r18", 2).encoder
    torch.save(encoder.state_dict(), tmp_path / "backbone.pth")
    model = build_model("deeplabv3_r18", 3, weights=str(tmp_path / "backbone.pth"))
    assert model.weights_report.complete
    assert torch.equal(model.encoder.conv1.weight, encoder.conv1.weight)
    with pytest.raises(ValueError, match="nobody offers ImageNet weights"):
        build_model("deeplabv3_r18", 3, weights="imagenet")
