"""Networks by name for images of other channels than RGB."""

import pytest
import timm
import torch

from segdistill.models import build_model
from tests.models.test_adapters import SEGFORMER

NETWORKS = {
    "compact": {"width": 4},
    "pspnet:resnet18": {"output_stride": 32},
    "deeplabv3plus:resnet18": {"head_width": 16},
    "refinenet:resnet18": {"head_width": 16},
    "smp:Unet": {"encoder_name": "resnet18"},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_it_reads_them_and_rebuilds_from_its_spec(name):
    own = {"mean": [0.1, 0.2, 0.3, 0.4, 0.5], "std": [0.2] * 5}
    for given in ({}, {"input": "none"}, {"input": own}):
        model = build_model(name, 3, in_channels=5, **NETWORKS[name], **given).eval()
        assert model.in_channels == 5
        assert model(torch.rand(1, 5, 64, 64)).shape[:2] == (1, 3)
        again = build_model(model.spec["name"], 3, **model.spec["options"])
        assert again.input.spec == model.input.spec
        if not given:
            assert model.input.spec["mean"] == pytest.approx([0.449] * 5)
            assert model.input.spec["std"] == pytest.approx([0.226] * 5)
    with pytest.raises(
        ValueError, match=r"images have the shape \(1, 3, 64, 64\); expected b 5 h w"
    ):
        model(torch.rand(1, 3, 64, 64))


def test_segformer_says_it_in_its_own_word():
    model = build_model("hf:segformer", 3, num_channels=4, **SEGFORMER).eval()
    assert model.in_channels == 4
    assert model(torch.rand(1, 4, 64, 64)).shape[:2] == (1, 3)


@pytest.mark.parametrize("name", ["compact", "pspnet:resnet18"])
def test_an_input_of_other_channels_is_refused(name):
    rgb = {"mean": [0.5] * 3, "std": [0.5] * 3}
    with pytest.raises(ValueError, match=r"a mean for 3 channels; expected 4 \(in_channels\)"):
        build_model(name, 3, in_channels=4, input=rgb)


def test_a_file_of_weights_must_have_the_channels(tmp_path):
    path = tmp_path / "rgb.pth"
    torch.save(timm.create_model("resnet18").state_dict(), path)
    with pytest.raises(ValueError, match=r"conv1\.weight"):
        build_model("pspnet:resnet18", 3, in_channels=4, weights=str(path))
