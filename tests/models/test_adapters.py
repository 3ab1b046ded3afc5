"""Networks of smp, torchvision and transformers: by name, as they are, and what is refused."""

import json
import logging
import sys

import pytest
import segmentation_models_pytorch as smp
import torch
import transformers
from safetensors.torch import save_file
from torchvision import models

from segdistill.config import TeacherConfig
from segdistill.distillation.taps import Taps
from segdistill.models import build_model, build_trained, network, wrap
from segdistill.models.foreign import adapters
from segdistill.run.networks import load_teacher

SEGFORMER = {
    "hidden_sizes": [8, 16, 24, 32],
    "depths": [1, 1, 1, 1],
    "num_attention_heads": [1, 1, 1, 1],
    "decoder_hidden_size": 16,
}
# Name, options, the library's class, align_corners, multiple_of, shape of `features` at 64×96.
NETWORKS = {
    "smp:Unet": ({"encoder_name": "resnet18"}, smp.Unet, False, 1, (16, 64, 96)),
    "smp:FPN": ({"encoder_name": "mobilenet_v2"}, smp.FPN, False, 32, (128, 16, 24)),
    "smp:DeepLabV3Plus": (
        {"encoder_name": "resnet18"},
        smp.DeepLabV3Plus,
        False,
        16,
        (256, 16, 24),
    ),
    "torchvision:deeplabv3_mobilenet_v3_large": (
        {"aux_loss": True},
        models.segmentation.DeepLabV3,
        False,
        1,
        (256, 4, 6),
    ),
    "torchvision:lraspp_mobilenet_v3_large": (
        {},
        models.segmentation.LRASPP,
        False,
        1,
        (128, 8, 12),
    ),
    "hf:segformer": (
        SEGFORMER,
        transformers.SegformerForSemanticSegmentation,
        False,
        1,
        (16, 16, 24),
    ),
    "hf:mobilevit": (
        {"hidden_sizes": [24, 32, 40], "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 64]},
        transformers.MobileViTForSemanticSegmentation,
        False,
        2,
        (256, 2, 3),
    ),
}


def _read(model, size=(64, 96)):
    with torch.no_grad(), Taps(model, model.taps) as taps:
        model.eval()(torch.rand(2, 3, *size))
        return taps.collect()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_librarys_network_keeps_the_contract(name):
    options, kind, corners, multiple, features = NETWORKS[name]
    model = build_model(name, 5, **options)
    assert type(network(model)) is kind
    assert (model.num_classes, model.align_corners, model.multiple_of) == (5, corners, multiple)
    assert model.input.spec["mean"] == [0.485, 0.456, 0.406]
    tensors = _read(model)
    assert tensors["logits"].shape[1] == 5
    assert tensors["features"].shape == (2, *features)
    assert ("aux" in tensors) == ("aux_loss" in options)
    twin = build_model(model.spec["name"], 5, **json.loads(json.dumps(model.spec["options"])))
    twin.load_state_dict(model.state_dict(), strict=True)
    x = torch.rand(1, 3, 64, 96)
    torch.testing.assert_close(twin.eval()(x), model.eval()(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("module", "corners", "multiple", "features"),
    [
        (
            lambda: smp.FPN("mobilenet_v2", encoder_weights=None, classes=4),
            False,
            32,
            "module.decoder.dropout:input",
        ),
        (
            lambda: models.segmentation.fcn_resnet50(weights_backbone=None, num_classes=4),
            False,
            1,
            "module.classifier.3:input",
        ),
    ],
)
def test_a_module_of_a_library_is_known_by_its_class(module, corners, multiple, features):
    model = wrap(module(), 4)
    assert (model.align_corners, model.multiple_of) == (corners, multiple)
    assert model.taps == {"logits": "", "features": features}
    own = wrap(module(), 4, taps={"body": "", "features": features[7:]}, multiple_of=64)
    assert own.taps == {"logits": "", "features": features, "body": ""}
    assert own.multiple_of == 64


def test_a_module_that_ends_in_an_activation_is_refused():
    module = smp.FPN("mobilenet_v2", encoder_weights=None, classes=1, activation="sigmoid")
    with pytest.raises(ValueError, match=r"smp's FPN ends in Sigmoid; expected logits"):
        wrap(module, 2)
    for kind, encoder in ((smp.FPN, "mobilenet_v2"), (smp.DPT, "tu-vit_tiny_patch16_224")):
        assert wrap(kind(encoder, encoder_weights=None, classes=2, activation="identity"), 2)


def test_features_are_read_before_the_dropout_that_works_in_place():
    model = build_model("smp:FPN", 3, encoder_name="mobilenet_v2").train()
    with Taps(model, model.taps) as taps:
        model(torch.rand(2, 3, 64, 64))
        features = taps.collect()["features"]
    assert features.shape == (2, 128, 16, 16)
    assert not (features == 0).all((-2, -1)).any(), "no whole channel is dropped"


def test_encoder_weights_settle_the_normalisation_and_are_not_fetched_again(monkeypatch):
    asked = []
    place = "segmentation_models_pytorch.decoders.fpn.model.get_encoder"
    monkeypatch.setattr(
        place,
        lambda name, weights, **settings: (
            asked.append(weights) or smp.encoders.get_encoder(name, weights=None, **settings)
        ),
    )
    settings = {"input_space": "BGR", "input_range": [0, 255], "mean": [3, 2, 1], "std": [1, 1, 1]}
    monkeypatch.setattr(smp.encoders, "get_preprocessing_params", lambda *_: settings)
    model = build_model("smp:FPN", 3, encoder_name="mobilenet_v2", encoder_weights="imagenet")
    assert (model.input.order, model.input.scale) == ("bgr", 255.0)
    assert model.input.spec["mean"] == [3.0, 2.0, 1.0]
    twin = build_model(model.spec["name"], 3, **model.spec["options"])
    assert twin.input.spec == model.input.spec
    assert asked == ["imagenet", None]


@pytest.fixture
def folder(tmp_path):
    """A SegFormer of three classes as `save_pretrained` leaves it, its images in -1..1."""
    torch.manual_seed(0)
    config = transformers.SegformerConfig(**SEGFORMER, num_labels=3)
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(tmp_path / "segformer")
    transformers.SegformerImageProcessor(
        image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5]
    ).save_pretrained(tmp_path / "segformer")
    return tmp_path / "segformer"


def test_a_saved_folder_is_a_teacher_and_its_student_is_rebuilt_without_it(folder):
    model, origin = load_teacher(TeacherConfig(model=f"hf:{folder}"), ["a", "b", "c"])
    assert "missing 0; unexpected 0" in origin["load"]
    assert model.input.spec["mean"] == model.input.spec["std"] == [0.5, 0.5, 0.5]
    assert model.input.spec["scale"] == 1.0
    theirs = transformers.SegformerForSemanticSegmentation.from_pretrained(folder).eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), theirs(2 * x - 1).logits)
    assert model.spec["name"] == "hf:segformer"
    assert str(folder) not in json.dumps(model.spec)
    twin = build_model(model.spec["name"], 3, **model.spec["options"])
    twin.load_state_dict(model.state_dict(), strict=True)
    assert twin.input.spec == model.input.spec


def test_a_folder_of_other_classes_makes_a_student_but_no_teacher(folder, caplog):
    (folder / "preprocessor_config.json").unlink()
    with caplog.at_level(logging.WARNING):
        model = build_model(f"hf:{folder}", 5)
    assert "ImageNet's normalisation is used" in caplog.text
    assert set(model.weights_report.mismatched) == {
        "decode_head.classifier.weight",
        "decode_head.classifier.bias",
    }
    assert _read(model)["logits"].shape == (2, 5, 16, 24)
    with pytest.raises(ValueError, match=r"teacher.model is partly untrained .*\[3\] in"):
        load_teacher(TeacherConfig(model=f"hf:{folder}"), list("abcde"))


def test_a_file_of_ones_own_loads_strictly(tmp_path):
    torch.manual_seed(0)
    trained = smp.FPN("mobilenet_v2", encoder_weights=None, classes=3)
    save_file(trained.state_dict(), tmp_path / "mine.safetensors")
    options = {"encoder_name": "mobilenet_v2"}
    model, report = build_trained("smp:FPN", 3, tmp_path / "mine.safetensors", **options)
    assert report.complete
    torch.testing.assert_close(network(model).state_dict(), trained.state_dict(), rtol=0, atol=0)
    with pytest.raises(ValueError, match="the file has 3 classes, the network 4"):
        build_trained("smp:FPN", 4, tmp_path / "mine.safetensors", **options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("smp:Unett", {}, r"no network of smp named 'Unett'; did you mean 'Unet'"),
        ("smp:FPN", {"encoder_name": "resnet19"}, r"no encoder of smp named .* mean 'resnet18'"),
        ("smp:FPN", {"encoder_weihts": None}, r"option of smp's FPN .* mean 'encoder_weights'"),
        ("smp:FPN", {"encoder_depth": 9}, r"smp cannot build FPN with .*encoder_depth': 9"),
        ("smp:FPN", {"activation": "softmax2d"}, r"smp's FPN ends in Softmax; .* `activation`"),
        ("torchvision:fcn_resnet5", {}, r"torchvision named .* did you mean 'fcn_resnet50'"),
        ("torchvision:lraspp_mobilenet_v3_large", {"weihts": 1}, r"did you mean 'weights'"),
        ("torchvision:fcn_resnet50", {"weights": "NOPE"}, r"weights of .* 'NOPE' \(known: COCO_"),
        (
            "torchvision:fcn_resnet50",
            {"weights_backbone": "ResNet50_Weights.IMAGENET1K_V3"},
            r"did you mean 'IMAGENET1K_V[12]'\? \(known: DEFAULT, IMAGENET1K_V1, IMAGENET1K_V2\)",
        ),
        ("torchvision:fcn_resnet50", {"weights": "DEFAULT"}, r"expected value 21 but got 4"),
        ("hf:segfromer", {}, r"did you mean 'segformer'.*no such folder or hub id"),
        ("hf:segformer", {"hidden_size": 8}, r"no setting of .* did you mean 'hidden_sizes'"),
        ("hf:segformer", {"num_labels": 8}, r"no setting of segformer named 'num_labels'"),
        (
            "hf:beit",
            {"num_hidden_layers": 1, "hidden_size": 12},
            r"transformers cannot build beit: .*out_indices",
        ),
        ("torchvison:fcn_resnet50", {}, r"no model named 'torchvison'; did you mean 'torchvision'"),
        ("smp:FPN", {"input": "imagenett"}, r"did you mean 'imagenet'"),
    ],
)
def test_slips_are_answered_in_one_line(name, options, message):
    with pytest.raises(ValueError, match=message) as error:
        build_model(name, 4, **options)
    assert "\n" not in str(error.value)


def test_a_folder_that_gives_no_logits_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match=r"a bert gives no logits of classes; expected beit, "):
        build_model(f"hf:{tmp_path}", 4)


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("smp:Unet", "segmentation_models_pytorch", "smp"),
        ("hf:segformer", "transformers", "hf"),
    ],
)
def test_a_missing_library_names_its_extra(name, package, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ValueError, match=rf'{package} is needed.*pip install "segdistill\[{extra}\]'
    ):
        build_model(name, 4)


def test_every_library_has_its_adapter():
    assert adapters.ADAPTERS.keys() == adapters.LIBRARIES.keys()
    for adapter in adapters.ADAPTERS.values():
        assert adapter.make.__doc__
        assert adapter.conventions.__doc__


@pytest.mark.parametrize("key", ["trust_remote_code", "auto_map"])
def test_a_config_of_transformers_cannot_ask_for_its_own_code(key, tmp_path):
    (tmp_path / "theirs.py").write_text(f"open({str(tmp_path / 'made')!r}, 'w')\n")
    values = {
        "model_type": "segformer",
        "auto_map": {"AutoConfig": "theirs.Config"},
        "trust_remote_code": True,
    }
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="transformers"):
        build_model(f"hf:{tmp_path}", 3, **{key: values[key]})
    assert not (tmp_path / "made").exists()
