"""Files of mmsegmentation, SKD, IFVD and CIRKD load without a word, and give what their networks give."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segdistill.models import build_model, build_trained, load_weights
from segdistill.models.files.weights import load_state, translated
from segdistill.models.layers.resnet import Bottleneck, DeepStemResNet
from segdistill.models.networks.pspnet import PSPNet
from tests.models.twins import CIRKD, InPlaceABN, MMSeg, ResPSPNet, stirred

TWINS: dict[str, tuple[str, Callable[..., nn.Module], str]] = {
    "mmseg-pspnet": ("pspnet", lambda **made: MMSeg("psp", **made), "imagenet"),
    "mmseg-deeplabv3": ("deeplabv3", lambda **made: MMSeg("aspp", **made), "imagenet"),
    "skd-pspnet": ("pspnet", ResPSPNet, "caffe_bgr"),
    "cirkd-deeplabv3": ("deeplabv3", CIRKD, "caffe_bgr"),
}


def _file(folder: Path, twin: nn.Module, **others: Any) -> Path:
    torch.save(
        {"state_dict": {**twin.state_dict(), **others}, "meta": {"iter": 3}}, folder / "w.pth"
    )
    return folder / "w.pth"


def _outputs(model: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    seen = []
    hook = model.aux.register_forward_hook(lambda *args: seen.append(args[2]))
    with torch.no_grad():
        logits = model(images)
    hook.remove()
    return logits, seen[0]


@pytest.mark.parametrize("name", TWINS)
def test_a_file_gives_what_its_network_gives(name: str, tmp_path: Path) -> None:
    family, make, normalisation = TWINS[name]
    torch.manual_seed(0)
    twin = stirred(make())
    model, report = build_trained(f"{family}_r18", 3, _file(tmp_path, twin))
    assert report.complete
    assert not report.left_out
    images = torch.rand(1, 3, 65, 97)
    with torch.no_grad():
        expected = twin(model.input(images))
    for own, theirs in zip(_outputs(model.eval(), images), expected, strict=True):
        assert own.abs().max() > 0
        torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))
    assert model.input.spec == build_model("pspnet_r18_half", 2, input=normalisation).input.spec
    assert model.align_corners == (not name.startswith("mmseg"))
    # What the file settled is kept, so that a run rebuilds the same network.
    again = build_model(model.spec["name"], 3, **model.spec["options"])
    assert load_state(again, model.state_dict()).complete


def test_bottlenecks_are_dilated_as_in_mmsegmentation(tmp_path: Path) -> None:
    layers = (1, 1, 2, 2)
    twin = stirred(MMSeg("psp", layers, deep=True, width=16))
    encoder = DeepStemResNet(Bottleneck, layers, width=16, form="mmseg")
    model = PSPNet(encoder, 3, form="mmseg").eval()
    assert load_weights(model, _file(tmp_path, twin)).complete
    images = torch.rand(1, 3, 65, 97)
    with torch.no_grad():
        torch.testing.assert_close(
            model(images), twin(model.input(images))[0], rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize(("depth", "layers"), [("r50", (3, 4, 6, 3)), ("r101", (3, 4, 23, 3))])
def test_every_name_and_shape_of_the_deep_ones_has_its_partner(
    name: str, depth: str, layers: tuple[int, ...]
) -> None:
    family, make, _ = TWINS[name]
    with torch.device("meta"):
        state = make(layers=layers, deep=True, classes=19).state_dict()
        model = build_model(f"{family}_{depth}", 19, form=name.split("-")[0])
    found = translated(model, state)[0]
    own = {key: value.shape for key, value in model.state_dict().items()}
    counted = {
        key: shape for key, shape in own.items() if name != "skd-pspnet" or "num_b" not in key
    }
    assert {key: value.shape for key, value in found.items()} == counted


def test_plain_batch_norm_in_the_same_names_keeps_its_signs(tmp_path: Path) -> None:
    twin = stirred(ResPSPNet(norm=nn.BatchNorm2d))
    model, _ = build_trained("pspnet_r18", 3, _file(tmp_path, twin))
    assert torch.equal(model.encoder.bn1.weight, twin.bn1.weight)
    assert (model.encoder.bn1.weight < 0).any()


def test_a_released_file_is_read_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = stirred(ResPSPNet()).state_dict()
    torch.save({"state_dict": state, "model_ema": state}, tmp_path / "w.pth")
    build_trained("pspnet_r18", 3, tmp_path / "w.pth")
    assert len([text for text in caplog.messages if "holds weights under" in text]) == 1


def test_a_pyramid_inside_the_head_and_no_auxiliary_head(tmp_path: Path) -> None:
    state = stirred(ResPSPNet()).state_dict()
    older = {
        key.replace("pspmodule.", "head.0.")
        .replace("head.weight", "head.1.weight")
        .replace("head.bias", "head.1.bias"): value
        for key, value in state.items()
        if not key.startswith("dsn.")
    }
    torch.save(older, tmp_path / "w.pth")
    model, report = build_trained("pspnet_r18", 3, tmp_path / "w.pth")
    assert report.complete
    assert model.aux is None
    assert isinstance(ResPSPNet().bn1, InPlaceABN)
    torch.testing.assert_close(
        model.psp.priors[0][1].weight, state["pspmodule.stages.0.2.weight"].abs() + 1e-5
    )


@pytest.mark.parametrize(
    ("name", "state", "message"),
    [
        (
            "pspnet_r18",
            {"pretrained.conv1.weight": torch.zeros(1)},
            "which uses a different pyramid",
        ),
        ("pspnet_r18", {"backbone.conv1.weight": torch.zeros(1)}, "deep stem"),
        (
            "deeplabv3_r18",
            {
                "backbone.stem.0.weight": torch.zeros(1),
                "backbone.layer2.0.downsample.2.weight": torch.zeros(1),
            },
            "is ResNetV1d.*expected ResNetV1c",
        ),
    ],
)
def test_files_of_networks_that_none_here_is_say_so(
    name: str, state: dict[str, Tensor], message: str, tmp_path: Path
) -> None:
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=message) as error:
        build_trained(name, 3, tmp_path / "w.pth")
    assert "\n" not in str(error.value)


def test_another_depth_and_unknown_names_are_refused(tmp_path: Path) -> None:
    extra = {"decode_head.spatial_gate.weight": torch.zeros(1)}
    path = _file(tmp_path, MMSeg("psp"), **extra)
    with pytest.raises(ValueError, match=r"unexpected 1 \(decode_head.spatial_gate.weight\)"):
        build_trained("pspnet_r18", 3, path)
    with pytest.raises(ValueError, match="build the network this file was made from"):
        build_trained("pspnet_r50", 3, path)
    with pytest.raises(ValueError, match="no form of PSPNet named 'mmsge'; did you mean 'mmseg'"):
        build_model("pspnet_r18", 3, form="mmsge")
