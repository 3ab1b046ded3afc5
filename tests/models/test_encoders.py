"""timm encoders: levels, names, and weights from files; the real files with SEGDISTILL_DATA."""

import os
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from segdistill.models import build_model
from segdistill.models.files.backbone_keys import recognise, renamed
from segdistill.models.files.weights import read_weights
from segdistill.models.input import make_input
from segdistill.models.layers.encoders import TimmEncoder

ENCODERS = [
    "mobilenetv3_small_050",
    "mobilenetv2_050",
    "efficientnet_lite0",
    "resnet18",
    "regnetx_002",
]


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_levels_are_where_they_say(name, output_stride):
    encoder = TimmEncoder(name, output_stride).eval()
    with torch.no_grad():
        levels = encoder(torch.rand(1, 3, 65, 97))
    assert encoder.reductions[-1] == output_stride
    assert len(levels) == len(encoder.channels)
    for level, channels, stride in zip(levels, encoder.channels, encoder.reductions, strict=True):
        assert level.shape[1:] == (channels, -(-65 // stride), -(-97 // stride))


def test_normalisation_follows_the_encoder_unless_told():
    model = build_model("pspnet:tf_efficientnet_lite0", 2, output_stride=32)
    assert model.input.spec["mean"] == [0.5, 0.5, 0.5]
    model = build_model("pspnet:tf_efficientnet_lite0", 2, output_stride=32, input="caffe_bgr")
    assert model.input.spec["order"] == "bgr"


def test_unknown_encoder_names_the_nearest():
    with pytest.raises(ValueError, match=r"'mobilenetv3_smal_050'; nearest: mobilenetv3_small_050"):
        build_model("pspnet:mobilenetv3_smal_050", 2)


@pytest.mark.parametrize(
    ("name", "stride", "message"),
    [
        ("vit_tiny_patch16_224", 8, r"cannot build encoder 'vit_tiny_patch16_224'.*resnet18"),
        ("vit_tiny_patch16_224", 32, r"'vit_tiny_patch16_224' cannot give output_stride=32"),
        ("resnet18", 4, "output_stride is 4; expected 8, 16 or 32"),
    ],
)
def test_encoders_that_do_not_fit_are_refused(name, stride, message):
    with pytest.raises(ValueError, match=message):
        TimmEncoder(name, stride)


def test_deeplab_needs_a_level_at_stride_4():
    encoder = TimmEncoder("resnet18", 16)
    encoder.reductions = [2, 8, 8, 16, 16]
    from segdistill.models.networks.deeplabv3plus import DeepLabV3Plus

    with pytest.raises(ValueError, match=r"level at stride 4.*Use pspnet"):
        DeepLabV3Plus(encoder, 2, make_input("imagenet"))


@pytest.mark.parametrize("name", ["mobilenetv2_050", "resnet18", "convnext_atto"])
def test_a_whole_timm_classifier_loads_and_only_its_head_is_left_out(name, tmp_path):
    torch.manual_seed(0)
    whole = timm.create_model(name).eval()
    torch.save(whole.state_dict(), tmp_path / "whole.pth")
    model = build_model(f"pspnet:{name}", 2, output_stride=32, weights=str(tmp_path / "whole.pth"))
    report = model.weights_report
    assert report.complete
    assert len(report.matched) + len(report.left_out) == len(whole.state_dict())
    assert len(report.left_out) <= 10
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        deepest = model.encoder.eval()(x)[-1]
        torch.testing.assert_close(
            deepest, whole.forward_intermediates(x, intermediates_only=True)[-1]
        )


def test_imagenet_weights_come_from_timm_or_the_failure_is_one_line(monkeypatch):
    make, offline = timm.create_model, True

    def create(name, pretrained=False, **options):
        if pretrained and offline:
            raise OSError("cannot reach the hub\nlong trace")
        return make(name, **options)

    monkeypatch.setattr(timm, "create_model", create)
    for name in ("pspnet:resnet18", "pspnet_r50"):
        with pytest.raises(
            ValueError, match=r"could not download the weights of 'resnet.*PATH"
        ) as error:
            build_model(name, 2, weights="imagenet")
        assert "\n" not in str(error.value)
    offline = False
    assert build_model("pspnet:resnet18", 2, weights="imagenet").weights_report is None


def test_a_file_of_another_network_is_refused(tmp_path):
    torch.save(timm.create_model("mobilenetv2_050").state_dict(), tmp_path / "timm.pth")
    torch.save({"_conv_stem.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "layout.pth")
    for file in ("timm.pth", "layout.pth"):
        with pytest.raises(ValueError, match=r"missing \d+ \(.*unexpected \d+ \(") as error:
            build_model("pspnet:resnet18", 2, weights=str(tmp_path / file))
        assert "\n" not in str(error.value)


DATA = Path(os.environ.get("SEGDISTILL_DATA", "/nonexistent"))
needs_data = pytest.mark.skipif(
    not (DATA / "weights").is_dir(), reason="needs SEGDISTILL_DATA with weights/ and samples/"
)
BACKBONES = [
    ("mobilenetv2_100", "mobilenet_v2_imagenet_dequant", "imagenet", 8),
    ("tf_efficientnet_lite0", "efficientnet_lite0_imagenet", "lite", 8),
]


@needs_data
@pytest.mark.parametrize(("name", "file", "normalisation", "head"), BACKBONES)
def test_published_backbones_load_with_nothing_unexplained(name, file, normalisation, head):
    path = DATA / "weights" / f"{file}.safetensors"
    model = build_model(f"pspnet:{name}", 11, output_stride=16, weights=str(path))
    report = model.weights_report
    assert report.complete, str(report)
    # conv_head, its batch norm (5 tensors) and the classifier's two.
    assert len(report.left_out) == head
    assert len(report.matched) + head == len(read_weights(path))
    assert len(report.matched) == len(model.encoder.net.state_dict())
    assert model.input.spec == make_input(normalisation).spec


@needs_data
@pytest.mark.parametrize(("name", "file", "normalisation", "head"), BACKBONES)
def test_published_backbones_still_recognise_what_they_learnt(name, file, normalisation, head):
    """By the same names, head included: a cat, skis and a school bus in ImageNet's numbers."""
    state = read_weights(DATA / "weights" / f"{file}.safetensors")
    classifier = timm.create_model(name).eval()
    names = recognise(state).names(classifier)
    mapped = {renamed(key, names): value for key, value in state.items()}
    assert len(mapped) == len(state)
    classifier.load_state_dict(mapped, strict=True)
    normalise = make_input(normalisation)
    for image, label in [
        ("coco_stuff/images/train2017/000000017914.jpg", 281),
        ("coco_stuff/images/val2017/000000000785.jpg", 795),
        ("voc/VOCdevkit/VOC2012/JPEGImages/2011_000025.jpg", 779),
    ]:
        with torch.no_grad():
            logits = classifier(normalise(_centre_crop(DATA / "samples" / image)))
        assert int(logits.argmax()) == label, image


def _centre_crop(path: Path) -> torch.Tensor:
    image = Image.open(path).convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC)
    left, top = ((side - 224) // 2 for side in image.size)
    image = image.crop((left, top, left + 224, top + 224))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
