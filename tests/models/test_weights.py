"""Loading weights: what is reported, what is refused, and in which words."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from segdistill.models import build_model, load_weights, wrap
from segdistill.models.files.weights import load_state, read_weights


def _net(classes: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, classes, 1))


def test_all_forms_of_file_give_the_same(tmp_path):
    net = _net()
    state = net.state_dict()
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pth")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "c.pt")
    torch.save({"model": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "d.pt")
    for name in ("a.safetensors", "b.pth", "c.pt", "d.pt"):
        twin = _net()
        report = load_weights(twin, tmp_path / name)
        assert report.complete
        assert len(report.matched) == len(state) == 9
        assert torch.equal(twin[0].weight, net[0].weight)


def test_strict_names_what_does_not_fit_and_changes_nothing():
    net = _net()
    before = net[0].weight.clone()
    state = {k: v + 1 for k, v in _net().state_dict().items()}
    state["extra.weight"] = torch.zeros(1)
    del state["1.bias"]
    with pytest.raises(ValueError) as error:
        load_state(net, state, source="file.pth")
    text = str(error.value)
    assert "missing 1 (1.bias)" in text
    assert "unexpected 1 (extra.weight)" in text
    assert "strict=False" in text
    assert "\n" not in text
    assert torch.equal(net[0].weight, before)
    report = load_state(net, state, strict=False)
    assert report.missing == ["1.bias"]
    assert report.unexpected == ["extra.weight"]
    assert torch.equal(net[0].weight, state["0.weight"])


def _broken(tensor: torch.Tensor, kind: str) -> torch.Tensor:
    if kind == "quantised":
        return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)
    if kind == "sparse":
        return tensor.to_sparse()
    if kind == "meta":
        return tensor.to("meta")
    if kind == "not finite":
        return torch.full_like(tensor, torch.inf)
    return tensor.to(getattr(torch, kind))


@pytest.mark.parametrize(
    "kind",
    [
        *("int8", "uint8", "bool", "complex64", "float8_e4m3fn"),
        *("quantised", "sparse", "meta", "not finite"),
    ],
)
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_tensors_that_are_no_weights_are_refused_before_any_is_loaded(kind):
    net = _net()
    before = net[0].weight.clone()
    state = _net().state_dict()
    state["2.weight"] = _broken(state["2.weight"], kind)
    with pytest.raises(ValueError, match=rf"^file\.pth: 2\.weight is (a )?{kind}.*; expected"):
        load_state(net, state, source="file.pth")
    assert torch.equal(net[0].weight, before)


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_weights_of_other_precisions_are_loaded(kind):
    state = {
        name: _broken(v, kind) if v.dtype.is_floating_point else v
        for name, v in _net().state_dict().items()
    }
    assert load_state(_net(), state).complete


def test_a_negative_variance_is_refused():
    state = _net().state_dict()
    state["1.running_var"] = state["1.running_var"] - 2
    with pytest.raises(
        ValueError, match=r"1\.running_var is negative; expected variances of at least 0"
    ):
        load_state(_net(), state)


def test_torchvision_s_auxiliary_head_is_named_by_its_option():
    state = {**_net().state_dict(), "aux_classifier.0.weight": torch.ones(1)}
    with pytest.raises(ValueError, match=r"set options: \{aux_loss: true\}"):
        load_state(_net(), state)


def test_another_class_count_is_said_in_those_words(tmp_path):
    source, model = build_model("pspnet_r18_half", 20), build_model("pspnet_r18_half", 19)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"has 20 classes, the network 19: .*num_classes=20"):
        load_weights(model, tmp_path / "w.pth")
    report = load_weights(model, tmp_path / "w.pth", strict=False)
    assert set(report.mismatched) == {
        f"{head}.{tensor}"
        for head in ("classifier", "aux.classifier")
        for tensor in ("weight", "bias")
    }
    assert report.mismatched["classifier.bias"] == ((20,), (19,))


def test_old_files_without_batch_counters_are_complete():
    state = {k: v for k, v in _net().state_dict().items() if "num_batches" not in k}
    assert load_state(_net(), state).complete


def test_a_wrapped_network_loads_into_the_module_inside(tmp_path):
    net = _net()
    torch.save(net.state_dict(), tmp_path / "w.pth")
    model = wrap(_net(), 3)
    assert load_weights(model, tmp_path / "w.pth").complete
    assert torch.equal(model.module[0].weight, net[0].weight)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_an_attribute_called_module_is_not_taken_for_a_prefix(prefix, tmp_path):
    net = nn.Module()
    net.module = _net()
    torch.save({prefix + k: v for k, v in net.state_dict().items()}, tmp_path / "w.pth")
    twin = nn.Module()
    twin.module = _net()
    assert load_weights(twin, tmp_path / "w.pth").complete
    assert torch.equal(twin.module[0].weight, net.module[0].weight)


class _Unsafe:
    pass


@pytest.mark.parametrize(
    ("content", "name", "kind", "message"),
    [
        (None, "none.pth", FileNotFoundError, r"no weights file at .*none\.pth"),
        (b"nonsense", "a.safetensors", ValueError, "cannot be read as a file of plain tensors"),
        (b"nonsense", "a.pth", ValueError, "cannot be read as a file of plain tensors"),
        (
            b"",
            "a.onnx",
            ValueError,
            r"the weights file is a\.onnx; expected \.safetensors, \.pt, \.pth",
        ),
        (b"<!DOCTYPE html><html>", "a.pth", ValueError, r"\(it is a web page: download the file"),
        (b" <HTML><body>", "a.safetensors", ValueError, r"\(it is a web page: download the file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a.pt", ValueError, "git lfs pull"),
        (b"", "a.pth", ValueError, "it is empty: download it again"),
        ({"epoch": 3}, "a.pt", ValueError, "expected tensors by name"),
        (_Unsafe(), "a.pt", ValueError, "Save only model.state_dict"),
    ],
)
def test_files_that_cannot_be_used_say_why(content, name, kind, message, tmp_path):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(kind, match=message) as error:
        read_weights(path)
    assert "\n" not in str(error.value) and "weights_only" not in str(error.value)
